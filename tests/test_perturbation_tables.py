"""Tables, words and figures of perturbations and simulated quantization, from scores made up."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_script import run_script
from synthetic_perturbation import (
    BOOTSTRAP as CLAIMS_BOOTSTRAP,
)
from synthetic_perturbation import (
    PLAN,
    documents,
    model_results,
    perturbation_scores,
    simulation_scores,
    spread,
)

from lowbit.analysis.perturbation.agreement import agreement_table
from lowbit.analysis.perturbation.effects import effect_table, of_all, perturbed_errors
from lowbit.analysis.perturbation.interaction import interaction_table
from lowbit.analysis.perturbation.report import (
    agreement_answer,
    perturbation_answer,
    perturbation_markdown,
    sensitivity_answer,
    transforms_answer,
)
from lowbit.analysis.perturbation.sensitivity import by_kind, sensitivity_table
from lowbit.analysis.perturbation.sets import set_table
from lowbit.analysis.perturbation.simulations import best_transforms, simulation_table
from lowbit.analysis.statistics import BootstrapSettings
from lowbit.claims.statistics import STATISTICS
from lowbit.errors import InputError
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    ALL,
    BOTH,
    CLIP,
    MATCHED,
    NOISE,
    SHUFFLED,
    WEIGHTS,
    Perturbation,
    list_perturbations,
    list_sensitivities,
)
from lowbit.experiments.simulation_settings import Simulation, list_simulations

DOCUMENTS = documents()
WIDTH = 0.5
FRAGILITY = spread(DOCUMENTS, WIDTH)
"""What a document suffers of any perturbation."""
BLOCKS = [["q_proj", "up_proj"]] * 2
BOOTSTRAP = BootstrapSettings(resamples=200, confidence=0.95)
METHODS = ["rtn3", "nf3"]
ON = {WEIGHTS: 0.1, ACTIVATIONS: 0.01, BOTH: 0.12}
"""Error at intensity 1; together they cost .01 more than the sum."""
RELATED = {"independent": 1.0, "M+": 0.5, "M-": 2.0, "inverse": 1.0}
CHANGED = {CLIP: 3.0, SHUFFLED: 1.0, MATCHED: 1.0}


def conditions() -> list[Perturbation]:
    return list_perturbations(PLAN) + list_sensitivities(BLOCKS, PLAN)


def meant(condition: Perturbation) -> float:
    """The mean error that a condition is made to have."""
    if condition.change != NOISE:
        return ON[condition.target] * CHANGED[condition.change] * 100 * (1 - condition.quantile)
    if condition.projection != ALL:
        return 0.02 if condition.projection == "up_proj" else 0.005
    return ON[condition.target] * RELATED[condition.relation] * condition.intensity**2


def made_scores() -> pd.DataFrame:
    """Errors in proportion to the documents' fragility; seeds differ by a tenth."""
    return perturbation_scores(
        lambda kind: meant(kind) / FRAGILITY.mean(), width=WIDTH, blocks=BLOCKS, apart=0.1
    )


def made_norms() -> pd.DataFrame:
    """Norms 3 and 4 of x in two modules, a tenth of it perturbed; of single ones, 2."""
    rows = []
    for each in conditions():
        target = WEIGHTS if each.target == BOTH else each.target
        modules = {"0.a": 3.0, "1.b": 4.0} if each.projection == ALL else {"0.a": 20.0}
        rows += [
            asdict(each)
            | {"target_of_norm": target, "module": name, "perturbation": norm / 10, "norm": norm}
            for name, norm in modules.items()
        ]
    return pd.DataFrame(rows)


def made_errors() -> pd.DataFrame:
    """One method breaks fragile documents, the other one others; and documents nobody perturbed."""
    more = [*DOCUMENTS, "other"]
    fragile = pd.DataFrame({"doc_id": more, "method": "rtn3", "error": [*FRAGILITY, 9.0]})
    other = pd.DataFrame(
        {"doc_id": more, "method": "nf3", "error": np.random.default_rng(0).normal(size=41)}
    )
    return pd.concat([fragile, other], ignore_index=True)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    perturbed = perturbed_errors(made_scores())
    effects = effect_table(perturbed, made_norms(), BOOTSTRAP, 0)
    everywhere = of_all(perturbed)
    return {
        "effects": effects,
        "interaction": interaction_table(everywhere, BOOTSTRAP, 0),
        "sensitivity": sensitivity_table(effects, made_norms()),
        "agreement": agreement_table(everywhere, made_errors(), METHODS, BOOTSTRAP, 0),
    }


def rows_of(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    chosen = pd.Series(True, table.index)
    for column, value in wanted.items():
        chosen &= table[column] == value
    return table[chosen]


def test_effects_are_means_over_documents_and_seeds(tables: dict) -> None:
    effects = tables["effects"]
    assert len(effects) == len({str(c).rpartition(", ")[0] for c in conditions()})
    for each in conditions():
        wanted = {name: value for name, value in asdict(each).items() if name != "seed"}
        wanted = {name: value for name, value in wanted.items() if value == value}
        row = rows_of(effects, **wanted)
        row = row[row["quantile"].isna()] if each.change == NOISE else row
        (row,) = row.to_dict("records")
        assert row["error"] == pytest.approx(meant(each))
        assert row["low"] < row["error"] < row["high"]
        if each.change == NOISE:
            assert row["seeds"] == 3
            assert row["lowest"] == pytest.approx(0.9 * meant(each))
            assert row["highest"] == pytest.approx(1.1 * meant(each))
        assert row["size"] == pytest.approx(0.1)


def test_each_is_compared_with_the_baseline_of_its_norm(tables: dict) -> None:
    everywhere = rows_of(tables["effects"], block=-1, per="tensor")
    plus = rows_of(everywhere, target=WEIGHTS, relation="M+", intensity=10.0).iloc[0]
    assert plus["beyond_baseline"] == pytest.approx(-0.5 * 0.1 * 100)
    assert plus["beyond_baseline_high"] < 0
    clip = rows_of(everywhere, target=ACTIVATIONS, change=CLIP, quantile=0.99).iloc[0]
    assert clip["beyond_baseline"] == pytest.approx(2 * 0.01)
    baselines = rows_of(everywhere, change=NOISE, distribution="gaussian", relation="independent")
    assert baselines["beyond_baseline"].isna().all()


def test_interaction_is_together_less_the_sum(tables: dict) -> None:
    row = rows_of(tables["interaction"], distribution="gaussian", intensity=1.0).iloc[0]
    assert row["together"] == pytest.approx(0.12)
    assert row["interaction"] == pytest.approx(0.01)
    assert row["low"] > 0
    assert row["share"] == pytest.approx(0.01 / 0.11)


def test_sensitivity_per_squared_norm(tables: dict) -> None:
    sensitivity = tables["sensitivity"]
    assert len(sensitivity) == 4
    row = rows_of(sensitivity, projection="up_proj", block=1).iloc[0]
    assert row["squared_norm"] == pytest.approx(4.0)
    assert row["error_per_squared_norm"] == pytest.approx(0.02 / 4)
    sums = by_kind(sensitivity).set_index("name")
    assert sums.loc["up_proj", "error"] == pytest.approx(0.04)
    assert sums.loc[0, "error"] == pytest.approx(0.025)


def test_agreement_with_quantizers(tables: dict) -> None:
    rows = rows_of(tables["agreement"], target=WEIGHTS, intensity=1.0, relation="independent")
    rows = rows_of(rows, per="tensor", distribution="gaussian").set_index("method")
    assert rows.loc["rtn3", "r"] == pytest.approx(1)
    assert rows.loc["nf3", "low"] < 0 < rows.loc["nf3", "high"]
    assert set(rows["n"]) == {40}


def test_too_few_documents_for_a_correlation() -> None:
    few = made_scores()
    few = few[few["doc_id"].isin(DOCUMENTS[:4])]
    with pytest.raises(InputError, match="4 documents are too few"):
        agreement_table(perturbed_errors(few), made_errors(), METHODS, BOOTSTRAP, 0)


def test_words_say_what_the_intervals_say(tables: dict) -> None:
    said = perturbation_answer(tables["effects"], "demo")
    assert "0.10 [" in said
    assert said.count("(M+) hurts less, noise that shrinks with it (M-) more") == 2
    assert "Clipping 0.1 % of the weights costs 0.030 [" in said
    assert "more than noise matched to it" in said
    same = tables["effects"].assign(beyond_baseline_low=-1.0, beyond_baseline_high=1.0)
    said = perturbation_answer(same, "demo")
    assert said.count("hurts about as much, noise that shrinks with it (M-) about as much") == 2
    assert "about as much as noise matched to it" in said
    assert "Partly: under Gaussian noise" in agreement_answer(tables["agreement"], "demo")
    assert "1 of 2 methods (interval above 0); r is" in agreement_answer(
        tables["agreement"], "demo"
    )
    assert "`up_proj` (80 % of the sum" in sensitivity_answer(tables["sensitivity"], "demo")
    page = perturbation_markdown(*tables.values(), "demo", "rtn3", 8)
    assert "| weights | gaussian | M+ | tensor | 0.100 |" in page
    assert "| weights | 0.1 % | clip | 0.100 |" in page


def made_simulations() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The power grid has half the error and a tenth of the noise at 4 bits, but not at 8."""

    def is_better(kind: Simulation) -> bool:
        return kind.transform == "power" and kind.weight_bits == 4

    transforms = ["uniform", "power"]
    scores = simulation_scores(
        lambda kind: (0.05 if is_better(kind) else 0.1) / FRAGILITY.mean(),
        width=WIDTH,
        transforms=transforms,
    )
    sizes = [
        {"setting": kind.setting, **asdict(kind), "target": target, "module": module}
        | {"signal": 100.0, "noise": 0.1 if is_better(kind) else 1.0}
        for kind in list_simulations(["W4A16", "W8A8"], transforms, transforms)
        for target in (WEIGHTS, ACTIVATIONS)
        for module in ("0.a", "1.b")
        if target == WEIGHTS or kind.activation_bits < 16
    ]
    return scores, pd.DataFrame(sizes)


def test_simulations_and_the_best_transforms() -> None:
    simulations = simulation_table(*made_simulations(), BOOTSTRAP, 0)
    assert len(simulations) == 2 * 3 + 2 * 4
    row = rows_of(simulations, setting="W4A16", transform="power", weights_per="row").iloc[0]
    assert row["error"] == pytest.approx(0.05)
    assert row["against_uniform"] == pytest.approx(-0.05)
    assert row["sqnr_weights"] == pytest.approx(30)
    assert np.isnan(row["sqnr_activations"])
    both = rows_of(simulations, setting="W8A8")
    assert both["sqnr_activations"].to_numpy() == pytest.approx(20)
    best = best_transforms(simulations)
    four = rows_of(best, setting="W4A16")
    assert (four["best"] == "power").all()
    assert four["surely"].all()
    assert not rows_of(best, setting="W8A8")["surely"].any()
    said = transforms_answer(best, "demo")
    assert "3 of 3 combinations of bits and granularity (most often `power`) for weights" in said
    assert "0 of 4 combinations of bits and granularity for weights and activations" in said


def test_perplexity_and_accuracy_on_evaluation_sets() -> None:
    """Two windows of different length, three items; one condition with two seeds, one with one."""

    def rows(change: str, seed: int, nll: list[float], correct: list[bool]) -> pd.DataFrame:
        keys = {"change": change, "seed": seed}
        windows = {"set": "text", "kind": "windows", "row": ["0", "1"], "tokens": [10, 30]}
        windows |= {"nll": nll, "nll_full": [10.0, 30.0], "correct": None, "correct_full": None}
        items = {"set": "words", "kind": "last_word", "row": ["a", "b", "c"], "tokens": 2}
        items |= {"nll": 1.0, "nll_full": 1.0, "correct": correct}
        items |= {"correct_full": [True, True, False]}
        parts = [pd.DataFrame({**keys, **each}) for each in (windows, items)]
        return pd.concat(parts, ignore_index=True)

    scores = pd.concat(
        [
            rows("noise", 0, [20.0, 60.0], [True, False, False]),
            rows("noise", 1, [20.0, 30.0], [False, False, False]),
            rows("clip", 0, [10.0, 60.0], [True, True, True]),
        ],
        ignore_index=True,
    )
    found = set_table(scores, ["change"], BOOTSTRAP, 0).set_index(["set", "measure", "change"])
    noise = found.loc[("text", "perplexity", "noise")]
    assert noise["full"] == pytest.approx(np.exp(1))
    assert noise["value"] == pytest.approx(np.exp((20 + 45) / 40))
    assert found.loc[("text", "perplexity", "clip"), "value"] == pytest.approx(np.exp(70 / 40))
    assert noise["difference"] == pytest.approx(np.exp(65 / 40) - np.exp(1))
    assert found.loc[("words", "accuracy", "noise"), "value"] == pytest.approx(1 / 6)
    assert found.loc[("words", "accuracy", "clip"), "difference"] == pytest.approx(1 / 3)
    ends = ["low", "high", "difference_low", "difference_high"]
    assert found[ends].isna().all(axis=None)  # of two windows and three items
    many = pd.concat([scores.assign(row=scores["row"] + str(n)) for n in range(3)])
    assert set_table(many, ["change"], BOOTSTRAP, 0)[ends].notna().all(axis=None)
    assert found.loc[("words", "word_perplexity", "clip"), "value"] == pytest.approx(np.exp(1))


def options(**values: Path | str) -> list[str]:
    return [
        part
        for name, value in values.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def figures(folder: Path, *kinds: str) -> list[str]:
    """Options for the figures of a plotting script."""
    return [
        part
        for kind in kinds
        for part in (f"--{kind}-figure", *(str(folder / f"{kind}.{end}") for end in ("png", "svg")))
    ]


def test_scripts_write_tables_and_figures(tmp_path: Path) -> None:
    made_scores().to_parquet(tmp_path / "scores.parquet")
    made_norms().to_parquet(tmp_path / "norms.parquet")
    made_errors().to_parquet(tmp_path / "errors.parquet")
    inputs = options(scores="scores.parquet", norms="norms.parquet", errors="errors.parquet")
    names = ("effects", "interaction", "sensitivity", "agreement")
    tables = options(**{name: f"{name}.csv" for name in names})
    about = options(model="demo", reference="rtn3", activation_bits="8", markdown="page.md")
    settings = options(settings=json.dumps(asdict(BOOTSTRAP)), seed="0")
    arguments = [*inputs, *tables, *about, *settings, "--methods", *METHODS]
    assert run_script("analyze_perturbation.py", tmp_path, *arguments) == ""
    assert "# The lens of perturbation: demo" in (tmp_path / "page.md").read_text()
    methods = {name: {"quantizer": name[:-1], "bits": 3} for name in METHODS}
    kinds = ("intensity", "distribution", "clipping", "interaction", "sensitivity", "agreement")
    drawn = [*tables, *options(methods=json.dumps(methods)), *figures(tmp_path, *kinds)]
    assert run_script("plot_perturbation.py", tmp_path, *drawn) == ""
    assert all((tmp_path / f"{kind}.png").stat().st_size > 10_000 for kind in kinds)


def test_scripts_write_simulations(tmp_path: Path) -> None:
    for name, table in zip(("scores", "sizes"), made_simulations(), strict=True):
        table.to_parquet(tmp_path / f"{name}.parquet")
    inputs = options(scores="scores.parquet", sizes="sizes.parquet")
    settings = options(settings=json.dumps(asdict(BOOTSTRAP)), seed="0")
    tables = options(simulations="simulations.csv", best="best.csv")
    assert run_script("analyze_simulation.py", tmp_path, *inputs, *tables, *settings) == ""
    drawn = [*options(simulations="simulations.csv"), *figures(tmp_path, "transforms", "sqnr")]
    assert run_script("plot_simulation.py", tmp_path, *drawn) == ""
    assert (tmp_path / "sqnr.png").stat().st_size > 10_000


def test_the_better_uniform_grid_is_what_others_are_compared_with() -> None:
    """And it is no non-uniform grid, whatever it wins."""
    scores, sizes = made_simulations()
    asymmetric = [
        table[table["transform"] == "uniform"].assign(transform="uniform asymmetric")
        for table in (scores, sizes)
    ]
    better = asymmetric[0].assign(nll=lambda t: t["nll_full"] + 0.2 * (t["nll"] - t["nll_full"]))
    scores = pd.concat([scores, better], ignore_index=True)
    sizes = pd.concat([sizes, asymmetric[1]], ignore_index=True)
    simulations = simulation_table(scores, sizes, BOOTSTRAP, 0)
    row = rows_of(simulations, setting="W4A16", transform="power", weights_per="row").iloc[0]
    assert row["against_uniform"] == pytest.approx(0.05 - 0.02)
    best = best_transforms(simulations)
    assert (best["best"] == "uniform asymmetric").all()
    assert not best["surely"].any()


def test_simulations_have_the_claims_resamples_whatever_the_order_of_documents() -> None:
    scores = simulation_scores(doc_ids=[f"doc{number}" for number in (30, 4, 100, 21, 3, 7, 1, 9)])
    keys = [*asdict(list_simulations(["W4A16"], ["power"], ["power"])[0]), "setting"]
    sizes = scores[keys].drop_duplicates().assign(target=WEIGHTS, module="m", signal=1.0, noise=0.1)
    table = simulation_table(scores, sizes, CLAIMS_BOOTSTRAP, 0)
    row = rows_of(table, setting="W4A16", transform="power", weights_per="row").iloc[0]
    results = model_results({"simulation_scores": scores})
    at = {"setting": "W4A16", "transform": "power", "weights_per": "row"}
    claimed = STATISTICS["perplexity_rise"](results, [], at)
    np.testing.assert_allclose(
        np.exp(row[["low", "high"]].astype(float)) - 1, [claimed.low, claimed.high]
    )


def test_simulations_without_a_uniform_grid() -> None:
    scores, sizes = (t[t["transform"] == "power"] for t in made_simulations())
    simulations = simulation_table(scores, sizes, BOOTSTRAP, 0)
    assert simulations["against_uniform"].isna().all()
    assert not best_transforms(simulations)["surely"].any()


def test_intervals_know_of_other_draws_of_the_noise() -> None:
    """Documents that all suffer alike: what varies is the seed, by a tenth either way."""
    scores = made_scores()
    scores = scores.assign(nll=scores["nll_full"] + 0.1 * scores["seed"])
    effects = effect_table(perturbed_errors(scores), made_norms(), BOOTSTRAP, 0)
    row = rows_of(effects, target=WEIGHTS, relation="M+", intensity=1.0, per="tensor").iloc[0]
    assert row["error"] == pytest.approx(0.1)
    assert row["low"] < 0.05 < 0.15 < row["high"]
