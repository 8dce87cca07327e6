"""What all rules share: the study, its paths, and the parameters that say when a job runs again.

Files of the repository (scripts, claims, captions) are no `input:`: their content enters as a digest
among the parameters, so a touched file or a fresh clone reruns nothing and a changed one reruns
exactly the stages that use it. Snakemake compares parameter values without their names; they are
therefore written as whole options (`--seed 0`), which cannot be taken for one another.
"""

import json
import os
import re
import shlex

from lowbit.errors import InputError
from lowbit.files import sha256
from lowbit.inputs.documents import pinned as pinned_documents
from lowbit.inputs.models import pinned
from lowbit.names import FULL
from study.config.archive import locate
from study.config.study import load_study
from study.digest import code_digest, environment_digest
from study.config.methods import Published
from study.paths import paths_of, pattern
from study.records.runs import begin_run, end_run, place_jobs
from study.config.sections import DEMO_MODEL

try:
    STUDY = load_study(
        Path("config.yaml"), *workflow.configfiles, overrides=workflow.config_settings.config
    )
    PATHS = paths_of(STUDY)
except InputError as error:
    sys.exit(f"error: {error}")

SHARED = "results/models/{model}"
"""Folder of what depends on a model alone; `{model}` is `<name>-<key>`."""
STUDY_FOLDER = f"results/{STUDY.study}"
TABLES = f"{STUDY_FOLDER}/{{model}}"
"""Folder of this study's results for one model; here `{model}` is the plain name."""
THREADS = STUDY.engine.threads
"""Of jobs that run a model or a quantizer; all others have one."""
MODEL_RESULTS = []
"""What all rules add to a model's results: its reported tables and figures, below `TABLES`."""

CLAIMS = sorted(Path("claims").glob("*.yaml"))
"""Files with the papers' claims."""

CLAIM_TABLES = []
"""Tables of a model's results (below `TABLES`) that claims are judged by, from optional stages."""

ANSWER_TABLES = []
"""The same that the summary tells of."""

COMPARED_TABLES = []
"""The same that models are compared by, in a study of several."""

STUDY_RESULTS = []
"""What rules add to the results over all models, below `STUDY_FOLDER`."""


wildcard_constraints:
    model="[^/]+",
    documents="[^/]+",
    tokens="[^/]+",
    calibration="[^/]+",
    method="[^/]+",
    residuals="[^/]+",
    evaluation="[^/]+",


# A job has one thread, whatever the machine has: threads change sums in the last bits. Jobs that run a
# model or a quantizer have those of the config, which they declare and give to PyTorch themselves.
# Threads sleep while they wait for each other (OpenMP would spin, and take the time of whatever else
# runs on the machine: several times slower). A job knows who runs it: what a killed run left is ended
# at the next start.
shell.prefix(
    "set -euo pipefail; export PYTHONNOUSERSITE=1 OMP_WAIT_POLICY=PASSIVE "
    f"OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 LOWBIT_HEAD={os.getpid()}; "
)

if workflow.is_main_process:
    print(f"study {STUDY.study}: results in {STUDY_FOLDER}/, first {STUDY_FOLDER}/summary.md", file=sys.stderr)
elif workflow.remote_exec:
    place_jobs(sys.argv[1:])


def code(script, environment, *modules):
    """Digest of a script, the modules it imports and its environment: a change reruns its rule."""
    digests = code_digest(Path("scripts", script), modules), environment_digest(Path("envs", f"{environment}.yaml"))
    return "-".join(digests)


def environment(name):
    """Path of a `conda:` file, from the folder of the rules."""
    return f"../envs/{name}.yaml"


def as_json(value):
    """One line of JSON, for an option."""
    return json.dumps(value, separators=(",", ":"))


METHODS = as_json({name: method.described() for name, method in STUDY.methods.items()})


def of_study(kind):
    """Input function: the shared file of this kind that belongs to a study's `{model}`."""
    return lambda wildcards: PATHS.shared(kind, model=wildcards.model)


PUBLISHED = [name for name, method in STUDY.methods.items() if isinstance(method, Published)]
"""Methods that are read from a published checkpoint."""


def fetched_checkpoint(wildcards):
    """Of a checkpoint on the hub, that it was fetched: nodes that read it may have no network."""
    method = PATHS.plain_name(wildcards.method)
    if not STUDY.methods[method].quantized.startswith("hub:"):
        return []
    return PATHS.shared("checkpoint", PATHS.plain_name(wildcards.model), method)


def implementations():
    """The study's own quantizers: (name of a rule, where it is implemented) -> its methods' names."""
    found = {}
    for name, method in STUDY.methods.items():
        if name in PUBLISHED:
            continue
        default = method.backend_name == next(iter(method.BACKENDS))
        parts = ["quantize", method.quantizer, *([] if default else [method.backend_name])]
        made_by = "_".join(parts).replace("-", "_")
        found.setdefault((made_by, method.implementation), []).append(name)
    return found


if workflow.is_main_process:
    for settings, demo in STUDY.texts().values():
        for gone, why in locate(settings.source, demo).passed_over.items():
            used = locate(settings.source, demo).source
            print(f"note: {settings.source} is read from {used}; {gone} is gone: {why}", file=sys.stderr)


def keyed_documents(key):
    """Keyed name of the table of documents of a section of texts."""
    section, *name = key
    if section == "documents":
        return PATHS.documents
    return getattr(PATHS, f"{section}_documents")[name[0]]


DOCUMENT_SETS = {
    keyed_documents(key): (".".join(key), settings, demo)
    for key, (settings, demo) in STUDY.texts().items()
}
"""Keyed name of a table of documents -> its section of the config, that section's content, and the
embedded file. Where sections share a table, the last here has it."""


def document_source(keyed):
    """Where a table of documents is from, on the hub with the commit."""
    _, settings, demo = DOCUMENT_SETS[keyed]
    return pinned_documents(locate(settings.source, demo).source, demo)


def reading_model(keyed):
    """The model whose tokenizer reads a table of documents; none where these are texts."""
    is_released = keyed == PATHS.documents and STUDY.documents.released
    return [PATHS.shared("model", model=model) for model in STUDY.models if is_released]


def document_options(keyed):
    """Options for how a document source is read: its columns, which documents, empty ones."""
    key, settings, demo = DOCUMENT_SETS[keyed]
    found, drawn = locate(settings.source, demo), settings.candidates is not None
    named = settings.source != found.source
    options = {
        "--key": key,
        "--text-column": settings.text_column,
        "--id-column": settings.id_column,
        "--minimum": as_json(settings.minimum) if settings.minimum else None,
        "--candidates": settings.candidates,
        "--seed": str(STUDY.seed) if drawn else None,
        "--ids": settings.ids_file(),
        "--sha256": found.sha256,
        "--named": as_json({"source": settings.source, "gone": found.passed_over}) if named else None,
    }
    keep_empty = ["--keep-empty"] if settings.keep_empty else []
    given = [f"{option} {shlex.quote(str(value))}" for option, value in options.items() if value]
    return " ".join([*given, *keep_empty])


def quantizer_call(method):
    """What `quantize.py` must know of a method."""
    settings = STUDY.methods[method]
    return {
        "quantizer": settings.quantizer,
        "backend": settings.backend_name,
        "settings": settings.settings(),
    }


def inside_calls(model):
    """What jobs that look inside a model know of each method: its record, and whose sets to use."""
    return [
        {
            "name": method,
            "record": PATHS.shared("method_record", model, method),
            "sets_of": STUDY.mechanisms.sets_of or method,
        }
        for method in STUDY.mechanism_methods()
    ]


def score_files(model):
    """What `score.py` is asked for: each method's record and the file for its scores."""
    return [
        {
            "name": name,
            "record": None if name == FULL else PATHS.shared("method_record", model, name),
            "scores": PATHS.shared("scores", model, name),
        }
        for name in PATHS.scores
    ]


def evaluation_files(model):
    """What `evaluate.py` is asked for: each method's record and the files for its scores by set."""
    return [
        {
            "name": name,
            "record": None if name == FULL else PATHS.shared("method_record", model, name),
            "scores": {
                each: PATHS.shared("evaluation_scores", model, name, evaluation=each)
                for each in STUDY.evaluation
            },
        }
        for name in PATHS.scores
    ]


def evaluation_sets(model):
    """Evaluation set -> its token rows."""
    return {
        name: PATHS.shared("evaluation_rows", model, evaluation=name) for name in STUDY.evaluation
    }


def on_sets(table):
    """Output of a rule that looks at evaluation sets beside the documents, where there are any."""
    return {"evaluation": f"{TABLES}/{table}"} if STUDY.evaluation else {}


def of_method(kind):
    """Input function: a file of the method in `{scores}`, none for the unquantized model."""

    def find(wildcards):
        method, model = PATHS.plain_name(wildcards.scores), PATHS.plain_name(wildcards.model)
        return [] if method == FULL else PATHS.shared(kind, model, method)

    return find


def task_options(keyed):
    """Options that say what a downstream task asks."""
    name = PATHS.plain_name(keyed)
    benchmark = STUDY.downstream[name]
    file = benchmark.task_file()
    limit = f"--limit {benchmark.limit}" if benchmark.limit else ""
    task = benchmark.task if file is None else file.path
    return f"--name {name} --task {shlex.quote(str(task))} --shots {benchmark.shots} {limit}"


def task_code(keyed):
    """Digest of a downstream task's script and of the modules that its file names functions of."""
    file = STUDY.downstream[PATHS.plain_name(keyed)].task_file()
    return code("downstream.py", "lm_eval", *(file.modules if file else ()))


def reported(file, category):
    """Mark a result for the HTML report; its caption is `report/<name>.rst`."""
    name, kind = Path(file).stem, "figure" if file.endswith("png") else "table"
    return report(
        file,
        caption=f"../report/{name}.rst",
        category=category,
        labels={"model": "{model}", "result": name, "kind": kind},
    )


def table(name, category):
    """Output of a rule: a table that the report shows. A finished study has it."""
    MODEL_RESULTS.append(f"{name}.csv")
    return reported(f"{TABLES}/{name}.csv", category)


def figure(name, category):
    """Outputs of a plotting rule: the PNG, which the report shows, and the SVG."""
    stem = f"figures/{name}"
    MODEL_RESULTS.extend([f"{stem}.png", f"{stem}.svg"])
    return [reported(f"{TABLES}/{stem}.png", category), f"{TABLES}/{stem}.svg"]


def over_models(name, ending, category):
    """Output of a rule: a table (csv) or figure (png, its svg apart) over all models of a study."""
    file = f"{name}.csv" if ending == "csv" else f"figures/{name}.{ending}"
    STUDY_RESULTS.append(file)
    if ending == "svg":
        return f"{STUDY_FOLDER}/{file}"
    kind = "table" if ending == "csv" else "figure"
    return report(
        f"{STUDY_FOLDER}/{file}",
        caption=f"../report/{name}.rst",
        category=category,
        labels={"model": "all models", "result": name, "kind": kind},
    )


def final_outputs():
    """Everything that a finished study has."""
    files = ["config.resolved.yaml", "claims.csv", "claims.md", "summary.md", "summary.html"]
    return [PATHS.result(file) for file in [*files, *STUDY_RESULTS]] + [
        PATHS.result(file, model) for model in STUDY.models for file in MODEL_RESULTS
    ]
