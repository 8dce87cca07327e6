"""Check an RO-Crate against the profile Workflow Run Crate: rocrate-validator, no network."""

import io
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
from requests_cache import CachedSession
from rocrate_validator.models import Severity
from rocrate_validator.services import ValidationSettings, validate
from urllib3 import HTTPResponse

PROFILE = "workflow-run-crate"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
"""What a crate's own terms mean; the package rocrate brings it along."""


def problems(crate: Path, severity: str = "REQUIRED") -> list[str]:
    """What the profile requires and the crate does not have; empty if it conforms.

    Args:
        crate: folder or `.zip`.
        severity: `REQUIRED`, or `RECOMMENDED` for what it should have as well.
    """
    with TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        remember_context(cache)
        settings = ValidationSettings(
            rocrate_uri=str(crate),
            profile_identifier=PROFILE,
            requirement_severity=Severity[severity],
            offline=True,
            cache_path=cache,
        )
        issues = validate(settings).get_issues()
    return [
        f"{issue.check.identifier}: {issue.message} ({issue.violatingEntity})" for issue in issues
    ]


def remember_context(cache: Path) -> None:
    """Put the context into the validator's cache of web pages, as if it had been fetched."""
    content = (files("rocrate") / "data" / "ro-crate.jsonld").read_bytes()
    headers = {"Content-Type": "application/ld+json"}
    raw = HTTPResponse(
        io.BytesIO(content), headers, 200, preload_content=False, request_url=CONTEXT
    )
    request = requests.Request("GET", CONTEXT).prepare()
    with CachedSession(str(cache), backend="sqlite") as session:
        response = requests.adapters.HTTPAdapter().build_response(request, raw)
        session.cache.save_response(response)
