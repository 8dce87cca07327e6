"""Tables of the modules' ranking and of the mixed models, and what they say in words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lowbit.analysis.mechanisms.mixed_precision import (
    BASE,
    GREEDY,
    HIGHER,
    LAST,
    RANDOM,
    extra_per_weight,
    rank,
    recovered_nll,
)
from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.analysis.tables import document_ids, membership
from lowbit.markdown import number_with_interval, table
from lowbit.names import LARGE

ALL = "all"
"""Documents of the held-out half: all, and those in the base's D_large."""
SHOWN_MODULES = 10

MEASURES = ("nll", "kl", "error")
RANKING_COLUMNS = [
    "rank",
    "layer",
    "place",
    "projection",
    "weights",
    "bits_base",
    "bits_higher",
    "extra_bits",
    "recovered",
    "low",
    "high",
    "share",
    "per_extra_bit",
    "chosen",
    "n",
]


class Plan(NamedTuple):
    """What was mixed, as mixed_precision.py wrote it."""

    base: str
    higher: str
    extra_bits: float
    modules: pd.DataFrame
    chosen: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Plan":
        """Read the JSON's content."""
        return cls(**{**record, "modules": pd.DataFrame(record["modules"])})

    def extra(self, model: str) -> float:
        """Bits per weight, mean over all quantized weights, that a model takes more."""
        if model == BASE:
            return 0.0
        extra = extra_per_weight(self.modules)
        if model != HIGHER:
            extra = extra[self.modules["module"].isin(self.chosen[model])]
        return float(extra.sum())

    def base_bits(self) -> float:
        """Stored bits per weight of the base."""
        return float(self.modules["base_bits"].sum() / self.modules["weights"].sum())


def ranking_table(
    restored: pd.DataFrame,
    errors: pd.DataFrame,
    plan: Plan,
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per module, best first (`RANKING_COLUMNS`).

    Args:
        restored: doc_id, module, nll_base, nll on the half that ranks.
        errors: errors.parquet, for the base's mean error there.
    """
    modules, ids = plan.modules, document_ids(errors)
    member = np.isin(ids, restored["doc_id"])
    recovered = recovered_nll(restored, modules)
    values = np.full((len(ids), len(modules)), np.nan)
    values[member] = _in_order(recovered, document_ids(restored), ids[member])
    draws = mean_draws(values, member, resample_counts(len(ids), settings, seed))
    value, low, high = summarise(draws, settings.confidence)
    of_base = errors[(errors["method"] == plan.base) & errors["doc_id"].isin(ids[member])]
    extra = extra_per_weight(modules)
    found = pd.DataFrame(
        {
            "layer": modules["block"] + 1,
            "place": modules.groupby("block").cumcount() + 1,
            "projection": modules["projection"],
            "weights": modules["weights"],
            "bits_base": modules["base_bits"] / modules["weights"],
            "bits_higher": modules["higher_bits"] / modules["weights"],
            "extra_bits": extra,
            "recovered": value,
            "low": low,
            "high": high,
            "share": value / of_base["error"].mean(),
            "per_extra_bit": value / extra,
            "chosen": modules["module"].isin(plan.chosen[GREEDY]),
            "n": int(member.sum()),
        }
    ).iloc[rank(recovered, modules)]
    return found.assign(rank=np.arange(1, len(found) + 1))[RANKING_COLUMNS]


def mixed_table(
    scores: pd.DataFrame,
    errors: pd.DataFrame,
    sets: pd.DataFrame,
    plan: Plan,
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per model and set of held-out documents; a set of too few has no rows.

    `minus_random` and `minus_greedy`: NLL less that of the random choices' mean, and of the choice
    by the ranking, on the same documents.

    Args:
        scores: model, doc_id, nll_full, nll, kl of the held-out half.
        errors: errors.parquet, for all documents of the study.
        sets: sets.parquet; the base's D_large counts.
    """
    ids = document_ids(errors)
    models, values = _model_values(scores, ids, plan)
    held_out = np.isin(ids, scores["doc_id"])
    members = {ALL: held_out, LARGE: held_out & membership(sets, plan.base, LARGE, ids)}
    counts = resample_counts(len(ids), settings, seed)
    parts = []
    for name, member in members.items():
        if member.sum() >= MINIMUM_DOCUMENTS:
            means = {key: mean_draws(each, member, counts) for key, each in values.items()}
            rows = _model_rows(means, models, settings.confidence)
            parts.append(rows.assign(set=name, n=int(member.sum())))
    found = pd.concat(parts, ignore_index=True)
    choices = [name for name in models if name.startswith(f"{RANDOM} ")]
    extra = {m: plan.extra(m) for m in models if m != RANDOM}
    extra[RANDOM] = float(np.mean([extra[name] for name in choices]))
    found["extra_bits"] = found["model"].map(extra)
    found["bits_per_weight"] = plan.base_bits() + found["extra_bits"]
    first = ["model", "set", "n", "bits_per_weight", "extra_bits"]
    return found[first + [column for column in found if column not in first]]


def _in_order(values: np.ndarray, found: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Rows of `values`, one per document of `found`, in the order of `wanted`."""
    return pd.DataFrame(values, index=list(found)).loc[list(wanted)].to_numpy()


def _model_values(
    scores: pd.DataFrame, ids: np.ndarray, plan: Plan
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Models in the order shown, and their nll, kl and error [documents, models]."""
    if HIGHER not in set(scores["model"]):  # the unquantized model, whose NLL is there anyway
        of_base = scores[scores["model"] == BASE]
        full = of_base.assign(model=HIGHER, nll=of_base["nll_full"], kl=0.0)
        scores = pd.concat([scores, full], ignore_index=True)
    if GREEDY not in set(scores["model"]):  # no module was worth it
        unmixed = scores[scores["model"] == BASE].assign(model=GREEDY)
        scores = pd.concat([scores, unmixed], ignore_index=True)
    scores = scores.assign(error=scores["nll"] - scores["nll_full"])
    choices = [name for name in plan.chosen if name in set(scores["model"]) - {GREEDY, LAST}]
    names = [
        name for name in (BASE, *choices, LAST, GREEDY, HIGHER) if name in set(scores["model"])
    ]
    values = {}
    for measure in MEASURES:
        wide = scores.pivot(index="doc_id", columns="model", values=measure).reindex(ids)
        wide[RANDOM] = wide[choices].mean(axis=1)
        values[measure] = wide[[names[0], RANDOM, *names[1:]]].to_numpy(float)
    return [names[0], RANDOM, *names[1:]], values


def _model_rows(
    means: dict[str, np.ndarray], models: Sequence[str], confidence: float
) -> pd.DataFrame:
    """One row per model from draws [1 + R, models] of each measure."""
    columns: dict[str, Any] = {"model": models}
    against = {f"minus_{name}": models.index(name) for name in (RANDOM, GREEDY)}
    draws = means | {name: means["nll"] - means["nll"][:, [at]] for name, at in against.items()}
    for measure, each in draws.items():
        numbers = summarise(each, confidence)
        columns |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), numbers, strict=True))
    return pd.DataFrame(columns)


def verdict(mixed: pd.DataFrame) -> str:
    """Say whether choosing by measured gain pays, no more strongly than the intervals."""
    rows = mixed[mixed["set"] == ALL].set_index("model")
    if not rows.loc[GREEDY, "extra_bits"]:
        return _recovered(rows)
    choices = rows[rows.index.str.startswith(f"{RANDOM} ")]
    worse = int((choices["minus_greedy"] > 0).sum())
    return (
        f"{_recovered(rows)} NLL of the chosen less that of random ones: "
        f"{_interval(rows.loc[GREEDY], 'minus_random')} nats per token (lower than {worse} of "
        f"{len(choices)} random choices); NLL of the last blocks less that of the chosen: "
        f"{_interval(rows.loc[LAST], 'minus_greedy')}."
    )


def mixed_answer(mixed: pd.DataFrame, folder: str) -> str:
    """Say for the summary what choosing modules by measuring is worth.

    Args:
        mixed: rows of mixed_precision.csv.
        folder: of the model's results, for the link.
    """
    return (
        "*Does it pay to measure what to keep in higher precision?* "
        f"{_recovered(mixed[mixed['set'] == ALL].set_index('model'))} "
        f"More in [mixed_precision.md]({folder}/mixed_precision.md)."
    )


def _recovered(rows: pd.DataFrame) -> str:
    """The verdict, and what each choice recovers of the base's mean error."""
    base, greedy = rows.loc[BASE], rows.loc[GREEDY]
    if greedy["extra_bits"] == 0:
        return "No module that fits the budget makes the ranking half better: nothing is mixed."
    share = {
        name: f"{100 * (1 - rows.loc[name, 'error'] / base['error']):.0f} %"
        for name in (GREEDY, RANDOM, LAST)
    }
    return (
        f"{_compared(greedy, rows.loc[LAST])} With {greedy['extra_bits']:.2f} more bits per "
        f"weight, the modules chosen by measuring recover {share[GREEDY]} of the base's mean error "
        f"on documents that took no part in choosing, random modules {share[RANDOM]}, modules of "
        f"the last blocks {share[LAST]}."
    )


def _compared(greedy: pd.Series, last: pd.Series) -> str:
    """Choose words by the intervals of the differences to random choices and to the last blocks."""
    if last["minus_greedy_high"] < 0:
        return "The last blocks are better than modules chosen by measuring."
    if greedy["minus_random_high"] < 0:
        return "Measuring which modules to keep in higher precision pays."
    if greedy["minus_random_low"] > 0:
        return "Modules chosen by measuring are worse than random ones."
    return "That measuring is better than choosing at random is not shown."


def _interval(row: pd.Series, name: str) -> str:
    return number_with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


HEAD = """\
# What to keep in higher precision: {model}

{verdict}

Each module of {base} (one projection of one block) is alone given the weights of {higher}, on a
random half of the documents, and ranked by the NLL recovered per extra bit. Mixed models may spend
{extra:g} more bits per weight (mean over all quantized weights, scales counted) and are scored on
the other half. *greedy*: modules in the order of the ranking while they fit. *last blocks*: modules
from the end of the model while they fit. *random*: mean over {choices} random orders. Brackets:
{confidence:g} % bootstrap intervals over documents; differences are on the same documents. D_large:
of {base}, in the held-out half; its documents were chosen for their errors under {base}, so any
change lowers these: compare with random, not with {base}.
"""


def mixed_markdown(
    model: str, plan: Plan, ranking: pd.DataFrame, mixed: pd.DataFrame, confidence: float
) -> str:
    """Write mixed_precision.md from the two tables."""
    parts = [
        HEAD.format(
            model=model,
            verdict=verdict(mixed),
            base=plan.base,
            higher=plan.higher,
            extra=plan.extra_bits,
            choices=mixed["model"].str.startswith(f"{RANDOM} ").sum() // mixed["set"].nunique(),
            confidence=100 * confidence,
        )
    ]
    names = {BASE: f"{plan.base} (base)", HIGHER: f"{plan.higher} (higher)"}
    for name, title in ((ALL, "All held-out documents"), (LARGE, "D_large, held-out half")):
        rows = mixed[(mixed["set"] == name) & ~mixed["model"].str.startswith(f"{RANDOM} ")]
        if rows.empty:
            parts.append(f"## {title}\n\nFewer than {MINIMUM_DOCUMENTS} documents: not measured.\n")
            continue
        header = ["model", "bits per weight", "NLL", "KL", "mean e", "NLL less random's"]
        cells = [
            [
                names.get(row["model"], row["model"]),
                f"{row['bits_per_weight']:.2f}",
                *(_interval(row, measure) for measure in MEASURES),
                "" if row["model"] == RANDOM else _interval(row, f"minus_{RANDOM}"),
            ]
            for _, row in rows.iterrows()
        ]
        parts.append(f"## {title} (n = {rows['n'].iloc[0]})\n\n{table(header, cells)}")
    return "\n".join([*parts, _modules(ranking)])


def _modules(ranking: pd.DataFrame) -> str:
    """The best modules."""
    header = ["rank", "layer", "projection", "extra bits per weight", "NLL recovered"]
    rows = [
        [
            str(row["rank"]),
            str(row["layer"]),
            row["projection"],
            f"{row['extra_bits']:.3f}",
            number_with_interval(row["recovered"], row["low"], row["high"]),
            f"{100 * row['share']:.1f} %",
            "yes" if row["chosen"] else "",
        ]
        for _, row in ranking.head(SHOWN_MODULES).iterrows()
    ]
    shown = table([*header, "of the base's mean error", "in the greedy model"], rows)
    return (
        f"## The {len(rows)} modules worth most per extra bit (n = {ranking['n'].iloc[0]})\n\n"
        f"{shown}\nAll modules: `module_ranking.csv`.\n"
    )
