"""Run a script's command line inside the test process, where heavy imports are paid for once."""

import contextlib
import io
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run_script(name: str, folder: Path, *arguments: object) -> str:
    """Run `scripts/<name>` in `folder`; return its error message, or "" where it succeeded."""
    argv = [name, *map(str, arguments)]
    errors = io.StringIO()
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.chdir(folder),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(os.fspath(SCRIPTS / name), run_name="__main__")
        except SystemExit as stop:
            return str(stop.code)
    return ""
