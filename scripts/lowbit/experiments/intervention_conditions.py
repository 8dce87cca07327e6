"""What interventions there are (see `lowbit.experiments.interventions`); needs no PyTorch."""

import numpy as np

SCALE, SWAP, SWAP_INVERSE, GAMMA = "scale", "swap", "swap_inverse", "gamma"
SHAM, SWAP_SHAM = "sham", "swap_sham"
"""Conditions."""
SWAPS = (SWAP, SWAP_INVERSE, SWAP_SHAM)
"""Those that are of documents with a partner."""
SHAM_OF = {SCALE: SHAM, SWAP: SWAP_SHAM}
"""What a condition is compared with that may do nothing."""

FACTORS = (0.5, 0.71, 1.41, 2.0)
"""Of norm(r): halved, over and times the square root of two, doubled."""
INVERSE = dict(zip(FACTORS, reversed(FACTORS), strict=True))
"""Factor of norm(r) -> the one that undoes it."""

ALL, UPPER_HALF = "all", "upper half"
"""Layers: those of the shams of scaling; those of swaps, where the paper finds norms apart."""


def layer_sets(blocks: int) -> dict[str, list[int]]:
    """Blocks, counted from 0, of each third of the depth and of the upper half; no empty sets."""
    lower, middle, upper = np.array_split(np.arange(blocks), 3)
    sets = {"lower third": lower, "middle third": middle, "upper third": upper}
    sets[UPPER_HALF] = np.arange(blocks // 2, blocks)
    return {name: [int(index) for index in found] for name, found in sets.items() if len(found)}
