"""What perturbations say, in words that are never stronger than the intervals."""

from collections.abc import Sequence

import pandas as pd

from lowbit.analysis.perturbation.sensitivity import by_kind
from lowbit.analysis.tables import matching
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    ALL,
    BOTH,
    CLIP,
    MATCHED,
    NOISE,
    SHUFFLED,
    WEIGHTS,
    plain_noise,
)
from lowbit.experiments.simulation_settings import NONE
from lowbit.markdown import number, number_with_interval, table

HEAD = """\
# The lens of perturbation: {model}

Noise and clipping in place of quantization (arXiv 2403.06408). Noise on a weight matrix has the L2
norm of the error of `{reference}` there, noise on what projections read that of uniform
quantization of {bits} bits with one scale per token, times the intensity. Errors are NLL perturbed
less NLL full precision, in nats per token, means over {n} documents and over the seeds; brackets:
bootstrap intervals over documents and seeds, not corrected for the number of comparisons. The
paper's tables and formulas could not be recovered: what M+, M-, thresholds and granularity are here
is this project's choice (`results/README.md`). Every row: `perturbation.csv`.
"""
KIND_HEAD = """\
## What kind of noise, at the norm of the quantization error

*Beyond Gaussian*: the error less that of Gaussian noise independent of |x|, of the same norm.
"""
CLIPPING_HEAD = """\
## Clipping and its controls

Clipping may hurt because it hits the largest values or because its error is large. *Beyond matched
noise*: the error less that of Gaussian noise on all entries, which has the same norm on weights; on
activations that of clipping what the noisy model itself reads (compare the sizes). Where few
entries are clipped, shuffling their amounts is hardly another change.
"""
INTERACTION_HEAD = """\
## Weights and activations together

*Interaction*: the error of both together less the sum of each alone.
"""
SENSITIVITY_HEAD = """\
## Which projections are sensitive

Sums of the errors of single matrices, each perturbed alone by noise with the norm of its own
quantization error; at equal norm: that sum over the sum of squared norms. Every matrix:
`sensitivity.csv`.
"""
AGREEMENT_HEAD = """\
## Does noise hurt the documents that quantizers hurt?

Pearson's r over documents of e(x) under Gaussian noise of the norm of the quantization error with
e(x) under each method. Every perturbation: `perturbation_agreement.csv`.
"""


def perturbation_markdown(
    effects: pd.DataFrame,
    interaction: pd.DataFrame,
    sensitivity: pd.DataFrame,
    agreement: pd.DataFrame,
    model: str,
    reference: str,
    bits: int,
) -> str:
    """Render the page of one model from the rows of its tables."""
    everywhere = effects[(effects["projection"] == ALL) & (effects["block"] == -1)]
    parts = [
        HEAD.format(model=model, reference=reference, bits=bits, n=effects["n"].iloc[0]),
        f"{_kinds_answer(effects)}\n",
        KIND_HEAD + "\n" + _kind_table(everywhere),
        CLIPPING_HEAD + "\n" + _clipping_table(everywhere),
        INTERACTION_HEAD + "\n" + _interaction_table(interaction),
        AGREEMENT_HEAD + "\n" + _agreement_table(agreement),
    ]
    if len(sensitivity):
        parts.append(SENSITIVITY_HEAD + "\n" + _sensitivity_table(sensitivity))
    return "\n".join(parts)


def perturbation_answer(effects: pd.DataFrame, folder: str) -> str:
    """Say for the summary what kind of perturbation hurts.

    Args:
        effects: rows of perturbation.csv.
        folder: of the model's results, for the link.
    """
    return (
        f"*What kind of perturbation hurts?* {_kinds_answer(effects)} "
        f"More in [perturbation.md]({folder}/perturbation.md)."
    )


def agreement_answer(agreement: pd.DataFrame, folder: str) -> str:
    """Say for the summary whether noise hurts the documents that quantizers hurt.

    Args:
        agreement: rows of perturbation_agreement.csv.
    """
    rows = _plain_noise(agreement, WEIGHTS)
    sure = int((rows["low"] > 0).sum())
    least, most = rows.loc[rows["r"].idxmin()], rows.loc[rows["r"].idxmax()]
    return (
        "*Does noise hurt the documents that quantizers hurt?* "
        f"{_strength(sure, len(rows))}: under Gaussian noise on the weights, of the norm of the "
        "quantization error, a document's error correlates with its error under "
        f"{sure} of {len(rows)} methods (interval above 0); r is {_r(least)} to {_r(most)}."
    )


def sensitivity_answer(sensitivity: pd.DataFrame, folder: str) -> str:
    """Say for the summary which projections are sensitive.

    Args:
        sensitivity: rows of sensitivity.csv.
    """
    kinds = by_kind(sensitivity).query("over == 'projection'")
    quantized = kinds.loc[kinds["error"].idxmax()]
    equal = kinds.loc[kinds["error_per_squared_norm"].idxmax()]
    share = quantized["error"] / kinds["error"].sum()
    sure = int((sensitivity["low"] > 0).sum())
    return (
        "*Which weights are sensitive?* Noise with the norm of the quantization error does most "
        f"in `{quantized['name']}` ({100 * share:.0f} % of the sum over single matrices), noise of "
        f"equal norm in `{equal['name']}`; {sure} of {len(sensitivity)} matrices alone raise the "
        "NLL (interval above 0)."
    )


def transforms_answer(best: pd.DataFrame, folder: str) -> str:
    """Say for the summary whether non-uniform grids are better.

    Args:
        best: rows of best_transforms.csv.
    """
    alone = best[best["activations_per"] == NONE]
    both = best[best["activations_per"] != NONE]
    parts = [
        f"{_best(rows)} {what}"
        for rows, what in ((alone, "for weights alone"), (both, "for weights and activations"))
        if len(rows)
    ]
    misled = int((best["best"] != best["best_by_sqnr"]).sum())
    return (
        "*Is a non-uniform grid better?* The best one is better than the best uniform grid (whole "
        "interval, on the documents that it is the best of) in "
        f"{', '.join(parts)}. The transform with the highest SQNR is not the one with the least "
        f"error in {misled} of {len(best)}. All: `{folder}/simulations.csv`."
    )


def _best(rows: pd.DataFrame) -> str:
    better = rows[rows["surely"]]
    if better.empty:
        return f"0 of {len(rows)} combinations of bits and granularity"
    winner = better["best"].mode().iloc[0]
    return (
        f"{len(better)} of {len(rows)} combinations of bits and granularity (most often `{winner}`)"
    )


def _strength(sure: int, count: int) -> str:
    return "Yes" if sure == count else "Partly" if sure else "Not shown"


def _r(row: pd.Series) -> str:
    return f"{number_with_interval(row['r'], row['low'], row['high'])} ({row['method']})"


def _plain_noise(rows: pd.DataFrame, target: str, **changes: object) -> pd.DataFrame:
    """Rows of one kind of noise, see `plain_noise`."""
    return rows[matching(rows, plain_noise(target, **changes))]


def _kinds_answer(effects: pd.DataFrame) -> str:
    """Weights against activations, magnitude, and clipping, in a few sentences."""
    weights, activations = (_plain_noise(effects, t).iloc[0] for t in (WEIGHTS, ACTIVATIONS))
    sentences = [
        "Noise of the norm of the quantization error raises the NLL by "
        f"{_error(weights)} nats per token on weights (it has {_size(weights)} of their norm) "
        f"and by {_error(activations)} on activations ({_size(activations)})."
    ]
    for target in (WEIGHTS, ACTIVATIONS):
        minus, plus = (
            _plain_noise(effects, target, relation=relation).iloc[0] for relation in ("M-", "M+")
        )
        sentences.append(f"On {target}, {_related(plus, minus)}.")
    sentences += [_clipping_answer(effects, target) for target in (WEIGHTS, ACTIVATIONS)]
    return " ".join(sentences)


def _related(plus: pd.Series, minus: pd.Series) -> str:
    """Compare M+ and M- with noise that is independent of |x|."""
    words = []
    for row in (plus, minus):
        low, high = row["beyond_baseline_low"], row["beyond_baseline_high"]
        words.append("less" if high < 0 else "more" if low > 0 else "about as much")
    return (
        "beside noise that is independent of |x|, noise that grows with it (M+) hurts "
        f"{words[0]}, noise that shrinks with it (M-) {words[1]}"
    )


def _clipping_answer(effects: pd.DataFrame, target: str) -> str:
    """Compare clipping of the smallest share with noise of its norm."""
    clipped = effects[(effects["target"] == target) & (effects["change"] == CLIP)]
    row = clipped.loc[clipped["quantile"].idxmax()]
    share = 100 * (1 - row["quantile"])
    low, high = row["beyond_baseline_low"], row["beyond_baseline_high"]
    word = "more than" if low > 0 else "less than" if high < 0 else "about as much as"
    return (
        f"Clipping {share:.3g} % of the {target} costs {_error(row)}, {word} noise matched to it."
    )


def _size(row: pd.Series) -> str:
    return f"{100 * row['size']:.2g} %"


def _error(row: pd.Series) -> str:
    return number_with_interval(row["error"], row["low"], row["high"])


def _beyond(row: pd.Series) -> str:
    return number_with_interval(*(row[f"beyond_baseline{end}"] for end in ("", "_low", "_high")))


def _kind_table(rows: pd.DataFrame) -> str:
    rows = rows[(rows["change"] == NOISE) & (rows["intensity"] == 1)]
    header = [
        "on",
        "distribution",
        "relation to magnitude",
        "norm per",
        "size",
        "error",
        "beyond Gaussian",
        "seeds",
    ]
    return table(
        header,
        [
            [
                row["target"],
                row["distribution"],
                row["relation"],
                row["per"],
                f"{row['size']:.3f}",
                _error(row),
                _beyond(row),
                f"{number(row['lowest'])} to {number(row['highest'])}",
            ]
            for _, row in rows.iterrows()
        ],
    )


def _clipping_table(rows: pd.DataFrame) -> str:
    rows = rows[rows["change"].isin([CLIP, SHUFFLED, MATCHED])]
    header = ["on", "above the threshold", "change", "size", "error", "beyond matched noise"]
    return table(
        header,
        [
            [
                row["target"],
                f"{100 * (1 - row['quantile']):.3g} %",
                row["change"],
                f"{row['size']:.3f}",
                _error(row),
                _beyond(row),
            ]
            for _, row in rows.iterrows()
        ],
    )


def _interaction_table(rows: pd.DataFrame) -> str:
    header = [
        "distribution",
        "intensity",
        "weights",
        "activations",
        "together",
        "interaction",
        "of the sum",
    ]
    return table(
        header,
        [
            [
                row["distribution"],
                f"{row['intensity']:g}",
                *(number(row[name]) for name in (WEIGHTS, ACTIVATIONS, "together")),
                number_with_interval(row["interaction"], row["low"], row["high"]),
                f"{100 * row['share']:.1f} %",
            ]
            for _, row in rows.iterrows()
        ],
    )


def _sensitivity_table(rows: pd.DataFrame) -> str:
    header = ["projection or block", "sum of errors", "per squared norm"]
    return table(
        header,
        [
            [
                f"block {int(row['name']) + 1}" if row["over"] == "block" else str(row["name"]),
                number(row["error"]),
                f"{row['error_per_squared_norm']:.2g}",
            ]
            for _, row in by_kind(rows).iterrows()
        ],
    )


def _agreement_table(rows: pd.DataFrame) -> str:
    targets: Sequence[str] = (WEIGHTS, ACTIVATIONS, BOTH)
    methods = rows["method"].unique()
    return table(
        ["noise on", *methods],
        [
            [
                target,
                *(
                    number_with_interval(*row)
                    for row in _plain_noise(rows, target)
                    .set_index("method")
                    .reindex(methods)[["r", "low", "high"]]
                    .itertuples(index=False)
                ),
            ]
            for target in targets
        ],
    )
