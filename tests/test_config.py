"""The config: what is accepted, how layers merge, and what each mistake is told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from lowbit.claims.paper import repository
from lowbit.errors import InputError
from lowbit.inputs import hub
from study.config import study as study_config
from study.config.archive import ARCHIVE, read_archive
from study.config.methods import METHODS, AnyMethod
from study.config.study import Method, Study, load_study
from study.schema import SCHEMA, schema

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "config.yaml"


@pytest.fixture
def project(tmp_path: Path, llama_source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the default config and small stand-ins for the embedded model and documents."""
    monkeypatch.chdir(tmp_path)
    Path("resources/demo").mkdir(parents=True)
    Path("resources/tasks").symlink_to(ROOT / "resources" / "tasks")
    Path("resources/demo/model").symlink_to(llama_source)
    Path("resources/demo/documents.parquet").write_bytes(b"")
    Path("resources/demo/calibration.parquet").write_bytes(b"")
    Path("resources/demo/last_word.parquet").write_bytes(b"")
    text = DEFAULT.read_text().replace("length: 512", "length: 64").replace("size: 64", "size: 32")
    Path("config.yaml").write_text(text)
    return tmp_path


def load(changes: str = "", **overrides: Any) -> Study:
    """Load the default with a study file of this content."""
    Path("study.yaml").write_text(changes or "{}")
    return load_study(Path("config.yaml"), Path("study.yaml"), overrides=overrides)


def message(changes: str) -> str:
    """The message that a study file of this content gets."""
    with pytest.raises(InputError) as caught:
        load(changes)
    return str(caught.value)


def test_the_default_study_is_valid_and_its_sources_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert load_study(DEFAULT).study == "demo"


STUDIES = sorted({*(ROOT / "config").glob("*.yaml")} - {ROOT / ARCHIVE})


def test_the_default_study_states_every_key_if_only_in_a_comment() -> None:
    text = DEFAULT.read_text(encoding="utf-8")
    for definition in [schema(), *schema()["$defs"].values()]:
        for key in definition["properties"]:
            assert re.search(rf"\b{key}(, \w+)*(:| \()", text), key


def test_methods_in_comments_of_the_default_study_are_valid() -> None:
    """And with those that it uses they are of every quantizer."""
    text = DEFAULT.read_text(encoding="utf-8")
    uncommented = re.sub(r"^  # ", "  ", text, flags=re.M)
    found = re.findall(r"^  (\w+: \{quantizer: [^}]*\})", uncommented, re.M)
    methods = {name: one for each in found for name, one in yaml.safe_load(each).items()}
    assert yaml.safe_load(text)["methods"].items() < methods.items()
    checked = [TypeAdapter(AnyMethod).validate_python(method) for method in methods.values()]
    assert {type(method) for method in checked} == set(METHODS)


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_every_study_file_in_config_is_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what only the hub, or a user's own checkpoint, can tell."""
    described = {"quantizer": "gptq", "bits": 4, "group_size": 128}
    monkeypatch.setattr("study.config.methods.outline_checkpoint", lambda source: source)
    monkeypatch.setattr("study.config.methods.describe_checkpoint", lambda place: described)
    monkeypatch.chdir(ROOT)
    study = Study.model_validate(study_config.merge_layers([DEFAULT, file], {}))
    names = read_archive()
    for model in study.models.values():
        kind, _, argument = model.source.partition(":")
        assert kind != "hub" or hub.parse(argument, hub.MODEL)
    for texts, _ in study.texts().values():
        kind, _, argument = texts.source.partition(":")
        assert kind != "named" or argument in names
        assert kind != "hub" or hub.parse(argument, hub.DATASET)


def test_the_studies_of_the_paper_are_those_that_its_figures_bind_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Repositories, methods, text and evaluation of the claims."""
    monkeypatch.chdir(ROOT)
    claims = yaml.safe_load(Path("claims/inputs.yaml").read_text())
    paper, eqat, variants = (
        Study.model_validate(study_config.merge_layers([DEFAULT, Path("config", name)], {}))
        for name in ("inputs-paper.yaml", "inputs-paper-eqat.yaml", "gptq-variants.yaml")
    )
    repositories = {repository(model.source) for model in paper.models.values()}
    assert repositories == {source for m in claims["models"].values() for source in m["sources"]}
    assert eqat.models.items() < paper.models.items()
    assert paper.methods.items() < eqat.methods.items()
    methods = [*eqat.methods.values(), *variants.methods.values()]
    described = [method.described() for method in methods]
    for wanted in claims["methods"].values():
        assert any(wanted.items() <= method.items() for method in described), wanted
    for study in (paper, eqat):
        assert claims["documents"]["source"] in study.documents.source
        assert claims["documents"]["length"] == study.documents.length
        assert "wikitext2" in study.evaluation


def test_the_studies_of_other_domains_share_the_weights_of_the_papers_and_have_its_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise 70 billion weights would be quantized again, or a claim never judged."""
    monkeypatch.chdir(ROOT)
    paper, arxiv, openwebmath = (
        Study.model_validate(study_config.merge_layers([DEFAULT, Path("config", name)], {}))
        for name in ("inputs-paper.yaml", "inputs-arxiv.yaml", "inputs-openwebmath.yaml")
    )
    claims = yaml.safe_load(Path("claims/inputs.yaml").read_text())["claims"]
    texts = {claim["documents"]["source"] for claim in claims if "documents" in claim}
    assert {f"named:{text}" for text in texts} == {
        arxiv.documents.source,
        openwebmath.documents.source,
    }
    assert texts <= read_archive().keys()
    for study in (arxiv, openwebmath):
        assert study.models.items() < paper.models.items()
        assert study.methods.items() < paper.methods.items()
        assert study.calibration == paper.calibration
        assert study.seed == paper.seed
        made_by = {"threads", "device"}
        assert study.engine.model_dump(include=made_by) == paper.engine.model_dump(include=made_by)


def test_the_schema_is_in_step_with_the_config_models() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run: python scripts/study/schema.py"


def test_every_key_of_the_schema_is_documented() -> None:
    for definition in [schema(), *schema()["$defs"].values()]:
        for key, entry in definition["properties"].items():
            assert "description" in entry or "$ref" in entry or "const" in entry, key


@pytest.mark.parametrize(
    "section",
    [s for s in vars(study_config).values() if isinstance(s, type) and issubclass(s, BaseModel)],
    ids=lambda section: section.__name__,
)
def test_the_examples_shown_in_messages_are_valid(section: type[BaseModel]) -> None:
    if section in (BaseModel, Method, Study):
        return
    section.model_validate(section.model_config["json_schema_extra"]["examples"][0])


def test_a_method_takes_the_calibration_set_it_names_or_the_first(project: Path) -> None:
    one, two = (f"{{source: demo, n: {n}, length: 32}}" for n in (2, 4))
    sets = f"calibration: {{one: {one}, two: {two}}}"
    methods = (
        f"methods: {{{METHOD}, x: {{quantizer: nf, bits: 3, group_size: 32, calibration: two}}}}"
    )
    study = load(f"{sets}\n{methods}")
    assert (study.calibration_of("rtn3"), study.calibration_of("x")) == ("one", "two")
    told = message(methods)
    assert "methods x.calibration is 'two', which is no set under calibration; write one of" in told


def test_calibration_that_cannot_be_is_told(project: Path) -> None:
    told = message("calibration: {c: {source: 'path:absent', n: 2, length: 65}}")
    assert "study.yaml:1: calibration.c.source cannot be used: path:absent does not exist" in told
    assert "study.yaml:1: calibration.c.length is 65, but the context of model demo is 64" in told


def test_evaluation_sets_replace_each_other_and_have_their_own_embedded_files(
    project: Path,
) -> None:
    assert load().evaluation == {}
    study = load(
        "evaluation: {w: {kind: windows, source: demo}, l: {kind: last_word, source: demo, n: 5}}"
    )
    assert [study.texts()["evaluation", name][1].name for name in "wl"] == [
        "documents.parquet",
        "last_word.parquet",
    ]
    only = load("evaluation: {w: {kind: windows, source: demo}}", evaluation={"x": only_windows()})
    assert list(only.evaluation) == ["x"]


def only_windows(**changes: Any) -> dict[str, Any]:
    """An evaluation set as an override."""
    return {"kind": "windows", "source": "demo"} | changes


def test_no_set_is_both_learned_from_and_evaluated_on(project: Path) -> None:
    Path("a.txt").write_text("a")
    told = message(
        "calibration: {c: {source: 'path:a.txt', n: 2, length: 16}}\n"
        "evaluation: {e: {kind: windows, source: 'path:a.txt'}}"
    )
    assert "study.yaml:2: evaluation e.source is also calibration.c.source; quantizers" in told


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            "{kind: windows, source: demo, length: 65}",
            "evaluation.e.length is 65, but the context of model demo is 64 tokens; write 64 or "
            "less, or leave it out",
        ),
        ("{kind: last_word, source: demo, length: 8}", "evaluation.e.length is of kind: windows"),
        ("{kind: last_word, source: demo, join: ''}", "evaluation.e.join is of kind: windows only"),
        ("{kind: words, source: demo}", "evaluation.e.kind is 'words', but must be 'windows' or"),
        ("{source: demo}", "evaluation.e.kind is missing; write for example `kind: windows`"),
        ("{kind: windows, source: 'path:no'}", "evaluation.e.source cannot be used: path:no does"),
        ("{kind: windows, source: demo, n: 0}", "evaluation.e.n is 0, but must be greater"),
    ],
)
def test_evaluation_sets_that_cannot_be_are_told(
    project: Path, settings: str, expected: str
) -> None:
    assert f"study.yaml:1: {expected}" in message(f"evaluation: {{e: {settings}}}")


DOCUMENTS = "documents: {name: d, source: demo, n: 20, length: 32, %s}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (DOCUMENTS % "minimum: {token_count: long}", "documents.minimum.token_count"),
        (DOCUMENTS % "candidates: 19", "documents.n is 20, more than candidates: 19; write more"),
        (DOCUMENTS % "ids: ids.txt", "documents.ids is 'ids.txt'; write path:<file with one docu"),
        (DOCUMENTS % "ids: 'path:no.txt'", "documents.ids cannot be used: there is no file no.txt"),
        (DOCUMENTS % "ids: 'path:ids.txt'", "documents.n is 20, but documents.ids names 2; write "),
        (
            DOCUMENTS % "ids: 'path:ids.txt', candidates: 30",
            "documents.ids says which documents are used; leave out candidates",
        ),
        (
            "calibration: {c: {source: demo, n: 9, length: 16, candidates: 8}}",
            "calibration.c.n is 9, more than candidates: 8",
        ),
        (
            "calibration: {c: {source: 'named:wiki', n: 9, length: 16}}",
            "calibration.c.source cannot be used: named:wiki is no entry of config/sources.yaml",
        ),
        (
            "calibration: {c: {source: 'hub:allenai/c4', n: 9, length: 16}}",
            "calibration.c.source cannot be used: hub:allenai/c4 has no revision; write",
        ),
        (
            "calibration: {c: {source: 'qerror:Qwen2.5-7B/awq3', n: 9, length: 16}}",
            "calibration.c.source 'qerror:Qwen2.5-7B/awq3' is not a known source; write demo or",
        ),
        (
            "documents: {name: d, source: 'qerror:Qwen2.5-7B/awq4', n: 20, length: 32}",
            "documents.source cannot be used: qerror:Qwen2.5-7B/awq4: of Qwen2.5-7B there are",
        ),
        (
            "documents: {name: d, source: 'qerror:Qwen2.5-7B/awq3', n: 20, length: 32, "
            "candidates: 30}",
            "documents.candidates is not for the authors' released sets; leave it out",
        ),
        (
            "models: {a: {source: demo}, b: {source: demo}}\n"
            "documents: {name: d, source: 'qerror:Qwen2.5-7B/awq3', n: 20, length: 32}",
            "documents source: qerror:Qwen2.5-7B/awq3 holds token ids of one model's tokenizer; wr",
        ),
    ],
)
def test_choices_of_documents_that_cannot_be_are_told(
    project: Path, changes: str, expected: str
) -> None:
    Path("ids.txt").write_text("a\nb\n")
    Path("config").symlink_to(ROOT / "config")
    assert expected in message(changes)


def test_named_texts_have_the_columns_of_their_entry_unless_the_study_says_otherwise(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.txt").write_text("a")
    entry = (
        "{about: a, licence: b, id_column: url, text_column: t, primary: {source: 'path:a.txt'}}"
    )
    Path("config").mkdir()
    Path("config/sources.yaml").write_text(f"web: {entry}")
    named = "source: 'named:web', n: 20, length: 32"
    study = load(
        f"documents: {{name: d, {named}}}\n"
        f"calibration: {{c: {{{named}, text_column: text}}}}\n"
        "evaluation: {e: {kind: windows, source: demo}}"
    )
    assert (study.documents.text_column, study.documents.id_column) == ("t", "url")
    calibration = study.calibration["c"]
    assert (calibration.text_column, calibration.id_column) == ("text", "url")
    assert study.evaluation["e"].text_column == "text"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("{quantizer: nf, backend: bitsandbytes, bits: 3, group_size: 64}", "write bits: 4"),
        ("{quantizer: nf, backend: bitsandbytes, bits: 4, group_size: 48}", "one of 32, 64"),
        ("{quantizer: nf, bits: 4, group_size: 32, double_quantization: true}", "needs backend: b"),
        ("{quantizer: gptq, bits: 5, group_size: 32}", "bits is 5, but gptq supports 2, 3, 4, 8"),
        (
            "{quantizer: gptq, bits: 3, group_size: 32, damping: 0.0}",
            "damping is 0.0, but must be gr",
        ),
        ("{quantizer: gptq, backend: gtpq, bits: 3, group_size: 32}", "backend is 'gtpq'"),
        (
            "{quantizer: eqat, bits: 3, group_size: 32, epochs: 1.5}",
            "epochs is 1.5, but must be a w",
        ),
        (
            "{quantizer: power, bits: 3, group_size: 32, exponent: cube}",
            "exponent is 'cube'; write a number from 0.1 to 2, or fit",
        ),
        ("{quantizer: power, bits: 3, group_size: 32, exponent: 0}", "exponent is 0; write a num"),
    ],
)
def test_settings_of_calibrated_methods_are_checked(
    project: Path, method: str, expected: str
) -> None:
    told = message(f"methods: {{{METHOD}, x: {method}}}")
    assert expected in told
    assert "methods.x" in told


def test_models_methods_and_documents_replace_and_other_sections_merge(project: Path) -> None:
    study = load(
        "study: other\n"
        "models: {small: {source: demo}}\n"
        "documents: {name: d, source: demo, n: 20, length: 32}\n"
        "methods: {a: {quantizer: rtn, bits: 3, group_size: row},"
        " b: {quantizer: nf, bits: 3, group_size: 32}}\n"
        "engine: {batch_size: 2}\n"
    )
    assert list(study.models) == ["small"]
    assert list(study.methods) == ["a", "b"]
    assert study.documents.model_dump()["name"] == "d"
    assert (study.engine.batch_size, study.engine.threads) == (2, 2)


def test_the_perturbations_of_the_default_are_its_own(project: Path) -> None:
    assert load_study(Path("config.yaml")).perturbation
    assert not load("study: other").perturbation
    named = load("perturbation: {reference: nf3}").perturbation
    assert (named.reference, named.documents) == ("nf3", 64)


def test_overrides_come_last(project: Path) -> None:
    study = load("seed: 1\nengine: {threads: 1}", seed=2, engine={"batch_size": 3})
    assert (study.seed, study.engine.threads, study.engine.batch_size) == (2, 1, 3)


def test_the_default_given_again_as_a_study_file_changes_nothing(project: Path) -> None:
    default = load_study(Path("config.yaml"))
    assert load_study(Path("config.yaml"), Path("./config.yaml")) == default


def test_the_resolved_config_is_the_same_study(project: Path) -> None:
    study = load("seed: 7")
    assert Study.model_validate(yaml.safe_load(study.resolved())) == study


METHOD = "rtn3: {quantizer: rtn, bits: 3, group_size: 32}"
MISTAKES = {
    "unknown key": ("seeed: 1", ["study.yaml:1: seeed", "did you mean seed?"]),
    "unknown nested key": (
        "seed: 1\nengine:\n  batchsize: 3",
        ["study.yaml:3: engine.batchsize", "did you mean batch_size?"],
    ),
    "unknown key like no other": (
        "engine: {xyz: 1}",
        ["engine.xyz", "write one of dtype, device, batch_size, mode, threads"],
    ),
    "wrong type": ("seed: three", ["seed is 'three', but must be a whole number", "`seed: 0`"]),
    "number as text": ("engine: {threads: '2'}", ["engine.threads is '2'", "`threads: 2`"]),
    "truth as number": ("seed: true", ["seed is True, but must be a whole number"]),
    "list for section": (
        "engine: [1]",
        ["engine is [1], but must be a mapping", "{dtype: float32"],
    ),
    "nothing for section": ("models:", ["models is empty", "`models: {demo: {source: demo}}`"]),
    "unknown word": ("engine: {mode: fast}", ["engine.mode is 'fast'", "'resident' or 'stream'"]),
    "out of range": ("seed: -1", ["seed is -1, but must be greater than or equal to 0"]),
    "method without quantizer": (
        f"methods:\n  {METHOD}\n  x3: {{bits: 3}}",
        ["study.yaml:3: methods.x3 has no quantizer (known: rtn, nf,", "`x3: {quantizer: rtn"],
    ),
    "method that is no mapping": (
        f"methods: {{{METHOD}, x3: rtn}}",
        ["methods.x3 is 'rtn'", "must be a", "`x3: {quantizer: rtn"],
    ),
    "unknown quantizer": (
        f"methods: {{{METHOD}, x3: {{quantizer: hhq, bits: 3}}}}",
        ["methods.x3.quantizer is 'hhq'", "did you mean hqq?"],
    ),
    "missing setting": (
        f"methods: {{{METHOD}, x3: {{quantizer: nf, bits: 3}}}}",
        ["methods.x3.group_size is missing", "`group_size: 64`"],
    ),
    "setting of another quantizer": (
        f"methods: {{{METHOD}, x3: {{quantizer: nf, bits: 3, group_size: 32, axis: 1}}}}",
        ["methods.x3.axis is not a key that exists", "quantizer, bits, group_size"],
    ),
    "whole rows along the outputs": (
        f"methods: {{{METHOD}, x: {{quantizer: hqq, bits: 3, group_size: row, axis: 0}}}}",
        ["methods.x.axis is 0, but group_size: row needs axis: 1"],
    ),
    "bits out of range": (
        "methods:\n  a: {quantizer: rtn, bits: 9, group_size: 32}\n"
        "  b: {quantizer: hqq, bits: 7, group_size: 32}",
        ["study.yaml:2: methods.a.bits is 9, but rtn supports 2, 3", "b.bits is 7, but hqq supp"],
    ),
    "group size that is no size": (
        f"methods: {{{METHOD}, x: {{quantizer: rtn, bits: 3, group_size: rows}}}}",
        ["methods.x.group_size is 'rows'", "such as 64, or row, or tensor"],
    ),
    "group size the library cannot do": (
        f"methods: {{{METHOD}, x: {{quantizer: hqq, bits: 3, group_size: tensor}}}}",
        ["methods.x.group_size is 'tensor'", "a multiple of 8", "or row"],
    ),
    "one method": (f"methods: {{{METHOD}}}", ["methods", "needs at least 2 entries"]),
    "no model": ("models: {}", ["models", "needs at least 1 entries"]),
    "reserved name": (
        f"methods: {{{METHOD}, full: {{quantizer: nf, bits: 3, group_size: 32}}}}",
        ["methods.full is reserved for the unquantized model"],
    ),
    "name with a key separator": (
        "models: {Llama-3: {source: demo}}",
        ["models.Llama-3 is not a name", "write llama_3"],
    ),
    "name that is a number": (
        f"methods: {{{METHOD}, 3: {{quantizer: nf, bits: 3, group_size: 32}}}}",
        ["methods.3 is 3, but must be text"],
    ),
    "base that is not there": (
        "models: {a: {source: demo, base: c}, b: {source: demo}}",
        ["models a.base is c, which is no other model of this study; write one of b"],
    ),
    "base of itself": (
        "models: {a: {source: demo, base: a}}",
        ["models a.base is a, which is no other model of this study; leave it out"],
    ),
    "step that is no number": (
        "models:\n  a: {source: demo, step: step8}",
        ["study.yaml:2: models.a.step is 'step8', but must be a whole number"],
    ),
    "family with capitals": (
        "models: {a: {source: demo, family: OPT}}",
        ["models.a.family is not a name", "write opt"],
    ),
    "study named as a shared folder": ("study: models", ["study", "results/models"]),
    "unknown source": (
        "models: {m: {source: s3://x}}",
        [
            "models.m.source",
            "'s3://x' is not a known source; write demo or hub:<repo>@<revision> or path:",
        ],
    ),
    "model on the hub without revision": (
        "models:\n  m: {source: hub:owner/name}",
        ["study.yaml:2: models.m.source cannot be used: hub:owner/name has no revision; write"],
    ),
    "checkpoint on the hub without revision": (
        "methods:\n  a: {quantized: hub:x/y}\n  b: {quantizer: rtn, bits: 3, group_size: 32}",
        ["study.yaml:2: methods.a", "cannot be used: hub:x/y has no revision; write"],
    ),
    "source without path": (
        "models: {m: {source: 'path:'}}",
        ["models.m.source", "write path:<directory>"],
    ),
    "path that is not there": (
        "models: {m: {source: path:nowhere}}",
        ["models.m.source cannot be used: path:nowhere does not exist", "/nowhere)"],
    ),
    "documents that are not there": (
        "documents: {name: d, source: path:no.jsonl, n: 20, length: 32}",
        ["study.yaml:1: documents.source cannot be used: path:no.jsonl does not exist"],
    ),
    "documents of another kind": (
        "documents: {name: d, source: path:study.yaml, n: 20, length: 32}",
        ["documents.source", "study.yaml is not a document file; give one of .jsonl, .parquet"],
    ),
    "documents without length": (
        "seed: 1\ndocuments: {name: d, source: demo, n: 20}",
        ["study.yaml:2: documents.length is missing", "`length: 512`"],
    ),
    "longer than the context": (
        "documents: {name: d, source: demo, n: 20, length: 65}",
        ["documents.length is 65, but the context of model demo is 64 tokens; write 64 or less"],
    ),
    "group size that divides no layer": (
        "methods:\n  a: {quantizer: rtn, bits: 3, group_size: 32}\n"
        "  b: {quantizer: nf, bits: 3, group_size: 64}",
        [
            "study.yaml:3: methods.b.group_size is 64, which does not divide 96; write one of",
            "8, 16, 32.",
            "96 is the width of model.layers.*.mlp.down_proj of model demo",
        ],
    ),
    "noise like that of no method": (
        "perturbation: {reference: gptq9}",
        ["perturbation reference is 'gptq9', which is no method of this study; write one of"],
    ),
    "noise without its own norm": (
        "perturbation: {reference: rtn3, intensities: [0.1, 10.0]}",
        ["must have 1, the reference's own norm; write [0.1, 1.0, 10.0]"],
    ),
    "noise that bfloat16 rounds away": (
        "engine: {dtype: bfloat16}\nperturbation: {reference: rtn3}",
        ["perturbation needs engine.dtype: float32; bfloat16 rounds small noise away"],
    ),
    "simulated errors that bfloat16 rounds away": (
        "engine: {dtype: bfloat16}\nperturbation: null\nsimulation: {settings: [W8A8]}",
        ["simulation needs engine.dtype: float32; bfloat16 rounds small noise away"],
    ),
    "bits of no number": (
        "simulation: {settings: [W4A16, W16A16]}",
        ["is 'W16A16'; write bits of weights and activations, such as W4A16 or W8A8"],
    ),
    "groups that do not divide what is simulated": (
        "simulation: {group_size: 48}",
        ["simulation.group_size is 48, which does not divide 64; write one of 2, 4, 8, 16, 32"],
    ),
    "sets that overlap": (
        "errors: {large_fraction: 0.3, control_fraction: 0.8}",
        ["errors.control_fraction is 0.8", "from 0.3", "to 0.7"],
    ),
    "an empty large set": (
        "errors: {large_fraction: 0.001}",
        ["errors large_fraction: 0.001 of documents.n: 300", "write documents.n: 1000 or more"],
    ),
    "sets of no method": (
        "mechanisms: {sets_of: awq9}",
        ["mechanisms sets_of is 'awq9', which is no method of this study; write one"],
    ),
    "a mechanism twice": (
        "mechanisms: {patch: [single, upper, single]}",
        ["mechanisms patch has single twice; write it once"],
    ),
    "a higher precision that is not higher": (
        "mechanisms: {mixed_precision: {base: rtn3, higher: rtn2, extra_bits: 0.25}}",
        ["mixed_precision.higher is rtn2 with 2 bits, the base has 3", "or full"],
    ),
    "a downstream task that is none": (
        "downstream: {q: {task: triviaqa, shots: 5}}",
        ["study.yaml:1: downstream.q.task is 'triviaqa'; write popqa, mmlu or the path of a task"],
    ),
    "a task file that is not there": (
        "downstream: {q: {task: tasks/q.yaml, shots: 5}}",
        ["study.yaml:1: downstream.q.task cannot be used: tasks/q.yaml does not exist; write"],
    ),
    "a downstream task without shots": (
        "downstream: {q: {task: mmlu}}",
        ["downstream.q.shots is missing", "`shots: 15`"],
    ),
    "too few items for buckets": (
        "downstream: {q: {task: popqa, shots: 5, limit: 39}}",
        ["study.yaml:1: downstream.q.limit is 39, too few for buckets by popularity; write 40"],
    ),
    "answers of a method that is not there": (
        "downstream: {q: {task: mmlu, shots: 5, methods: [rtn9]}}",
        ["downstream q.methods has 'rtn9', which is no method of this study; write some of gptq2"],
    ),
    "a classifier that is not there": (
        "topics: {source: path:nowhere}",
        ["study.yaml:1: topics.source cannot be used: path:nowhere does not exist"],
    ),
    "an embedded classifier": (
        "topics: {source: demo}",
        ["topics.source", "'demo' is not a known source; write hub:<repo>@<revision> or path:"],
    ),
    "a classifier that is a language model": (
        "topics: {source: path:resources/demo/model}",
        ["topics.source cannot be used: resources/demo/model is no classifier of texts"],
    ),
    "a key twice": ("seed: 1\nseed: 2", ["study.yaml:2: seed stands twice"]),
    "no mapping": ("- 1", ["study.yaml must be a mapping"]),
    "no YAML": ("a: [1", ["study.yaml is not valid YAML"]),
}


@pytest.mark.parametrize(("changes", "expected"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_told_with_its_key_and_what_to_write(
    project: Path, changes: str, expected: list[str]
) -> None:
    told = message(changes)
    for part in expected:
        assert part in told


def test_all_mistakes_are_told_at_once_and_only_these(project: Path) -> None:
    told = message("seed: x\nengine: {threads: 0, xyz: 1}")
    assert len(told.splitlines()) == 4  # the heading and one line per mistake


def test_axis_0_groups_must_divide_the_outputs(project: Path) -> None:
    hqq = "{quantizer: hqq, bits: 3, group_size: %d, axis: %d}"
    load(f"methods: {{{METHOD}, x: {hqq % (32, 0)}}}")
    told = message(f"methods: {{{METHOD}, x: {hqq % (64, 0)}}}")
    assert "64, which does not divide" in told


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: (d / "config.json").unlink(), "it has no config.json"),
        (lambda d: (d / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda d: (d / "model.safetensors").rename(d / "model.bin"), "only pickle weights"),
        (lambda d: (d / "config.json").write_text('{"architectures": ["X"]}'), "X is not known"),
    ],
)
def test_a_model_that_cannot_be_used_is_told_before_any_job(
    project: Path, llama_directory: Path, damage: Any, expected: str
) -> None:
    damage(llama_directory)
    told = message(f"models: {{m: {{source: 'path:{llama_directory}'}}}}")
    assert "models.m.source cannot be used" in told
    assert expected in told


def test_a_missing_study_file_is_told(project: Path) -> None:
    with pytest.raises(InputError, match=r"there is no config file config/none\.yaml"):
        load_study(Path("config.yaml"), Path("config/none.yaml"))
