"""What to keep in higher precision: modules ranked by what they give back, and models made of them.

Half of the documents, drawn at random, ranks the modules; all mixed models are measured on the
other half, which no choice has seen.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import MINIMUM_DOCUMENTS
from lowbit.errors import InputError

BASE, HIGHER, GREEDY, LAST, RANDOM = "base", "higher", "greedy", "last blocks", "random"
"""Models: unmixed, all in higher precision, mixed by the ranking, from the end, at random."""
RANDOM_CHOICES = 10
"""Random choices of modules that the ranking is compared with."""


def halves(documents: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the documents that rank, and of those held out, each in order.

    Raises:
        InputError: too few documents for intervals in each half.
    """
    if documents < 2 * MINIMUM_DOCUMENTS:
        raise InputError(
            "mechanisms.mixed_precision ranks on one half of the documents and scores on the "
            f"other: {documents} are too few, write documents.n: {2 * MINIMUM_DOCUMENTS} or more"
        )
    order = np.random.default_rng([seed, 0]).permutation(documents)
    return np.sort(order[: documents // 2]), np.sort(order[documents // 2 :])


def recovered_nll(restored: pd.DataFrame, modules: pd.DataFrame) -> np.ndarray:
    """NLL of the base less that with each module restored, [documents, modules].

    Args:
        restored: doc_id, module, nll_base, nll.
        modules: module, in the order of the columns returned.
    """
    gap = restored.assign(gap=restored["nll_base"] - restored["nll"])
    wide = gap.pivot(index="doc_id", columns="module", values="gap")
    return wide.loc[restored["doc_id"].drop_duplicates(), modules["module"]].to_numpy(float)


def extra_per_weight(modules: pd.DataFrame) -> np.ndarray:
    """Bits per weight, mean over all quantized weights, that each module takes more, [modules].

    Args:
        modules: weights, base_bits, higher_bits (stored bits of all weights of the module).
    """
    extra = modules["higher_bits"] - modules["base_bits"]
    return (extra / modules["weights"].sum()).to_numpy(float)


def require_budget(modules: pd.DataFrame, extra_bits: float) -> None:
    """Raise `InputError` unless at least one module fits: else there is nothing to choose."""
    cheapest = float(extra_per_weight(modules).min())
    if extra_bits < cheapest:
        raise InputError(
            f"mechanisms.mixed_precision.extra_bits is {extra_bits:g}, which is not enough for any "
            "module (bits per weight, mean over all quantized weights): write "
            f"{np.ceil(1e6 * cheapest) / 1e6:g} or more"
        )


def rank(recovered: np.ndarray, modules: pd.DataFrame) -> np.ndarray:
    """Modules by NLL recovered per extra bit, best first, int [modules]."""
    return np.argsort(-recovered.mean(axis=0) / extra_per_weight(modules), kind="stable")


def fill(order: Sequence[int], modules: pd.DataFrame, extra_bits: float) -> list[str]:
    """Take modules in order while they fit; one that does not is left out, smaller ones may follow.

    Args:
        extra_bits: bits per weight, mean over all quantized weights, that may be spent.
    """
    cost, names = extra_per_weight(modules), modules["module"].tolist()
    left = extra_bits * (1 + 1e-9)  # so that a sum of rounded numbers fills it exactly
    chosen = []
    for module in order:
        if cost[module] <= left:
            chosen.append(names[module])
            left -= cost[module]
    return chosen


def choose(
    recovered: np.ndarray, modules: pd.DataFrame, extra_bits: float, seed: int
) -> dict[str, list[str]]:
    """Choose modules for every mixed model: by the ranking, from the end, and at random.

    The ranking takes no module whose restoration made its half of the documents worse.

    Args:
        recovered: on the half that ranks, [documents, modules].
        modules: module, block, weights, base_bits, higher_bits, in the model's order.
    """
    useful = [place for place in rank(recovered, modules) if recovered[:, place].mean() > 0]
    from_the_end = range(len(modules) - 1, -1, -1)
    chosen = {
        GREEDY: fill(useful, modules, extra_bits),
        LAST: fill(from_the_end, modules, extra_bits),
    }
    for number in range(1, RANDOM_CHOICES + 1):
        order = np.random.default_rng([seed, number]).permutation(len(modules))
        chosen[f"{RANDOM} {number}"] = fill(order, modules, extra_bits)
    return chosen
