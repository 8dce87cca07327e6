"""The projections of a block, and taps on what they read."""

from collections.abc import Callable

from torch import Tensor, nn

from lowbit.engine.decoder import Tap
from lowbit.quantization.blocks import linears_of


def projections(block: nn.Module) -> dict[str, str]:
    """Linear layers of a decoder block -> last part of their name, such as `q_proj`.

    Those of experts are left out: an expert reads some of the tokens only, and most architectures
    merge the experts' weights into one tensor.
    """
    names = [name for name in linears_of(block) if ".experts." not in f".{name}"]
    return {name: name.rpartition(".")[2] for name in names}


def by_document(activation: Tensor, documents: int) -> Tensor:
    """View what a projection reads as `[documents, length, width]`.

    Some architectures join documents and tokens there.
    """
    return activation.view(documents, -1, activation.shape[-1])


class Once:
    """Computes a function of an activation once, however many projections read it."""

    def __init__(self, function: Callable[[str, Tensor], Tensor]) -> None:
        self._function = function
        self._last: tuple[Tensor, Tensor] | None = None

    def tap(self, name: str) -> Tap:
        """The tap on what the projection `name` reads."""

        def replace(activation: Tensor) -> Tensor:
            if self._last is None or self._last[0] is not activation:
                self._last = activation, self._function(name, activation)
            return self._last[1]

        return replace
