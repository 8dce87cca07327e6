"""Pack a finished study as a Workflow Run RO-Crate; `make crate` runs it.

The crate holds the workflow, the study's tables and figures, the records of what they were made
from, and the locks of all environments, each file with its hash. Models, weights, tokens and scores
are too large to be packed: they stand in the packed `provenance.json` with their hashes.

Source: Workflow Run RO-Crate 0.5, https://w3id.org/ro/wfrun/workflow/0.5.
"""

import argparse
import mimetypes
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rocrate.model import ContextEntity, Entity, File
from rocrate.rocrate import ROCrate

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))  # Python put only this file's folder there

from lowbit.errors import GateError, InputError, run  # noqa: E402
from lowbit.files import atomic, read_json, sha256  # noqa: E402
from study.records.crate_check import problems  # noqa: E402

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
HASH = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
"""A term of the profile that the context of RO-Crate 1.1 does not have."""
SOURCES = (
    *("Makefile", "README.md", "CITATION.cff", "LICENSE", "config.yaml", "rules/*.smk"),
    *("scripts/**/*.py", "envs/*.yaml", "envs/standin/**/*", "claims/*.yaml", "report/*.rst"),
    *("profiles/*/*.yaml", "config/sources.yaml", "resources/tasks/*.yaml"),
)
"""What the workflow consists of, beside its Snakefile; the embedded model is in the repository."""
TYPES = {".parquet": "application/vnd.apache.parquet", ".md": "text/markdown"}
"""Media types that Python's own table lacks."""
STATUS = {"finished": "CompletedActionStatus", "failed": "FailedActionStatus"}


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--study", type=Path, required=True, help="study file; the study is finished"
    )
    parser.add_argument("--person", help="who ran it: a name")
    parser.add_argument("--orcid", default="#person", help="and an ORCID: https://orcid.org/...")
    return parser.parse_args()


def main() -> None:
    """Read the record, describe, write."""
    arguments = parse_arguments()
    results = Path("results", study_name(arguments.study))
    record = read_record(results / "provenance.json", arguments.study)
    agent = {"@id": arguments.orcid, "name": arguments.person} if arguments.person else None
    crate = describe(record, results, agent)
    with atomic(results / "crate.zip") as partial, TemporaryDirectory(dir=results) as folder:
        archive = Path(crate.write_zip(Path(folder, "crate.zip")))
        if found := problems(archive):
            raise GateError("the crate does not conform to its profile:\n" + "\n".join(found))
        archive.replace(partial)
    print(f"{results}/crate.zip: {len(crate.data_entities)} files, checked against the profile")
    for file in naming_home(record):
        print(f"note: {file} in it names {Path.home()}; look at it before you publish the crate")


def study_name(file: Path) -> str:
    """Name of the study in a file, which takes the default's where it states none."""
    named = (yaml.safe_load(each.read_bytes()) or {} for each in (file, Path("config.yaml")))
    return next(content["study"] for content in named if "study" in content)


def read_record(path: Path, study: Path) -> dict[str, Any]:
    """The study's `provenance.json`.

    Raises:
        InputError: the study is not finished, or a result is not what it was.
    """
    again = f"run `make study STUDY={study}`"
    anew = f"{again}; if it says that nothing is to be done, with ARGS='--forcerun write_config'"
    if not path.exists():
        raise InputError(f"there is no {path}: {anew}")
    record = read_json(path)
    if not record.get("complete"):
        # So says a run of a part of the study, too, which may have left nothing to be done.
        raise InputError(f"{path} says that the study is not finished: {anew}")
    for file, result in record["results"].items():
        if is_packed(file, record) and sha256(file) != result["sha256"]:
            raise InputError(f"{file} is not the file that the study made: remove it and {again}")
    return record


def is_packed(file: str, record: Mapping[str, Any]) -> bool:
    """Whether a result is packed: the study's own, and the records of what studies share."""
    own = file.startswith(f"results/{record['study']}/") or file.endswith(".json")
    return own and record["results"][file]["sha256"] is not None


def naming_home(record: Mapping[str, Any]) -> list[str]:
    """The packed results in which the path of the user's home directory stands."""
    home = f"{Path.home()}/".encode()
    packed = [file for file in record["results"] if is_packed(file, record)]
    return [file for file in packed if home in Path(file).read_bytes()]


def describe(record: Mapping[str, Any], results: Path, agent: Mapping[str, str] | None) -> ROCrate:
    """Everything that the crate says.

    Args:
        record: content of `provenance.json`.
        results: folder of the study's results.
        agent: `@id` and `name` of who ran the study.
    """
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(HASH)
    crate.name = f"Study {record['study']} of low-bit quantization"
    crate.description = (
        "A run of a Snakemake workflow that measures which inputs break low-bit quantization of "
        "language models: its tables and figures, and where they come from."
    )
    crate.license = add(crate, "CreativeWork", "https://spdx.org/licenses/MIT", name="MIT License")
    crate.root_dataset["conformsTo"] = [
        add(crate, "CreativeWork", profile, name=name, version=profile.rpartition("/")[2])
        for profile, name in PROFILES.items()
    ]
    if agent:
        crate.root_dataset["author"] = add(crate, "Person", agent["@id"], name=agent["name"])
    files = {
        file: add_file(crate, Path(file), dateModified=seconds(result["made"]))
        for file, result in record["results"].items()
        if is_packed(file, record)
    }
    add_file(crate, results / "provenance.json", description="Where every result comes from.")
    workflow = add_workflow(crate, record)
    inputs = add_inputs(crate, record, workflow, files[f"{results}/config.resolved.yaml"])
    for name in ("summary.md", "claims.csv"):
        parameter(crate, workflow, "output", name, files[f"{results}/{name}"])
    for name, made in record["runs"].items():
        results_of_run = [files[f] for f in files if record["results"][f]["run"] == name]
        action = add_run(crate, workflow, made, inputs, results_of_run)
        if agent:
            action["agent"] = {"@id": agent["@id"]}
    return crate


def add(crate: ROCrate, kind: str, identifier: str, **properties: Any) -> Entity:
    """Add an entity that is no file of the crate."""
    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))


def add_file(crate: ROCrate, path: Path, **properties: Any) -> File:
    """Add a file of this folder under the path that it has here."""
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path)[0] or "text/plain"
    described = {
        "name": path.name,
        "contentSize": str(path.stat().st_size),
        "encodingFormat": kind,
        "sha256": sha256(path),
    }
    return crate.add_file(path, dest_path=path.as_posix(), properties=described | properties)


def add_workflow(crate: ROCrate, record: Mapping[str, Any]) -> Entity:
    """Add the Snakefile, everything it consists of, and the locks of its environments."""
    last = record["runs"][record["last_run"]]
    citation = yaml.safe_load(Path("CITATION.cff").read_bytes())
    maintainers = citation["authors"][0]["name"]
    workflow = crate.add_workflow(
        "Snakefile",
        "Snakefile",
        main=True,
        lang="snakemake",
        lang_version=last["snakemake"],
        properties={
            "name": citation["title"],
            "description": citation["abstract"],
            "license": {"@id": crate.license.id},
            "conformsTo": {
                "@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
            },
            "encodingFormat": "text/plain",
            "sha256": sha256("Snakefile"),
        },
    )
    workflow["creator"] = add(crate, "Organization", "#maintainers", name=maintainers)
    if last["code"]["commit"]:
        workflow["version"] = last["code"]["commit"] + ("-dirty" if last["code"]["dirty"] else "")
    workflow["hasPart"] = [add_file(crate, file) for file in sources()]
    crate.get("README.md")["about"] = {"@id": "./"}
    workflow["softwareRequirements"] = [
        add_file(crate, Path(lock), description="All packages of an environment, with hashes.")
        for lock in record["environments"]
    ]
    return workflow


def sources() -> Iterator[Path]:
    """The files of the workflow."""
    found = {file for pattern in SOURCES for file in Path().glob(pattern) if file.is_file()}
    return (file for file in sorted(found) if "__pycache__" not in file.parts)


def add_inputs(
    crate: ROCrate, record: Mapping[str, Any], workflow: Entity, config: Entity
) -> list[Entity]:
    """Add what the study was given: its config, and which models and texts that names."""
    parameter(crate, workflow, "input", "config", config)
    models = {f"models.{name}": origin for name, origin in record["models"].items()}
    if record["classifier"]:
        models["topics"] = record["classifier"]
    inputs = [config]
    for key, origin in {**models, **record["documents"]}.items():
        source, commit = origin["source"], origin["commit"] or ""
        given = source if commit in source else f"{source} at commit {commit}"
        value = add(crate, "PropertyValue", f"#given-{key}", name=key, value=given)
        parameter(crate, workflow, "input", key, value)
        inputs.append(value)
    return inputs


def parameter(crate: ROCrate, workflow: Entity, direction: str, name: str, example: Entity) -> None:
    """Add a formal input or output of the workflow and say what stood there in this run."""
    kind = "File" if isinstance(example, File) else "Text"
    formal = crate.add_formal_parameter(name, kind, identifier=f"#{direction}-{name}")
    workflow.append_to(direction, formal, compact=True)
    example["exampleOfWork"] = formal


def add_run(
    crate: ROCrate,
    workflow: Entity,
    made: Mapping[str, Any],
    inputs: list[Entity],
    results: list[Entity],
) -> Entity:
    """Add a run of the workflow: when, on what, and the files it made.

    Args:
        made: an entry of `runs` in `provenance.json`.
        inputs: what the workflow was given.
        results: the packed files that this run made.
    """
    machine = made["machine"]
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    action = crate.add_action(
        workflow,
        object=inputs,
        result=results,
        properties={
            "name": f"Run of study {made['study']} from {seconds(made['started'])}",
            "description": f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_mib']} "
            f"MiB of memory, {gpus}; {machine['platform']}; seed {made['seed']}",
            "startTime": seconds(made["started"]),
        },
    )
    # A run that was killed has no end.
    status = STATUS.get(made["status"], "FailedActionStatus")
    action["actionStatus"] = f"http://schema.org/{status}"
    if made["ended"]:
        action["endTime"] = seconds(made["ended"])
    crate.root_dataset.append_to("mentions", action, compact=True)
    return action


def seconds(date: str) -> str:
    """A date as the profile wants it: `2026-01-01T12:00:00+00:00`."""
    return datetime.fromisoformat(date).isoformat(timespec="seconds")


if __name__ == "__main__":
    run(main)
