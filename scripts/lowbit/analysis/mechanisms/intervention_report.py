"""What the interventions support, in words that are never stronger than the intervals."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lowbit.analysis.mechanisms.interventions import GAP
from lowbit.analysis.statistics import MINIMUM_DOCUMENTS
from lowbit.experiments.intervention_conditions import (
    FACTORS,
    GAMMA,
    INVERSE,
    SCALE,
    SHAM_OF,
    SWAP,
    SWAP_INVERSE,
    UPPER_HALF,
)
from lowbit.markdown import number, number_with_interval, table
from lowbit.names import SETS

PAIRS = tuple((factor, INVERSE[factor]) for factor in sorted(FACTORS, reverse=True) if factor < 1)
"""Factors that shrink and enlarge r, the milder pair first."""
SWAP_NAMES = {SWAP: "swapped", SWAP_INVERSE: "the inverse"}
MAIN_LAYERS, MAIN_PAIR = UPPER_HALF, PAIRS[0]
"""Where the paper finds the norms apart, and the milder pair: what the conclusion is about."""

SUPPORTED = "supported"
STRAINED = "supported, but the full model changes more"
DISTURBED = "any disturbance does it"
PARTLY = "one direction only"
AGAINST = "the opposite"
NOT_SHOWN = "not shown"
TOO_FEW = "too few documents"
MOVES = (SUPPORTED, STRAINED)
"""Verdicts by which errors move as they would if the norm were a cause."""

HEAD = """\
# Does a small residual norm make inputs break? {model}

{conclusion}

The inputs paper finds that documents with a small norm(r) have large errors (claim 2) and changes
nothing. Here the norm is changed, the direction of r kept, in the full-precision and the quantized
model alike: by the same factor for each document and layer, the one that gives the full-precision
model the norm that is meant. Then the error e = NLL(quantized) - NLL(full precision) is measured
again. Numbers are changes in nats per token, of e less those of a sham, which scales only what the
norms before the MLPs read, at all layers, and is taken out again there. Brackets:
{confidence:g} % bootstrap intervals over documents, not corrected for the number of comparisons.
Every row: `interventions.csv`.
"""
SCALING = f"""\
## Scaling r

If the norm is a cause, shrinking r raises e in D_ctrl, enlarging it lowers e in D_large, and in
each set the two factors differ so. *{SUPPORTED}*: all of that holds with whole intervals.
*{STRAINED}*: so it does, but NLL of the full-precision model changes by more than e, so this is
what the norm does in a model pushed away from its own states. *{DISTURBED}*: the first two hold,
but shrinking and enlarging do not differ so in both sets: D_large was chosen for its errors, which
any disturbance brings nearer to the mean. *{PARTLY}*: one of the two holds. *{AGAINST}*: whole
intervals on the other sides. *{TOO_FEW}*: fewer than {MINIMUM_DOCUMENTS} in one of the sets.
"""
SWAPPING = """\
## Swapping norms

Each document of D_large is paired with one of D_ctrl of nearly the same full-precision NLL, and in
the upper half each gets the norms of its partner: differences of norm as they are by nature. The
gap is the mean error of D_large less that of D_ctrl; if the norm is the cause, it closes. So it
does, in part, under any disturbance, because D_large was chosen for its errors (regression to the
mean). The inverse swap is such a disturbance, as large and the other way: each norm is divided by
what the swap multiplies it with. What the norm as a cause predicts is a gap that closes under the
swap and not, or less, under its inverse: *swap less inverse* below 0. A gap that closes as much
under both says nothing of the norm. The inverse has no sham of its own.
"""
RAISING = """\
## Raising small gamma

The 5 % smallest |gamma| of the norm before the MLP are raised to the median, in both models: the
paper finds that the largest dimensions of r meet them. Without a sham.
"""


NO_STREAM = "Not measured: this architecture has no residual stream between attention and MLP."
FEW_DOCUMENTS = (
    f"Not judged: D_large or D_ctrl has fewer than {MINIMUM_DOCUMENTS} documents; raise "
    "documents.n."
)


class Judged(NamedTuple):
    """One method, set of layers and pair of factors."""

    shrunk: pd.Series
    """Row of D_ctrl with r shrunk."""
    enlarged: pd.Series
    """Row of D_large with r enlarged."""
    verdict: str


def judge(shrunk: pd.Series, enlarged: pd.Series) -> str:
    """Say what one pair of rows of interventions.csv supports.

    Args:
        shrunk: of D_ctrl with r shrunk.
        enlarged: of D_large with r enlarged.
    """
    if min(shrunk["n"], enlarged["n"]) < MINIMUM_DOCUMENTS:
        return TOO_FEW
    (_, shrunk_low, shrunk_high), (_, enlarged_low, enlarged_high) = map(beyond, (shrunk, enlarged))
    raised, lowered = shrunk_low > 0, enlarged_high < 0
    if shrunk_high < 0 and enlarged_low > 0:
        return AGAINST
    if not (raised and lowered):
        return PARTLY if raised or lowered else NOT_SHOWN
    if not (shrunk["against_inverse_low"] > 0 and enlarged["against_inverse_high"] < 0):
        return DISTURBED
    rows = (shrunk, enlarged)
    strained = any(abs(row["nll_full_change"]) > abs(row["difference"]) for row in rows)
    return STRAINED if strained else SUPPORTED


def judge_all(interventions: pd.DataFrame) -> list[Judged]:
    """Judge every method, set of layers and pair of factors, in the table's order."""
    scaled = interventions[(interventions["condition"] == SCALE) & (interventions["n"] > 0)]
    judged = []
    for _, rows in scaled.groupby(["method", "layers"], sort=False):
        for low, high in PAIRS:
            shrunk = rows[(rows["set"] == "control") & (rows["factor"] == low)].iloc[0]
            enlarged = rows[(rows["set"] == "large") & (rows["factor"] == high)].iloc[0]
            judged.append(Judged(shrunk, enlarged, judge(shrunk, enlarged)))
    return judged


def beyond(row: pd.Series) -> tuple[float, float, float]:
    """Change of e with its interval, less the sham's where there is a sham."""
    names = ("beyond_sham", "beyond_sham_low", "beyond_sham_high")
    if np.isnan(row["beyond_sham"]):
        names = ("difference", "low", "high")
    value, low, high = (float(row[name]) for name in names)
    return value, low, high


def conclusion(interventions: pd.DataFrame) -> str:
    """Say in a few sentences what the milder scaling of the upper half, and swapping, support."""
    main, gaps = _main(interventions), _gaps(interventions)
    if reason := _not_judged(main):
        return reason
    words = [_last_word(main, gaps), _scaling_words(main), _cause_words(main), _swap_words(gaps)]
    return " ".join(words)


def intervention_answer(interventions: pd.DataFrame, folder: str) -> str:
    """Say for the summary whether a small norm makes inputs break.

    Args:
        interventions: rows of interventions.csv.
        folder: of the model's results, for the link.
    """
    main, gaps = _main(interventions), _gaps(interventions)
    reason = _not_judged(main)
    words = [reason or f"{_last_word(main, gaps)} {_cause_words(main)} {_swap_words(gaps)}"]
    return " ".join(
        [
            "*Does a small residual norm make inputs break?*",
            *words,
            f"More in [interventions.md]({folder}/interventions.md).",
        ]
    )


def _main(interventions: pd.DataFrame) -> list[Judged]:
    """Every method under the intervention that the conclusion is about."""
    return [
        each
        for each in judge_all(interventions)
        if each.shrunk["layers"] == MAIN_LAYERS and each.shrunk["factor"] == MAIN_PAIR[0]
    ]


def _not_judged(main: Sequence[Judged]) -> str:
    """Why nothing can be said, or ''."""
    if not main:
        return NO_STREAM
    return FEW_DOCUMENTS if any(each.verdict == TOO_FEW for each in main) else ""


def _gaps(interventions: pd.DataFrame) -> list[pd.Series]:
    """Rows of the gap between the sets when norms are swapped, one per method."""
    return [row for _, row in _rows(interventions, SWAP, GAP).iterrows()]


def _last_word(main: Sequence[Judged], gaps: Sequence[pd.Series]) -> str:
    """The verdict; every method counts."""
    verdicts = Counter(each.verdict for each in main)
    if verdicts[AGAINST] == len(main):
        return "The evidence speaks against a small norm as what makes inputs break."
    if _moved(main) < len(main):
        return "That a small norm makes inputs break is not shown."
    if _closed_by_norm(gaps) < len(main):
        return (
            "Norms can move errors, but it is not shown that the norms that documents have by "
            "nature are why they break."
        )
    if verdicts[STRAINED]:
        return (
            "Errors move as they would if a small norm made inputs break, though scaling changes "
            "the full-precision model by more than the errors."
        )
    return "The evidence agrees with a small norm as what makes inputs break."


def _moved(main: Sequence[Judged]) -> int:
    """Number of methods whose errors move as they would if the norm were the cause."""
    return sum(each.verdict in MOVES for each in main)


def _closed(gaps: Sequence[pd.Series]) -> int:
    """Number of methods whose gap closes with the whole interval."""
    return sum(beyond(row)[2] < 0 for row in gaps)


def _closed_by_norm(gaps: Sequence[pd.Series]) -> int:
    """Number of these whose gap closes less, or not, under the inverse swap."""
    return sum(beyond(row)[2] < 0 and row["against_inverse_high"] < 0 for row in gaps)


def _scaling_words(main: Sequence[Judged]) -> str:
    """By how much errors change when r is scaled."""
    (low, high), upper = MAIN_PAIR, MAIN_LAYERS
    shrunk, enlarged = (
        _range([beyond(row)[0] for row in rows])
        for rows in ([each.shrunk for each in main], [each.enlarged for each in main])
    )
    return (
        f"With norm(r) times {low:g} in the {upper} of the layers e of D_ctrl changes by {shrunk}, "
        f"with it times {high:g} e of D_large by {enlarged} nats per token."
    )


def _cause_words(main: Sequence[Judged]) -> str:
    """For how many methods errors move as they would if the norm were the cause."""
    strained = sum(each.verdict == STRAINED for each in main)
    return (
        f"When norm(r) is scaled, e rises and falls as it would if the norm were the cause for "
        f"{_moved(main)} of {len(main)} methods; for {strained} of these the full-precision "
        "model's NLL changes by more than e."
    )


def _swap_words(gaps: Sequence[pd.Series]) -> str:
    """How much of the gap closes when norms are swapped, and whether that is by the norm."""
    shares = [-100 * beyond(row)[0] / row["error_unedited"] for row in gaps]
    ends = "" if len(shares) == 1 else f"{min(shares):.1f} to "
    closed = (
        f"Norms swapped between documents of nearly the same full-precision NLL close {ends}"
        f"{max(shares):.1f} % of the gap in e between D_large and D_ctrl; the interval is above 0 "
        f"for {_closed(gaps)} of {len(gaps)} methods."
    )
    if not _closed(gaps):
        return closed
    return (
        f"{closed} For {_closed_by_norm(gaps)} of these the gap closes less, or not, when each "
        "norm moves as far the other way, as it would if the norm were the cause."
    )


def _range(values: Sequence[float]) -> str:
    """'+0.017 to +0.044', or the one value."""
    low, high = f"{min(values):+.3f}", f"{max(values):+.3f}"
    return low if low == high else f"{low} to {high}"


def intervention_markdown(interventions: pd.DataFrame, model: str, confidence: float) -> str:
    """Write interventions.md.

    Args:
        interventions: rows of interventions.csv.
    """
    head = HEAD.format(
        model=model, conclusion=conclusion(interventions), confidence=100 * confidence
    )
    parts = [head]
    judged = judge_all(interventions)
    if judged:
        parts += [SCALING, _scale_table(judged), _sham_words(interventions)]
    if not _rows(interventions, SWAP, GAP).empty:
        parts += [SWAPPING, _swap_table(interventions)]
    if not _rows(interventions, GAMMA, "large").empty:
        parts += [RAISING, _gamma_table(interventions)]
    dropped = interventions[interventions["n"] == 0]
    if not dropped.empty:
        lines = [f"- {row.condition}, {row.method}: {row.note}" for row in dropped.itertuples()]
        parts.append("## Left out\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _rows(interventions: pd.DataFrame, condition: str, name: str) -> pd.DataFrame:
    return interventions[(interventions["condition"] == condition) & (interventions["set"] == name)]


def _scale_table(judged: Sequence[Judged]) -> str:
    header = [
        "method",
        "layers",
        "norm(r) times",
        "e of D_ctrl, r shrunk",
        "NLL of the full model",
        "e of D_large, r enlarged",
        "NLL of the full model ",
        "verdict",
    ]
    rows = [
        [
            each.shrunk["method"],
            each.shrunk["layers"],
            f"{each.shrunk['factor']:g}, {each.enlarged['factor']:g}",
            number_with_interval(*beyond(each.shrunk)),
            number(each.shrunk["nll_full_change"]),
            number_with_interval(*beyond(each.enlarged)),
            number(each.enlarged["nll_full_change"]),
            each.verdict,
        ]
        for each in judged
    ]
    return table(header, rows)


def _sham_words(interventions: pd.DataFrame) -> str:
    """The largest change of a mean error by the sham."""
    sham = interventions[interventions["condition"].isin(SHAM_OF.values())]
    sham = sham[sham["n"] > 0]
    if sham.empty:
        return "There is no sham: this architecture has no norm between r and the MLP.\n"
    return f"The sham alone changes e by {sham['difference'].abs().max():.1g} at most.\n"


def _swap_table(interventions: pd.DataFrame) -> str:
    header = ["method", "norm(r)", "pairs", "gap", "e of D_large", "e of D_ctrl", "gap, changed by"]
    rows = []
    swaps = interventions[interventions["condition"].isin(SWAP_NAMES)]
    for (method, condition), mine in swaps.groupby(["method", "condition"], sort=False):
        at = mine.set_index("set")
        gap = at.loc[GAP]
        numbers = [number_with_interval(*beyond(at.loc[n])) for n in (*SETS, GAP)]
        share = f"{-100 * beyond(gap)[0] / gap['error_unedited']:.1f} %"
        against = gap[["against_inverse", "against_inverse_low", "against_inverse_high"]]
        rows.append(
            [
                method,
                SWAP_NAMES[condition],
                str(at.loc["large", "n"]),
                number(gap["error_unedited"]),
                *numbers,
                share,
                "" if against.isna().any() else number_with_interval(*against),
                at.loc["large", "note"],
            ]
        )
    return table([*header, "closed", "swap less inverse", "D_large"], rows)


def _gamma_table(interventions: pd.DataFrame) -> str:
    header = ["method", "layers"]
    header += ["e of D_large", "NLL of the full model", "e of D_ctrl", "NLL of the full model "]
    rows = []
    for (method, layers), mine in interventions[interventions["condition"] == GAMMA].groupby(
        ["method", "layers"], sort=False
    ):
        cells = [method, layers]
        for name in SETS:
            row = mine[mine["set"] == name].iloc[0]
            cells += [number_with_interval(*beyond(row)), number(row["nll_full_change"])]
        rows.append(cells)
    return table(header, rows)
