"""The table of claims as Markdown."""

from collections.abc import Sequence

import pandas as pd

from lowbit.claims.judging import DIFFERS, REPRODUCED
from lowbit.claims.paper import Paper
from lowbit.markdown import number_with_interval, table

NOT_RUN = "not run"

HEAD = """\
# Claims

How to read this: a **direction** is judged on every model of the study, or once where it compares
models, and is *reproduced* only if the whole {confidence:g} % bootstrap interval lies on the side
the paper states; "interval includes 0" beside *differs* means that these documents cannot tell. The
paper's **figures** bind only for the paper's own models, methods and text. `n` is the number of
documents that a value is of: all of them, or, where it is of sets of documents (D_large, D_ctrl,
documents of high or low NLL), those of the smallest set. Values over several methods or pairs are
means; their spread is beside them. All columns, statistics included, are in `claims.csv`.
"""


def verdict_counts(claims: pd.DataFrame) -> dict[str, int]:
    """Count rows by verdict: reproduced, differs, not run."""
    verdicts = claims["verdict"]
    return {
        REPRODUCED: int((verdicts == REPRODUCED).sum()),
        DIFFERS: int((verdicts == DIFFERS).sum()),
        NOT_RUN: int(verdicts.str.startswith(NOT_RUN).sum()),
    }


def counts_sentence(claims: pd.DataFrame) -> str:
    """Say how many directions and figures have which verdict."""
    parts = []
    for kind, name in (("direction", "directions"), ("figure", "figures of the paper")):
        counts = verdict_counts(claims[claims["kind"] == kind])
        listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        parts.append(f"**{name}**: {listed}")
    return "; ".join(parts) + "."


def claims_markdown(claims: pd.DataFrame, papers: Sequence[Paper], confidence: float) -> str:
    """Render the verdicts, grouped by paper and section, verdict first."""
    parts = [HEAD.format(confidence=100 * confidence)]
    for paper in papers:
        mine = claims[claims["paper"] == paper.name]
        parts.append(f"## {paper.title}\n\n{paper.reference}. {counts_sentence(mine)}\n")
        for section, rows in mine.groupby("section", sort=False):
            parts.append(f"### {section}\n\n{section_markdown(rows)}")
    return "\n".join(parts)


def section_markdown(rows: pd.DataFrame) -> str:
    """Render one section: directions, figures that were judged, and why others were not.

    A section of which nothing was run is a list of reasons.
    """
    parts = []
    directions = rows[rows["kind"] == "direction"]
    if len(directions) and directions["verdict"].str.startswith(NOT_RUN).all():
        parts.append(_waiting_list("Not judged", directions))
    elif len(directions):
        parts.append(table(HEADER, [_direction_cells(row) for row in directions.itertuples()]))
    figures = rows[rows["kind"] == "figure"]
    waiting = figures["verdict"].str.startswith(NOT_RUN)
    judged = figures[~waiting]
    if len(judged):
        cells = [_figure_cells(row) for row in judged.itertuples()]
        parts.append("Figures of the paper:\n\n" + table(FIGURE_HEADER, cells))
    if waiting.any():
        parts.append(_waiting_list("Figures of the paper that were not judged", figures[waiting]))
    return "\n".join(parts)


HEADER = ["verdict", "claim", "model", "measured", "expected", "in the paper", "n", "remarks"]
FIGURE_HEADER = ["verdict", "figure", "model", "methods", "measured", "paper", "n", "remarks"]


def _direction_cells(row) -> list[str]:
    """Cells of one direction."""
    return [
        _emphasised(row.verdict),
        f"`{row.claim}` {row.statement}",
        row.model,
        number_with_interval(row.measured, row.low, row.high),
        row.expected,
        row.paper_value,
        "" if pd.isna(row.n) else str(row.n),
        row.detail,
    ]


def _figure_cells(row) -> list[str]:
    """Cells of one judged figure."""
    measured = number_with_interval(row.measured, row.low, row.high)
    cells = [_emphasised(row.verdict), f"`{row.claim}`", row.model, row.methods, measured]
    return [*cells, row.expected, str(row.n), row.detail]


def _emphasised(verdict: str) -> str:
    """Bold a verdict that was reached, plain what was not run."""
    return verdict if verdict.startswith(NOT_RUN) else f"**{verdict}**"


def _waiting_list(heading: str, waiting: pd.DataFrame) -> str:
    """Say for each reason how many directions or figures of which claims were not judged."""
    lines = []
    for verdict, rows in waiting.groupby("verdict", sort=False):
        counts = rows["claim"].value_counts(sort=False)
        lines.append(f"- {verdict}: " + ", ".join(f"{n} of `{name}`" for name, n in counts.items()))
    return f"{heading}:\n\n" + "\n".join(lines) + "\n"
