"""What a study would run, where that depends on its models and documents."""

import json
import shutil
from typing import Any

from copies import Copy

STUDY: dict[str, Any] = {
    "study": "planned",
    "models": {"demo": {"source": "demo"}},
    "documents": {"name": "demo", "source": "demo", "n": 24, "length": 64},
    "methods": {
        "rtn2": {"quantizer": "rtn", "bits": 2, "group_size": 64},
        "nf3": {"quantizer": "nf", "bits": 3, "group_size": 64},
    },
}


def planned(copy: Copy, **changes: Any) -> dict[str, int]:
    """How often each rule would run."""
    (copy.folder / "study.yaml").write_text(json.dumps(STUDY | changes))
    return copy.plan("study.yaml")


def test_documents_are_chosen_in_a_job_of_its_own_only_for_several_tokenizers(fresh: Copy) -> None:
    models = {"demo": {"source": "demo"}}
    for name in ("twin", "other"):
        shutil.copytree(fresh.folder / "resources/demo/model", fresh.folder / name)
        models[name] = {"source": f"path:{name}"}
    twins = {name: models[name] for name in ("demo", "twin")}
    assert "choose_documents" not in planned(fresh, models=twins)
    settings = fresh.folder / "other/tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")
    rules = planned(fresh, models=models)
    assert (rules["choose_documents"], rules["tokenize_documents"]) == (1, 3)


def test_released_sets_are_read_by_their_model_and_compared(fresh: Copy) -> None:
    released = {"name": "r", "source": "qerror:Qwen2.5-7B/awq3", "n": 20, "length": 64}
    rules = planned(fresh, documents=released)
    assert (rules["compare_released"], rules["fetch_documents"]) == (1, 2)
    assert "compare_released" not in planned(fresh)
