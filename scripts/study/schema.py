"""Write the JSON schemas of config and provenance: `python scripts/study/schema.py`."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))  # run by hand: Python put only this file's folder there

from lowbit.files import write_json  # noqa: E402
from study.config.methods import METHODS  # noqa: E402
from study.config.study import REPLACED_WHOLE, json_schema  # noqa: E402
from study.records.provenance import Provenance  # noqa: E402

SCHEMA = ROOT / "config" / "schema.json"
PROVENANCE_SCHEMA = ROOT / "scripts" / "study" / "records" / "provenance.schema.json"
DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schema() -> dict[str, Any]:
    """JSON schema of a study file, for editors and as documentation of every key.

    A study file holds only what differs from `config.yaml`, so nothing is required at the top or
    in a section that is merged.
    """
    schema = json_schema()
    schema.pop("required")
    for key, field in schema["properties"].items():
        if "$ref" in field and key not in REPLACED_WHOLE:
            schema["$defs"][field["$ref"].rsplit("/", 1)[1]].pop("required")
    for method in METHODS:
        schema["$defs"][method.__name__]["properties"]["bits"]["enum"] = list(method.BITS)
    return DIALECT | schema


def provenance_schema() -> dict[str, Any]:
    """JSON schema of `results/<study>/provenance.json`, which explains every key."""
    return DIALECT | Provenance.model_json_schema(mode="serialization")


if __name__ == "__main__":
    write_json(SCHEMA, schema())
    write_json(PROVENANCE_SCHEMA, provenance_schema())
