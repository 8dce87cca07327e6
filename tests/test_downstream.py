"""Downstream tasks: what counts as right, buckets of popularity, tables, claim, figure, config."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from environments import outcomes_in
from hypothesis import given
from hypothesis import strategies as st
from run_script import run_script

from lowbit.analysis.downstream import (
    HIGHEST,
    LOWEST,
    accuracy_table,
    extreme_gaps,
    join_answers,
    popularity_table,
)
from lowbit.analysis.statistics import BootstrapSettings
from lowbit.claims.downstream_statistics import extremes_damage
from lowbit.claims.results import NotMeasured
from lowbit.downstream.buckets import BUCKETS, MINIMUM_ITEMS, popularity_buckets
from lowbit.downstream.popqa import answers, check_columns, exact_match, matches, normalise
from lowbit.errors import InputError
from lowbit.files import write_json
from study.config.sections import Benchmark
from study.config.task_files import TASK_FILES, read_task_file

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = BootstrapSettings(resamples=200, confidence=0.9)

# --- in the environment of lm-evaluation-harness

CHECKS = [
    "equals_the_harness_alone",
    "prompts_are_popqas",
    "groups_of_choices",
    "items_are_drawn",
    "cut_prompts_are_told",
    "bad_tasks_are_told",
    "gates_stop",
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What went wrong in each check."""
    return outcomes_in("lm_eval", "tests/library_checks/downstream.py")


@pytest.mark.parametrize("check", CHECKS)
def test_harness(check: str, outcomes: dict[str, str]) -> None:
    assert outcomes[check] == ""


def test_every_check_is_run(outcomes: dict[str, str]) -> None:
    assert sorted(outcomes) == sorted(CHECKS)


# --- which answers are right


@pytest.mark.parametrize(
    ("answer", "possible", "right"),
    [
        (" Paris", ["Paris"], True),
        ("paris.", ["Paris", "City of Light"], True),
        ("the city of light", ["Paris", "City of Light"], True),
        ("Paris, France", ["Paris"], False),  # PopQA's authors would count it
        ("Pari", ["Paris"], False),
        ("N'Djamena", ["Ndjamena"], True),
        ("U.S.", ["US"], True),
        ("New  York", ["New York"], True),
        ("NewYork", ["New York"], False),
        ("Émile Zola", ["Emile Zola"], False),  # accents count
        ("An Officer and a Gentleman", ["officer and gentleman"], True),
        ("Theodor", ["odor"], False),  # an article is a whole word
        ("", ["Paris"], False),
        ("the", ["The The"], False),  # nothing is left of either
        ("!!!", ["!!!"], False),
    ],
)
def test_an_answer_matches_as_a_whole(answer: str, possible: list[str], right: bool) -> None:
    assert matches(answer, possible) is right
    item = {"possible_answers": json.dumps(possible)}
    assert exact_match(item, [answer]) == {"exact_match": float(right)}


@given(st.text())
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_answers_are_read_from_json_or_a_list() -> None:
    assert answers({"possible_answers": '["T\\u014dky\\u014d", "Tokyo"]'}) == ["Tōkyō", "Tokyo"]
    assert answers({"possible_answers": ["Tokyo"]}) == ["Tokyo"]
    for wrong in ("Tokyo", "[]", "{}", "[1]", [], None, 3):
        with pytest.raises(InputError, match="must be a list of texts, or one as JSON"):
            answers({"possible_answers": wrong})


class Columns(dict):
    """A data set by columns."""

    @property
    def column_names(self) -> list[str]:
        return list(self)


def test_missing_columns_and_unreadable_answers_are_told() -> None:
    names = ("question", "obj", "prop", "s_pop")
    good = Columns({name: ["x"] for name in names} | {"possible_answers": ['["x"]']})
    assert check_columns(good) is good
    with pytest.raises(InputError, match=r"lack possible_answers: .* these have question, obj"):
        check_columns(Columns({name: ["x"] for name in names}))
    with pytest.raises(InputError, match=r"item 1: possible_answers is 'x'"):
        check_columns(Columns(good | {"possible_answers": ['["x"]', "x"]}))


# --- buckets


def test_buckets_by_hand() -> None:
    popularity = np.array([5, 900, 20, 20, 1, 7000, 60, 3, 100, 2, 400, 30, 9, 50, 1e6, 10])
    expected = [1, 6, 3, 3, 0, 7, 5, 1, 5, 0, 6, 4, 2, 4, 7, 2]
    assert popularity_buckets(popularity).tolist() == expected


@given(st.lists(st.integers(0, 50), min_size=BUCKETS, max_size=200))
def test_buckets_are_equal_and_in_order(values: list[int]) -> None:
    popularity = np.array(values, float)
    place = popularity_buckets(popularity)
    sizes = np.bincount(place, minlength=BUCKETS)
    assert sizes.max() - sizes.min() <= 1
    for lower in range(BUCKETS - 1):
        assert popularity[place == lower].max() <= popularity[place == lower + 1].min()
    np.testing.assert_array_equal(place, popularity_buckets(np.log(1 + popularity)))


# --- tables

LOST = (0, 2, 4, 4, 6, 4, 2, 1)
"""Items of each bucket that the quantized model of `by_hand` no longer answers."""
PER_BUCKET = 20


def by_hand(lost: tuple[int, ...] = LOST) -> dict[tuple[str, str], pd.DataFrame]:
    """Answers of a full model that is right in half of each bucket, of one that loses some of these
    and of one that loses nothing; items in random order, and a task without popularity."""
    bucket = np.repeat(np.arange(BUCKETS), PER_BUCKET)
    place = np.tile(np.arange(PER_BUCKET), BUCKETS)
    right = place < PER_BUCKET // 2
    kept = right & (place >= np.array(lost)[bucket])
    order = np.random.default_rng(0).permutation(len(bucket))

    def rows(correct: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "task": "popqa",
                "item": np.arange(len(order)),
                "correct": correct[order].astype(float),
                "answer": "",
                "popularity": (10.0 ** (bucket + place / PER_BUCKET))[order],
                "cut": (place == 0)[order],
                "prompt": [f"p{number}" for number in order],
            }
        )

    popular = {
        ("popqa", name): rows(c) for name, c in (("full", right), ("a3", kept), ("b3", right))
    }
    other = rows(right).assign(task="mmlu_anatomy", popularity=np.nan)
    return popular | {("mmlu", "full"): other, ("mmlu", "a3"): other.assign(correct=0.0)}


def test_accuracy_and_paired_damage() -> None:
    table = accuracy_table(join_answers(by_hand()), {"popqa": 15, "mmlu": 5}, SETTINGS, 0)
    at = table.set_index(["name", "method"])
    assert list(at.index) == [
        ("popqa", "full"),
        ("popqa", "a3"),
        ("popqa", "b3"),
        ("mmlu", "full"),
        ("mmlu", "a3"),
    ]
    assert at["n"].unique().tolist() == [160]
    assert at.loc[("popqa", "a3"), "accuracy"] == pytest.approx((80 - sum(LOST)) / 160)
    assert at.loc[("popqa", "a3"), "damage"] == pytest.approx(sum(LOST) / 160)
    assert at.loc[("popqa", "full"), ["damage", "damage_low", "damage_high"]].isna().all()
    # The same items are right, so nothing varies between resamples although accuracy does.
    assert at.loc[("popqa", "b3"), ["damage", "damage_low", "damage_high"]].tolist() == [0, 0, 0]
    assert at.loc[("popqa", "b3"), "low"] < 0.5 < at.loc[("popqa", "b3"), "high"]
    assert at.loc[("mmlu", "a3"), ["accuracy", "damage"]].tolist() == [0, 0.5]
    assert at["cut"].tolist() == pytest.approx([1 / PER_BUCKET] * 5)
    assert at["shots"].tolist() == [15, 15, 15, 5, 5]


def test_damage_by_popularity() -> None:
    table = popularity_table(join_answers(by_hand()), SETTINGS, 0)
    assert table["name"].unique().tolist() == ["popqa"]
    a3 = table[table["method"] == "a3"].set_index("bucket")
    buckets = [str(number) for number in range(1, BUCKETS + 1)]
    np.testing.assert_allclose(a3.loc[buckets, "damage"], np.array(LOST) / PER_BUCKET)
    np.testing.assert_allclose(a3.loc[buckets, "accuracy"], 0.5 - np.array(LOST) / PER_BUCKET)
    assert (a3.loc[buckets, "popularity_from"] >= 10.0 ** np.arange(BUCKETS)).all()
    assert (a3.loc[buckets, "popularity_to"] < 10.0 ** np.arange(1, BUCKETS + 1)).all()
    assert a3["n"].unique().tolist() == [PER_BUCKET]
    middle = np.mean(LOST[1:-1]) / PER_BUCKET
    assert a3.loc[LOWEST, "damage"] == pytest.approx(0 - middle)
    assert a3.loc[HIGHEST, "damage"] == pytest.approx(1 / PER_BUCKET - middle)
    assert set(table.loc[table["method"] == "full", "bucket"]) == set(buckets)


def test_gaps_of_the_extremes_by_hand() -> None:
    damage = np.array([[1, 4, 4, 4, 4, 4, 4, 3.0], [2, 2, 2, 2, 2, 2, 2, 2]])
    assert extreme_gaps(damage).tolist() == [[-3, -1], [0, 0]]


def test_methods_that_were_asked_something_else_are_not_compared() -> None:
    parts = by_hand()
    parts["popqa", "a3"] = parts["popqa", "a3"].assign(prompt="another")
    with pytest.raises(InputError, match=r"downstream\.popqa: a3 and full were not asked the same"):
        join_answers(parts)


# --- the claim


def results(table: pd.DataFrame) -> SimpleNamespace:
    """What the statistic uses of `ModelResults`."""

    def measure(draws: np.ndarray, names: list[str], detail: str, n: int) -> SimpleNamespace:
        low, high = np.nanquantile(draws[1:], [0.05, 0.95])
        return SimpleNamespace(
            value=draws[0], low=low, high=high, methods=tuple(names), detail=detail, n=n
        )

    return SimpleNamespace(table=lambda name: table, settings=SETTINGS, seed=0, measure=measure)


def test_the_claim_is_judged_at_the_extreme_that_speaks_most_against_it() -> None:
    table = join_answers(by_hand())
    found = extremes_damage(results(table), ["a3"], {})
    middle = np.mean(LOST[1:-1]) / PER_BUCKET
    assert found.value == pytest.approx(1 / PER_BUCKET - middle)
    assert found.high < 0
    assert (found.n, found.methods) == (160, ("a3",))
    assert found.detail == "popqa: -0.183 least popular, -0.133 most popular"
    table_gap = popularity_table(table, SETTINGS, 0).set_index(["method", "bucket"])
    assert found.value == pytest.approx(table_gap.loc[("a3", HIGHEST), "damage"])
    both = extremes_damage(results(table), ["a3", "b3", "c3"], {})
    assert both.value == pytest.approx(found.value / 2)
    assert both.methods == ("a3", "b3")
    one_sided = join_answers(by_hand((0, 2, 2, 2, 2, 2, 2, 9)))
    assert extremes_damage(results(one_sided), ["a3"], {}).value > 0


def test_an_extreme_whose_interval_crosses_0_decides_before_a_larger_sure_one(monkeypatch) -> None:
    gaps = np.array([[-0.2, -0.1]] + [[x, -0.1] for x in (-0.5, 0.1, -0.3, 0.2)])
    monkeypatch.setattr("lowbit.claims.downstream_statistics.extreme_gaps", lambda damage: gaps)
    found = extremes_damage(results(join_answers(by_hand())), ["a3"], {})
    assert found.value == -0.2
    assert found.high > 0


def test_the_claim_is_not_measured_where_it_cannot_be() -> None:
    table = join_answers(by_hand())
    with pytest.raises(NotMeasured, match="no downstream task of this study has a popularity"):
        extremes_damage(results(table[table["name"] == "mmlu"]), ["a3"], {})
    with pytest.raises(NotMeasured, match="none of the claim's methods answered popqa"):
        extremes_damage(results(table), ["c3"], {})
    with pytest.raises(NotMeasured, match="answers none of the 160 items of popqa right"):
        extremes_damage(results(table.assign(correct=0.0)), ["a3"], {})


# --- scripts


def test_scripts_write_tables_and_figure(tmp_path: Path) -> None:
    listed = []
    for (name, method), rows in by_hand().items():
        items, record = (tmp_path / f"{name}-{method}.{end}" for end in ("parquet", "json"))
        rows.to_parquet(items)
        write_json(record, {"shots": 3})
        listed.append({"name": name, "method": method, "items": str(items), "record": str(record)})
    settings = json.dumps({"resamples": 100, "confidence": 0.95})
    outputs = {"output": "downstream.parquet", "table": "downstream.csv"}
    outputs["popularity"] = "popularity.csv"
    options = ["--answers", json.dumps(listed), "--settings", settings, "--seed", 0]
    options += [word for option, file in outputs.items() for word in (f"--{option}", file)]
    assert run_script("analyze_downstream.py", tmp_path, *options) == ""
    answered = pd.read_parquet(tmp_path / "downstream.parquet")
    assert len(answered) == 5 * 160
    assert list(answered)[:4] == ["name", "method", "task", "item"]
    methods = {name: {"quantizer": "rtn", "bits": 3} for name in ("a3", "b3")}
    draw = ["--table", "popularity.csv", "--methods", json.dumps(methods), "--figure"]
    figures = ("popularity.png", "popularity.svg")
    assert run_script("plot_downstream.py", tmp_path, *draw, *figures) == ""
    drawn = [(tmp_path / name).read_bytes() for name in figures]
    assert run_script("plot_downstream.py", tmp_path, *draw, *figures) == ""
    assert [(tmp_path / name).read_bytes() for name in figures] == drawn


# --- task files


def write_task(folder: Path, text: str, name: str = "task.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_popqas_file_names_what_its_results_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    file = read_task_file(TASK_FILES["popqa"])
    assert file.popularity == "s_pop"
    assert file.files == (TASK_FILES["popqa"],)
    assert set(file.modules) == {"lowbit.downstream.popqa", "lowbit.downstream.examples"}
    local = read_task_file(Path("tests/downstream/questions.yaml"))
    assert (local.popularity, local.modules) == ("s_pop", file.modules)
    assert [path.name for path in local.files] == [
        "questions.yaml",
        "popqa.yaml",
        "questions.jsonl",
    ]


def test_functions_beside_a_task_file_count_with_it(tmp_path: Path) -> None:
    write_task(tmp_path, "", "mine.py")
    text = "task: t\nmetric_list: [{metric: !function mine.right}]\nprocess_docs: !function re.sub"
    file = read_task_file(write_task(tmp_path, text))
    assert [path.name for path in file.files] == ["task.yaml", "mine.py"]
    assert (file.modules, file.popularity) == ((), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task: [a, b]", "must define one task"),
        ("group: g\ntask: [a]", "groups of tasks cannot be used"),
        ("- task", "must be a mapping of keys"),
        ("task: t: u", "is not YAML of a task"),
        ("task: !python t", "is not YAML of a task"),
        ("task: t\ninclude: none.yaml", r"none\.yaml does not exist"),
        ("task: t\ninclude: task.yaml", "includes itself"),
        (
            "task: t\ndataset_kwargs: {data_files: {test: none.jsonl}}",
            r"data_files names none\.jsonl, which does not exist",
        ),
    ],
)
def test_a_task_file_that_cannot_be_used_is_told(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_task_file(write_task(tmp_path, text))


def test_a_task_of_the_harness_itself_has_no_file() -> None:
    assert Benchmark(task="mmlu", shots=5).task_file() is None
    assert MINIMUM_ITEMS == 40
