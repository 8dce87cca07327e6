"""Statistics of the claims about the sets that the inputs paper's authors released."""

from collections.abc import Sequence

import numpy as np

from lowbit.analysis.released_sets import agreement_draws, label
from lowbit.analysis.statistics import expected_jaccard
from lowbit.analysis.tables import membership
from lowbit.claims.results import Measurement, ModelResults, NotMeasured

TABLE = "released_sets"
"""Name of the stage's table: released_sets.parquet."""


def released_overlap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Jaccard index of the authors' D_large and as many documents with our largest errors.

    Less its expectation for random sets; the mean over the methods that sets were released of.
    """
    released = results.table(TABLE)
    theirs = {
        name: membership(released, label(results.method(name)), "large", results.doc_ids)
        for name in names
    }
    theirs = {name: member for name, member in theirs.items() if member.any()}
    if not theirs:
        sets = ", ".join(sorted(set(released["method"])))
        raise NotMeasured(f"no method of this study is one that sets were released of ({sets})")
    draws = []
    for name, member in theirs.items():
        error = results.column("error", [name])[:, 0]
        draws.append(agreement_draws(error, member, results.counts))
    sizes = [int(member.sum()) for member in theirs.values()]
    chance = np.mean([expected_jaccard(size, size, len(results.doc_ids)) for size in sizes])
    jaccard, precision = np.mean(draws, axis=0)
    detail = f"Jaccard {jaccard[0]:.2f}, chance {chance:.2f}, precision {precision[0]:.2f}"
    return results.measure(jaccard - chance, list(theirs), detail, min(sizes))
