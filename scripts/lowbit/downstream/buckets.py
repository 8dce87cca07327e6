"""Buckets of items by popularity, as many items in each."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BUCKETS = 8
"""As in the inputs paper (arXiv 2506.12044)."""
SMALLEST = 5
"""Fewer items in a bucket give no mean worth an interval."""
MINIMUM_ITEMS = BUCKETS * SMALLEST


def popularity_buckets(popularity: "np.ndarray") -> "np.ndarray":
    """Number each item's bucket, 0 the least popular: int `[items]`.

    The buckets are equal in items (to within one), so it makes no difference whether popularity or
    its logarithm is cut. Equally popular items stay in their order.

    Args:
        popularity: `[items]`, any unit.
    """
    import numpy as np

    rank = np.empty(len(popularity), int)
    rank[np.argsort(popularity, kind="stable")] = np.arange(len(popularity))
    return rank * BUCKETS // len(popularity)
