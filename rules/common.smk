"""What all rules share: the study, its paths, and the parameters that say when a job runs again.

Files of the repository (scripts, claims, captions) are no `input:`: their content enters as a digest
among the parameters, so a touched file or a fresh clone reruns nothing and a changed one reruns
exactly the stages that use it. Snakemake compares parameter values without their names; they are
therefore written as whole options (`--seed 0`), which cannot be taken for one another.

What studies share has a key over its content, and a source is only a name of it: two studies may
name the same model differently, `demo` and `path:resources/demo/model`. Names must not be compared,
or everything would run again whenever the other study does; see `not_compared`. A shared record
holds the name that the study had which made it.
"""

import json
import os
import re
import shlex

from lowbit.errors import InputError
from lowbit.files import link_directory, sha256
from lowbit.inputs.documents import pinned as pinned_documents
from lowbit.inputs.models import pinned
from lowbit.names import FULL
from study.config.archive import locate
from study.config.methods import Published
from study.config.sections import DEMO_MODEL
from study.config.study import load_study
from study.digest import code_digest, environment_digest
from study.paths import TOPIC_SETTINGS, paths_of, pattern
from study.records.runs import begin_run, end_run, place_jobs

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


def not_compared(name):
    """Parameter of a shared file's rule that Snakemake does not compare.

    It leaves out the functions that take `output`, as derived from what is compared anyway.
    """
    return lambda wildcards, output: name(wildcards)


def link_models():
    """Let `files` of each model or classifier that was fetched lead to where this study has it.

    Another study may have fetched the same content from a folder that has changed since, or is gone.
    """
    places = {PATHS.shared("model", model=name): place for name, place in OUTLINES.items()}
    if CLASSIFIER:
        places[PATHS.shared("classifier")] = CLASSIFIER
    for record, place in places.items():
        record = Path(record)
        if record.exists() and isinstance(place, Path):
            link_directory(record.parent / "files", place)


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


def reading_model(keyed):
    """The model whose tokenizer reads a table of documents; none where these are texts."""
    is_released = keyed == PATHS.documents and STUDY.documents.released
    return [PATHS.shared("model", model=model) for model in STUDY.models if is_released]


def document_options(keyed):
    """Options for which documents of a source are read, and how: its columns, empty ones."""
    _, settings, _ = DOCUMENT_SETS[keyed]
    options = {
        "--text-column": settings.text_column,
        "--id-column": settings.id_column,
        "--minimum": as_json(settings.minimum) if settings.minimum else None,
        "--candidates": settings.candidates,
        "--seed": str(STUDY.seed) if settings.candidates is not None else None,
    }
    return as_options(options) + (" --keep-empty" if settings.keep_empty else "")


def document_names(keyed):
    """Options for where content of this key is: its source, on the hub with the commit, and files."""
    key, settings, demo = DOCUMENT_SETS[keyed]
    found = locate(settings.source, demo)
    named = settings.source != found.source
    options = {
        "--source": pinned_documents(found.source, demo),
        "--demo": demo,
        "--key": key,
        "--ids": settings.ids_file(),
        "--sha256": found.sha256,
        "--named": as_json({"source": settings.source, "gone": found.passed_over}) if named else None,
    }
    return as_options(options)


def as_options(options):
    """Options as the shell reads them, without those that have no value."""
    return " ".join(f"{option} {shlex.quote(str(value))}" for option, value in options.items() if value)


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
    """Options that say how a downstream task is asked."""
    name = PATHS.plain_name(keyed)
    benchmark = STUDY.downstream[name]
    limit = f"--limit {benchmark.limit}" if benchmark.limit else ""
    return f"--name {name} --shots {benchmark.shots} {limit}"


def task_name(keyed):
    """Option for where a downstream task of this key is."""
    benchmark = STUDY.downstream[PATHS.plain_name(keyed)]
    file = benchmark.task_file()
    return as_options({"--task": benchmark.task if file is None else file.path})


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
