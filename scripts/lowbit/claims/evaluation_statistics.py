"""Statistics of the claims about evaluation sets, which are found by their name in the config.

The option `set` is that name (WikiText-2's test split is to be called `wikitext2`), `length` the
tokens of its windows. A set cut short by `n` is none of the papers'.
"""

from collections.abc import Sequence

import pandas as pd

from lowbit.analysis.evaluation import PERPLEXITY
from lowbit.claims.results import Measurement, ModelResults, NotMeasured

TABLE = "evaluation"
"""Name of the stage's table: evaluation.csv."""


def evaluated_perplexity(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Perplexity of one method, or of `full`, on an evaluation set; `n` counts its windows."""
    (method,) = names
    rows = _rows(results, options["set"], PERPLEXITY)
    row = rows[rows["method"] == method].iloc[0]
    if row["length"] != options["length"] or not row["whole"]:
        part = "all" if row["whole"] else "the first"
        raise NotMeasured(
            f"it is of windows of {options['length']} tokens of the whole text, this study has "
            f"{part} {row['n']} windows of {row['length']:g}"
        )
    return Measurement(row["value"], row["low"], row["high"], int(row["n"]), (method,))


def _rows(results: ModelResults, name: str, measure: str) -> pd.DataFrame:
    """Rows of one measure on a set; `NotMeasured` if the study does not have it."""
    table = results.table(TABLE)
    found = table[(table["set"] == name) & (table["measure"] == measure)]
    if found.empty:
        raise NotMeasured(
            f"no set of this study's evaluation: is called {name} and has a {measure}"
        )
    return found
