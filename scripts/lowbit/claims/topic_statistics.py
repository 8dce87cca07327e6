"""Statistics of the claim about the topics of the documents that break."""

from collections.abc import Sequence

import numpy as np

from lowbit.analysis.statistics import mean_draws
from lowbit.analysis.topics import one_hot
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, weakest
from lowbit.names import LARGE

TABLE = "topics"
"""Name of the stage's table: topics.parquet."""


def largest_topic_share(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Share of D_large that is of one topic, that of the method and topic for which it is largest.

    The one whose interval reaches furthest up is judged. The option `topics` says how many topics
    the classifier must know: among fewer, each has more.
    """
    table = results.table(TABLE)
    known = int(table["known"].iloc[0])
    if known != options["topics"]:
        raise NotMeasured(
            f"this study's classifier knows {known} topics, the paper's {options['topics']}"
        )
    labels = sorted(table["topic"].unique())
    of_topic = one_hot(table, labels, results.doc_ids)
    shares = [mean_draws(of_topic, results.member(name, LARGE), results.counts) for name in names]
    draws = np.concatenate(shares, axis=1)  # [1 + R, methods x labels]
    worst = weakest(draws, results.settings.confidence, "below")
    method, label = divmod(worst, len(labels))
    present = min(int((share[0] > 0).sum()) for share in shares)
    detail = f"“{labels[label]}” under {names[method]}; {present} of {known} topics or more"
    return results.measure(draws[:, worst], names, detail, results.smallest(names, LARGE))
