"""Errors a user can act on, and how a script shows them."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """What the user gave cannot be used; the message says what to write or do instead."""


class GateError(Exception):
    """A check that runs in every job found wrong numbers; the message holds them."""


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; print a foreseen error or a full disk as one line and exit with 1.

    Every other exception is a defect of ours and keeps its traceback.
    """
    try:
        main()
    except (InputError, GateError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno != 28:  # ENOSPC
            raise
        sys.exit(
            f"error: no space left on the device while writing {error.filename or 'an output'}. "
            "Free some space and run the same command again: finished jobs are kept."
        )
