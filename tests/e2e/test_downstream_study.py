"""A downstream task through the workflow: two methods and the full model answer local questions."""

import pandas as pd
import pytest
from copies import Copy, fork

STUDY = "tests/e2e/config/downstream.yaml"
TASK = "tests/downstream/questions"
ANSWERS = {"answer": 3, "analyze_downstream": 1}
RULES = {*ANSWERS, "plot_downstream"}


@pytest.fixture(scope="module")
def answered(finished: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the finished small study in which questions were answered."""
    copy = fork(finished, tmp_path_factory.mktemp("answered"))
    # What the small study has made is not made again.
    assert dict(copy.study(STUDY, "--until plot_downstream").rules) == {
        **ANSWERS,
        "plot_downstream": 1,
    }
    return copy


def test_every_method_answers_every_question(answered: Copy) -> None:
    tables = answered.folder / "results" / "small" / "demo"
    answers = pd.read_parquet(tables / "downstream.parquet")
    assert answers["method"].value_counts().to_dict() == {"full": 48, "rtn2": 48, "nf3": 48}
    assert answers.groupby("item")["prompt"].nunique().eq(1).all()
    given = answers.pivot(index="item", columns="method", values="answer")
    assert (given["rtn2"] != given["full"]).any()
    assert pd.read_csv(tables / "downstream.csv")["method"].tolist() == ["full", "rtn2", "nf3"]
    buckets = pd.read_csv(tables / "popularity.csv").query("method == 'full'")
    assert buckets["n"].tolist() == [6] * 8
    assert (tables / "figures" / "popularity.svg").stat().st_size > 0


def test_changed_questions_are_asked_again_and_nothing_else(answered: Copy) -> None:
    def planned() -> set[str]:
        return set(answered.plan(STUDY))

    before = planned()
    assert not before & RULES
    for file in (f"{TASK}.jsonl", f"{TASK}.yaml"):
        path = answered.folder / file
        text = path.read_text(encoding="utf-8")
        path.write_text(text + text.splitlines()[-1] + "\n" if "json" in file else text + "# new\n")
        assert planned() - before == RULES
        path.write_text(text, encoding="utf-8")
    answered.edit("scripts/lowbit/downstream/popqa.py")
    assert planned() - before == RULES
