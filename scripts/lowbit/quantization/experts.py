"""Mixture-of-experts layers, whose linear layers transformers 5 merges into tensors of three axes.

An `experts` module holds `gate_up_proj` `[experts, 2 * inner, hidden]`, each expert's gate above
its up projection, and `down_proj` `[experts, hidden, inner]` (Qwen3Moe, Glm4Moe and their like).
Files and quantizers speak of each expert's own linears: `mlp.experts.3.gate_proj`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GATE_UP, DOWN = "gate_up_proj", "down_proj"


@dataclass(frozen=True)
class ExpertSlice:
    """Where an expert's weight `[out, in]` lies."""

    parameter: str
    """Name of the merged parameter."""
    expert: int
    rows: slice
    """Of the expert's matrix in the merged parameter."""

    def of(self, merged: Tensor) -> Tensor:
        """The expert's weight, a view into the merged tensor."""
        return merged[self.expert, self.rows]


def expert_slices(module: nn.Module) -> dict[str, ExpertSlice]:
    """From the name of each merged expert's linear layer to its place; empty without any.

    `module` is a model or a block; names are relative to it, in the order expert by expert.
    """
    found = {}
    for path, experts in _merged(module):
        count, inner = experts.gate_up_proj.shape[0], experts.down_proj.shape[2]
        for expert in range(count):
            place = f"{path}.{expert}"
            gate_up, down = f"{path}.{GATE_UP}", f"{path}.{DOWN}"
            found[f"{place}.gate_proj"] = ExpertSlice(gate_up, expert, slice(0, inner))
            found[f"{place}.up_proj"] = ExpertSlice(gate_up, expert, slice(inner, 2 * inner))
            found[f"{place}.down_proj"] = ExpertSlice(down, expert, slice(None))
    return found


def separate_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and kept buffers by name, merged experts as one weight for each linear layer."""
    tensors = module.state_dict()
    slices = expert_slices(module)
    merged = {place.parameter for place in slices.values()}
    views = {f"{name}.weight": place.of(tensors[place.parameter]) for name, place in slices.items()}
    return {name: tensor for name, tensor in tensors.items() if name not in merged} | views


def merge_tensors(
    slices: Mapping[str, ExpertSlice],
    tensors: Mapping[str, Tensor],
    merged: Callable[[str], Tensor],
) -> dict[str, Tensor]:
    """Put experts' weights among `tensors` into merged parameters; the others pass through.

    Args:
        slices: of `expert_slices`, for the same module.
        tensors: by name; an expert's weight is called `<linear>.weight`.
        merged: returns the merged parameter of a name, whose other weights stay as they are.
    """
    others, changed = {}, {}
    for name, tensor in tensors.items():
        place = slices.get(name.removesuffix(".weight"))
        if place is None:
            others[name] = tensor
            continue
        if place.parameter not in changed:
            changed[place.parameter] = merged(place.parameter).detach().clone()
        place.of(changed[place.parameter]).copy_(tensor)
    return others | changed


def separate_experts(module: nn.Module) -> nn.Module:
    """Replace merged experts, in place, by modules with a linear layer for each matrix.

    What the module computes stays the same, but each linear layer can be found by name, hooked and
    quantized. Returns the module itself, or its replacement where it is merged experts.
    """
    for path, experts in list(_merged(module)):
        owner, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(owner), leaf, SeparateExperts(experts))
    return module


class SeparateExperts(nn.ModuleList):
    """Experts that are called like transformers' merged ones."""

    def __init__(self, merged: nn.Module) -> None:
        super().__init__()
        slices = expert_slices(nn.ModuleDict({"experts": merged}))
        tensors = {f"experts.{name}": tensor for name, tensor in merged.named_parameters()}
        for expert in range(merged.gate_up_proj.shape[0]):
            linears = {}
            for name in ("gate_proj", "up_proj", "down_proj"):
                place = slices[f"experts.{expert}.{name}"]
                weight = place.of(tensors[place.parameter]).detach()
                linears[name] = nn.Linear(*weight.T.shape, bias=False, device="meta")
                linears[name].weight = nn.Parameter(weight.clone(), requires_grad=False)
            self.append(nn.ModuleDict(linears))
        self.activation = merged.act_fn

    def forward(self, hidden_states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Send each token through its experts; sum what they give by weight.

        Args:
            hidden_states: `[tokens, hidden]`.
            chosen: `[tokens, k]`, numbers of the experts of each token.
            weights: `[tokens, k]`.
        """
        output = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self):
            tokens, place = torch.where(chosen == number)
            if len(tokens) == 0:
                continue
            state = hidden_states[tokens]
            inner = self.activation(expert["gate_proj"](state)) * expert["up_proj"](state)
            given = expert["down_proj"](inner) * weights[tokens, place, None]
            output.index_add_(0, tokens, given.to(output.dtype))
        return output


def _merged(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules of merged experts, in the layout described above, by name."""
    found = []
    for path, candidate in module.named_modules():
        parameters = dict(candidate.named_parameters(recurse=False))
        if parameters.keys() == {GATE_UP, DOWN}:
            (count, twice, hidden), (same, out, inner) = (
                parameters[name].shape for name in (GATE_UP, DOWN)
            )
            if count == same and twice == 2 * inner and hidden == out:
                found.append((path, candidate))
    return found
