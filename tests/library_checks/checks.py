"""Run the checks of one environment in one process: its libraries take long to import."""

import json
import traceback
from collections.abc import Callable, Mapping


def run_checks(checks: Mapping[str, Callable[[], None]]) -> None:
    """Run every check, and print as the last line what went wrong in each (JSON; "" if nothing)."""
    outcomes = {}
    for name, check in checks.items():
        try:
            check()
            outcomes[name] = ""
        except Exception:  # whatever it is, it is this check's outcome and not the next one's
            outcomes[name] = traceback.format_exc()
    print(json.dumps(outcomes))
