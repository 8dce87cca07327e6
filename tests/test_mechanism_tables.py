"""Tables, words and figures of interventions and mixed precision, from known answers."""

import matplotlib.text
import numpy as np
import pandas as pd
import pytest

from lowbit.analysis.mechanisms.intervention_report import (
    AGAINST,
    DISTURBED,
    NOT_SHOWN,
    PARTLY,
    STRAINED,
    SUPPORTED,
    conclusion,
    intervention_answer,
    intervention_markdown,
    judge,
)
from lowbit.analysis.mechanisms.interventions import COLUMNS, GAP, intervention_table
from lowbit.analysis.mechanisms.mixed_precision import (
    BASE,
    GREEDY,
    HIGHER,
    LAST,
    RANDOM,
    choose,
    extra_per_weight,
    fill,
    halves,
    rank,
    recovered_nll,
    require_budget,
)
from lowbit.analysis.mechanisms.mixed_precision_tables import (
    Plan,
    mixed_answer,
    mixed_markdown,
    mixed_table,
    ranking_table,
    verdict,
)
from lowbit.analysis.statistics import BootstrapSettings
from lowbit.errors import InputError
from lowbit.experiments.intervention_conditions import FACTORS, layer_sets
from lowbit.figures import interventions as intervention_figures
from lowbit.figures import mixed_precision as mixed_figures
from lowbit.figures import plotting
from lowbit.names import SETS
from lowbit.summary.optional_stages import ANSWERS, OPTIONAL_FIGURES

BOOTSTRAP = BootstrapSettings(resamples=100, confidence=0.95)
N = 20
DOC_IDS = np.array([f"d{number:02}" for number in range(N)])
LARGE, CONTROL = DOC_IDS[:8], DOC_IDS[-8:]


def changes(
    slope: float, damage: float = 0.0, closing: float = 0.0, inverse: float = 0.0
) -> pd.DataFrame:
    """Scores of a method whose error changes by `slope` times -log2 of the factor of norm(r).

    NLL of the full-precision model rises by `damage`, the sham changes nothing, and swapping norms
    closes a share `closing` of the gap in error, which is 1, the inverse swap a share `inverse`.
    """
    rng = np.random.default_rng(0)
    layers = list(layer_sets(6))
    conditions = [("scale", name, f) for name in layers for f in FACTORS]
    conditions += [("sham", "all", factor) for factor in FACTORS]
    closed = {"swap": closing, "swap_inverse": inverse}
    conditions += [(c, "upper half", np.nan) for c in (*closed, "swap_sham")]
    conditions += [("gamma", name, np.nan) for name in layers]
    parts = []
    for name, ids, error in (("large", LARGE, 2.0), ("control", CONTROL, 1.0)):
        full = rng.normal(4, 1, len(ids))
        partners = (CONTROL if name == "large" else LARGE)[: len(ids)]
        for condition, where, factor in conditions:
            noise = rng.normal(0, 0.01, len(ids))
            change = {"scale": -slope * np.log2(factor) + noise}.get(condition, 0)
            if condition in closed:
                change = closed[condition] / 2 * (-1 if name == "large" else 1) + noise
            edited = full + (damage if condition == "scale" else 0)
            parts.append(
                pd.DataFrame(
                    {
                        "method": "m",
                        "condition": condition,
                        "layers": where,
                        "factor": factor,
                        "norm_ratio": {"swap": 1.1, "swap_inverse": 0.9}.get(condition, factor),
                        "set": name,
                        "doc_id": ids,
                        "partner": partners,
                        "nll_full": full,
                        "nll": full + error,
                        "nll_full_edited": edited,
                        "nll_edited": edited + error + change,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def tabulated(scores: pd.DataFrame, left_out: dict | None = None) -> pd.DataFrame:
    return intervention_table(scores, left_out or {}, DOC_IDS, BOOTSTRAP, 0)


def test_the_table_holds_what_was_put_in() -> None:
    table = tabulated(changes(slope=0.1, damage=0.5, closing=0.4, inverse=0.1))
    assert list(table) == COLUMNS
    at = table.set_index(["condition", "layers", "factor", "set"]).sort_index()
    row = at.loc[("scale", "upper half", 0.5, "control")]
    assert row["n"] == 8
    assert row["error_unedited"] == pytest.approx(1.0)
    assert row["difference"] == pytest.approx(0.1, abs=0.01)
    assert row["low"] < 0.1 < row["high"]
    assert row["beyond_sham"] == pytest.approx(row["difference"])
    assert row["against_inverse"] == pytest.approx(0.2, abs=0.01)
    assert row["nll_full_change"] == pytest.approx(0.5)
    assert row["per_full_change"] == pytest.approx(row["difference"] / 0.5)
    gap = table[table["set"] == GAP].set_index("condition")
    assert list(gap.index) == ["swap", "swap_inverse"]
    np.testing.assert_allclose(gap["error_unedited"], 1)
    np.testing.assert_allclose(gap["difference"], [-0.4, -0.1], atol=0.02)
    against = gap.loc["swap", ["against_inverse_low", "against_inverse", "against_inverse_high"]]
    assert against["against_inverse"] == pytest.approx(-0.3, abs=0.02)
    assert against.is_monotonic_increasing
    assert against.nunique() == 3
    assert np.isnan(gap.loc["swap_inverse", "against_inverse"])
    large, control = (at.loc[("swap", "upper half"), :].droplevel(0).loc[n] for n in SETS)
    assert large["against_inverse"] == pytest.approx(-0.15, abs=0.02)
    assert control["against_inverse"] == pytest.approx(0.15, abs=0.02)
    assert "norm(r) times 1.100 on average" in large["note"]
    inverse = table[(table["condition"] == "swap_inverse") & (table["set"] == "large")]
    assert "norm(r) times 0.900 on average" in inverse["note"].item()
    sham = table[table["condition"] == "sham"]
    assert (sham["difference"].abs() < 1e-12).all()
    assert sham[["beyond_sham", "against_inverse", "per_full_change"]].isna().all(axis=None)


def test_partners_are_as_far_apart_as_their_nll() -> None:
    scores = changes(0)
    nll = scores.drop_duplicates("doc_id").set_index("doc_id")["nll_full"]
    apart = np.abs(nll[LARGE].to_numpy() - nll[CONTROL].to_numpy()).mean()
    note = tabulated(scores).query("condition == 'swap' and set == 'control'")["note"].item()
    assert f"NLL of partners {apart:.3f} nats apart" in note


@pytest.mark.parametrize(
    ("slope", "damage", "closing", "words"),
    [
        (0.1, 0.01, 0.4, "The evidence agrees with a small norm as what makes inputs break."),
        (0.1, 0.5, 0.4, "though scaling changes the full-precision model by more"),
        (0.1, 0.01, 0.0, "it is not shown that the norms that documents have by nature"),
        (0.0, 0.01, 0.4, "That a small norm makes inputs break is not shown."),
        (-0.1, 0.01, 0.0, "The evidence speaks against a small norm"),
    ],
)
def test_the_conclusion_is_no_stronger_than_the_evidence(
    slope: float, damage: float, closing: float, words: str
) -> None:
    table = tabulated(changes(slope, damage, closing))
    text = conclusion(table)
    assert words in text
    assert f"the interval is above 0 for {int(closing > 0)} of 1 methods" in text
    page = intervention_markdown(table, "tiny", 0.95)
    assert text in page
    assert "\n\n## Left out" not in page


@pytest.mark.parametrize(
    ("closing", "inverse", "by_norm"),
    [(0.4, -0.4, True), (0.4, 0.0, True), (0.4, 0.2, True), (0.4, 0.4, False), (0.2, 0.4, False),
     (0.0, -0.4, False)],
)  # fmt: skip
def test_a_gap_that_closes_under_the_inverse_swap_too_is_regression_to_the_mean(
    closing: float, inverse: float, by_norm: bool
) -> None:
    """Only where it closes, and closes less under the inverse, the norm is what did it."""
    table = tabulated(changes(0.1, 0.01, closing, inverse))
    text = conclusion(table)
    assert ("The evidence agrees with a small norm" in text) == by_norm
    assert ("it is not shown that the norms that documents have by nature" in text) != by_norm
    assert (f"For {int(by_norm)} of these the gap closes less, or not," in text) == (closing > 0)
    assert "for 1 of 1 methods; for 0 of these" in text  # scaling moves errors all the same
    rows = [
        line for line in intervention_markdown(table, "t", 0.95).splitlines()
        if line.startswith(("| m | swapped |", "| m | the inverse |"))
    ]  # fmt: skip
    assert len(rows) == 2
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    shares = [float(each[8].removesuffix(" %")) for each in cells]
    np.testing.assert_allclose(shares, [100 * closing, 100 * inverse], atol=2)
    against = float(cells[0][9].split(" ")[0])
    assert against == pytest.approx(inverse - closing, abs=0.02)
    assert cells[1][9] == ""


def test_one_method_that_does_not_move_is_enough_to_say_no_more() -> None:
    other = changes(0.0).assign(method="other")
    table = tabulated(pd.concat([changes(0.1, closing=0.4), other], ignore_index=True))
    assert conclusion(table).startswith("That a small norm makes inputs break is not shown.")
    assert "for 1 of 2 methods" in conclusion(table)


def row_of(sign: int, directed: bool = True, damage: float = 0.0) -> pd.Series:
    """A row whose change is above 0 (1), below (-1) or neither (0); directed: so is the inverse."""
    against = sign if directed else 0
    names = ("difference", "low", "high")
    values = dict(zip(names, (sign, sign - 0.5, sign + 0.5), strict=True))
    ends = {"difference": "", "low": "_low", "high": "_high"}
    values |= {f"beyond_sham{end}": values[name] for name, end in ends.items()}
    inverse = (against - 0.5, against + 0.5)
    values |= dict(zip(("against_inverse_low", "against_inverse_high"), inverse, strict=True))
    return pd.Series(values | {"nll_full_change": damage, "n": 5})


@pytest.mark.parametrize(
    ("shrunk", "enlarged", "expected"),
    [
        (row_of(1), row_of(-1), SUPPORTED),
        (row_of(1, damage=3), row_of(-1), STRAINED),
        (row_of(1), row_of(-1, damage=-3), STRAINED),
        (row_of(1, directed=False), row_of(-1), DISTURBED),
        (row_of(1), row_of(-1, directed=False), DISTURBED),
        (row_of(1), row_of(0), PARTLY),
        (row_of(1), row_of(1), PARTLY),
        (row_of(0), row_of(-1), PARTLY),
        (row_of(-1), row_of(1), AGAINST),
        (row_of(-1), row_of(0), NOT_SHOWN),
        (row_of(0), row_of(0), NOT_SHOWN),
    ],
)
def test_verdicts_follow_the_intervals(
    shrunk: pd.Series, enlarged: pd.Series, expected: str
) -> None:
    assert judge(shrunk, enlarged) == expected


def test_the_sham_counts_where_there_is_one() -> None:
    """The change is above 0, but no longer when the sham's is taken off."""
    shrunk = row_of(1)
    shrunk[["beyond_sham", "beyond_sham_low", "beyond_sham_high"]] = 0.1, -0.2, 0.3
    assert judge(shrunk, row_of(-1)) == PARTLY
    shrunk["beyond_sham"] = np.nan
    assert judge(shrunk, row_of(-1)) == SUPPORTED


def test_too_few_documents_are_not_judged() -> None:
    scores = changes(0.1, damage=0.01, closing=0.4)
    few = tabulated(scores[~scores["doc_id"].isin([*LARGE[4:], *CONTROL[4:]])])
    assert conclusion(few).startswith("Not judged: D_large or D_ctrl has fewer than 5 documents")
    assert "Not judged" in intervention_answer(few, "tiny")
    page = intervention_markdown(few, "tiny", 0.95)
    assert "| too few documents |" in page
    assert "nan" not in page
    ends = [name for name in few if name.endswith(("low", "high"))]
    assert few[[*ends, "per_full_change"]].isna().all(axis=None)
    assert few["difference"].notna().all()
    plotting.start()
    intervention_figures.scaled_norms(few).draw_without_rendering()


def test_what_is_left_out_has_a_row_and_a_line() -> None:
    scores = changes(0.1)
    scores = scores[~scores["condition"].isin(["scale", "swap", "swap_inverse", "swap_sham"])]
    table = tabulated(scores, {"m": {"scale": "no role residual_mid"}})
    assert table.iloc[-1]["note"] == "left out: no role residual_mid"
    assert conclusion(table).startswith("Not measured")
    assert "- scale, m: left out: no role residual_mid" in intervention_markdown(table, "t", 0.95)
    plotting.start()
    assert "cannot be changed" in texts(intervention_figures.scaled_norms(table))


def test_the_figure_has_a_panel_per_method_and_layers() -> None:
    plotting.start()
    other = changes(0.2, closing=0.4, inverse=-0.2).assign(method="o")
    both = pd.concat([changes(0.1), other], ignore_index=True)
    figure = intervention_figures.scaled_norms(tabulated(both))
    panels = np.array(figure.axes).reshape(3, 5)
    titles = [axes.get_title(loc="left") for axes in panels[0]]
    assert titles == [*layer_sets(6), "norms swapped"]
    large = next(x for x in panels[1, 3].lines if x.get_label() == "D_large, r scaled")
    assert list(large.get_xdata()) == [0.5, 0.71, 1.0, 1.41, 2.0]
    np.testing.assert_allclose(large.get_ydata()[[0, 2, 4]], [0.2, 0, -0.2], atol=0.01)
    assert "D_ctrl, sham" in texts(figure)
    assert "nats per token" in panels[2, 0].get_ylabel()
    large = next(x for x in panels[1, 4].lines if x.get_label() == "D_large, r scaled")
    assert list(large.get_xdata()) == [-1, 0, 1]
    np.testing.assert_allclose(large.get_ydata(), [0.1, 0, -0.2], atol=0.01)
    shown = [label.get_text() for label in panels[2, 4].get_xticklabels()]
    assert shown == ["inverse", "own", "partner's"]
    assert panels[1, 3].get_ylim() == panels[1, 0].get_ylim() != panels[1, 4].get_ylim()


def test_no_panel_of_the_figure_cuts_its_curves() -> None:
    """Layers of very different effects share an axis."""
    plotting.start()
    scores = changes(0.1, damage=0.5)
    far = (scores["layers"] == "upper half") & (scores["condition"] == "scale")
    scores.loc[far, "nll_edited"] += 3
    scores.loc[far, "nll_full_edited"] += 1
    figure = intervention_figures.scaled_norms(tabulated(scores))
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        drawn = np.concatenate([line.get_ydata() for line in axes.lines])
        assert low <= drawn.min() <= drawn.max() <= high


def texts(figure) -> str:
    """All text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def modules_table() -> pd.DataFrame:
    """2 blocks of 3 modules; the last of each is twice as large."""
    rows = [
        (f"{block}.{name}", block, name, weights, 3.0 * weights, 4.0 * weights)
        for block in range(2)
        for name, weights in (("q", 100), ("up", 100), ("down", 200))
    ]
    columns = ["module", "block", "projection", "weights", "base_bits", "higher_bits"]
    return pd.DataFrame(rows, columns=columns)


GAINS = {"0.q": 0.02, "0.up": -0.01, "0.down": 0.03, "1.q": 0.0, "1.up": 0.01, "1.down": 0.08}
"""NLL that each module gives back."""


def test_extra_bits_are_a_mean_over_all_weights() -> None:
    extra = extra_per_weight(modules_table())
    np.testing.assert_allclose(extra, [0.125, 0.125, 0.25, 0.125, 0.125, 0.25])
    assert extra.sum() == pytest.approx(1)


def test_a_budget_for_no_module_is_refused() -> None:
    require_budget(modules_table(), 0.125)
    with pytest.raises(InputError, match=r"extra_bits is 0\.1, .* write 0\.125 or more"):
        require_budget(modules_table(), 0.1)


def test_modules_are_ranked_by_gain_per_bit() -> None:
    modules = modules_table()
    recovered = np.tile(list(GAINS.values()), (5, 1))
    order = [modules["module"][place] for place in rank(recovered, modules)]
    assert order == ["1.down", "0.q", "0.down", "1.up", "1.q", "0.up"]


def test_the_budget_is_filled_and_never_exceeded() -> None:
    modules = modules_table()
    assert fill([5, 2, 0], modules, 0.375) == ["1.down", "0.q"]
    assert fill([5, 2, 0], modules, 0.374) == ["1.down"]
    assert fill([0, 1, 3, 4], modules, 0.5) == ["0.q", "0.up", "1.q", "1.up"]
    assert fill([0, 1], modules, 0.1) == []
    tenths = modules.assign(higher_bits=modules["base_bits"] + 0.1 * modules["weights"])
    assert len(fill(range(6), tenths, 0.1)) == 6  # sums of rounded numbers fit as well


def test_choices_keep_to_the_budget() -> None:
    modules = modules_table()
    chosen = choose(np.tile(list(GAINS.values()), (5, 1)), modules, 0.4, seed=0)
    assert chosen[GREEDY] == ["1.down", "0.q"]
    assert chosen[LAST] == ["1.down", "1.up"]
    randomly = [names for model, names in chosen.items() if model.startswith(f"{RANDOM} ")]
    assert len(randomly) == 10
    assert len({tuple(sorted(names)) for names in randomly}) > 3
    extra = dict(zip(modules["module"], extra_per_weight(modules), strict=True))
    assert all(sum(extra[name] for name in names) <= 0.4 for names in chosen.values())
    assert choose(np.tile(list(GAINS.values()), (5, 1)), modules, 0.4, seed=0) == chosen
    useless = choose(-np.ones((5, 6)), modules, 0.4, seed=0)
    assert useless[GREEDY] == []


def test_halves_share_no_document() -> None:
    ranking, held_out = halves(11, 3)
    assert (len(ranking), len(held_out)) == (5, 6)
    assert sorted([*ranking, *held_out]) == list(range(11))
    assert not np.array_equal(ranking, halves(11, 4)[0])


class Mixed:
    """Tables of a study in which restoring a module lowers NLL by its gain."""

    def __init__(self, gains: dict[str, float], base_error: float = 0.2, n: int = 2 * N) -> None:
        rng = np.random.default_rng(1)
        self.ids = np.array([f"d{number:02}" for number in range(n)])
        modules = modules_table()
        full = rng.normal(4, 1, n)
        base = full + base_error + rng.normal(0, 1e-3, n)
        large = np.arange(n) % 2 == 0
        columns = {"doc_id": self.ids, "method": "low", "nll_full": full, "nll": base}
        self.errors = pd.DataFrame({**columns, "error": base - full})
        self.sets = pd.DataFrame({"doc_id": self.ids[large], "method": "low", "set": "large"})
        ranking, held_out = halves(n, 0)
        self.restored = pd.concat(
            [
                pd.DataFrame(
                    {
                        "doc_id": self.ids[ranking],
                        "module": name,
                        "nll_base": base[ranking],
                        "nll": base[ranking] - gain + rng.normal(0, 1e-3, len(ranking)),
                    }
                )
                for name, gain in gains.items()
            ]
        )
        chosen = choose(recovered_nll(self.restored, modules), modules, 0.4, 0)
        record = {"base": "low", "higher": "full", "extra_bits": 0.4}
        self.plan = Plan.read(record | {"modules": modules.to_dict("records"), "chosen": chosen})
        nll = {BASE: base} | {
            model: base - sum(gains[name] for name in names)
            for model, names in chosen.items()
            if names
        }
        self.scores = pd.concat(
            [
                pd.DataFrame(
                    {
                        "model": model,
                        "doc_id": self.ids[held_out],
                        "nll_full": full[held_out],
                        "nll": values[held_out],
                        "kl": (values - full)[held_out],
                    }
                )
                for model, values in nll.items()
            ]
        )

    def ranking(self) -> pd.DataFrame:
        return ranking_table(self.restored, self.errors, self.plan, BOOTSTRAP, 0)

    def mixed(self) -> pd.DataFrame:
        return mixed_table(self.scores, self.errors, self.sets, self.plan, BOOTSTRAP, 0)


def test_the_ranking_says_what_each_module_gives_back() -> None:
    table = Mixed(GAINS).ranking()
    assert (table["projection"] + table["layer"].astype(str)).tolist()[:4] == [
        "down2", "q1", "down1", "up2"
    ]  # fmt: skip
    first = table.iloc[0]
    assert first["rank"] == 1
    assert first["low"] < first["recovered"] < first["high"]
    assert first["recovered"] == pytest.approx(0.08, abs=1e-3)
    assert first["per_extra_bit"] == pytest.approx(0.32, abs=4e-3)
    assert first["share"] == pytest.approx(0.4, abs=0.02)
    assert (first["bits_base"], first["bits_higher"], first["n"]) == (3, 4, N)
    assert table["chosen"].tolist() == [True, True, False, False, False, False]


def test_mixed_models_are_compared_on_the_same_documents() -> None:
    """Differences between models are the same for all documents, so their intervals are points."""
    study = Mixed(GAINS)
    table = study.mixed().set_index(["set", "model"])
    greedy = table.loc[("all", GREEDY)]
    randomly = [
        sum(GAINS[m] for m in names) for k, names in study.plan.chosen.items() if "random" in k
    ]
    expected = np.mean(randomly) - 0.10
    for end in ("", "_low", "_high"):
        assert greedy[f"minus_random{end}"] == pytest.approx(expected)
    assert greedy["n"] == N
    assert greedy["extra_bits"] == pytest.approx(0.375)
    assert greedy["bits_per_weight"] == pytest.approx(3.375)
    assert table.loc[("all", BASE), "minus_greedy"] == pytest.approx(0.10)
    assert table.loc[("all", HIGHER), ["error", "kl"]].tolist() == [0, 0]
    assert table.loc[("all", HIGHER), "bits_per_weight"] == pytest.approx(4)
    assert table.loc[("all", RANDOM), "extra_bits"] == pytest.approx(
        np.mean([study.plan.extra(f"{RANDOM} {k}") for k in range(1, 11)])
    )
    held_out = set(study.scores["doc_id"]) & set(study.sets["doc_id"])
    assert table.loc[("large", GREEDY), "n"] == len(held_out) >= 5


@pytest.mark.parametrize(
    ("greedy", "words"),
    [
        ((-0.02, -0.03, -0.01), "Measuring which modules to keep in higher precision pays."),
        ((-0.02, -0.05, 0.01), "That measuring is better than choosing at random is not shown."),
        ((0.02, 0.01, 0.03), "Modules chosen by measuring are worse than random ones."),
    ],
)
def test_the_verdict_follows_the_interval(greedy: tuple, words: str) -> None:
    table = Mixed(GAINS).mixed()
    chosen = (table["set"] == "all") & (table["model"] == GREEDY)
    table.loc[chosen, ["minus_random", "minus_random_low", "minus_random_high"]] = greedy
    text = verdict(table)
    assert text.startswith(words)
    assert "recover 50 % of the base's mean error" in text
    assert "of 10 random choices" in text


def test_measuring_does_not_pay_where_the_last_blocks_are_better() -> None:
    table = Mixed(GAINS).mixed()
    last = (table["set"] == "all") & (table["model"] == LAST)
    table.loc[last, ["minus_greedy", "minus_greedy_low", "minus_greedy_high"]] = -0.02, -0.03, -0.01
    assert verdict(table).startswith("The last blocks are better than modules chosen by measuring")


def test_nothing_worth_its_bits_is_said_so() -> None:
    study = Mixed(dict.fromkeys(GAINS, -0.01))
    table = study.mixed()
    assert verdict(table).endswith("nothing is mixed.")
    greedy = table[(table["model"] == GREEDY) & (table["set"] == "all")].iloc[0]
    assert greedy["extra_bits"] == 0
    assert greedy["nll"] == table.iloc[0]["nll"]


def test_too_few_of_the_worst_documents_are_not_shown() -> None:
    study = Mixed(GAINS)
    study.sets = study.sets.head(4)
    table = study.mixed()
    assert set(table["set"]) == {"all"}
    page = mixed_markdown("tiny", study.plan, study.ranking(), table, 0.95)
    assert "Fewer than 5 documents: not measured" in page


def test_page_and_figures_name_the_methods() -> None:
    study = Mixed(GAINS)
    ranking, mixed = study.ranking(), study.mixed()
    page = mixed_markdown("tiny", study.plan, ranking, mixed, 0.95)
    assert verdict(mixed) in page
    assert "low (base)" in page
    assert "full (higher)" in page
    assert "mean\nover 10 random orders" in page or "mean over 10 random orders" in page
    plotting.start()
    figure = mixed_figures.module_ranking(ranking, "low", "full")
    assert "down of layer 2" in texts(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["q", "up", "down"]
    dots = figure.axes[0].collections[-1].get_offsets()
    assert sorted(map(tuple, np.asarray(dots))) == [(0.5, 0.5), (1.5, 2.5)]
    figure = mixed_figures.mixed_models(mixed, "low", "full")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "low, 3.00 bits"
    assert labels[-1] == "full, 4.00 bits"
    assert len(figure.axes) == 2


def test_the_summary_gets_the_verdicts_and_links() -> None:
    answer = intervention_answer(tabulated(changes(0.1)), "tiny")
    assert answer.startswith("*Does a small residual norm make inputs break?* Norms can move")
    assert answer.endswith("[interventions.md](tiny/interventions.md).")
    scores = changes(0.1)
    gamma = tabulated(scores[scores["condition"] == "gamma"])
    assert "Not measured: this architecture" in intervention_answer(gamma, "tiny")
    answer = mixed_answer(Mixed(GAINS).mixed(), "tiny")
    assert "Measuring which modules to keep in higher precision pays." in answer
    assert answer.endswith("[mixed_precision.md](tiny/mixed_precision.md).")
    assert {"interventions", "mixed_precision"} <= set(ANSWERS)
    assert set(OPTIONAL_FIGURES) <= set(ANSWERS)
