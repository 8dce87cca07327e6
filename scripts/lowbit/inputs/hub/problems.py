"""What goes wrong between here and the hub: one line each that says what to do."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from lowbit.errors import InputError
from lowbit.inputs.hub.address import MODEL, Address

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

WAITS = (1.0, 2.0, 4.0)
"""Seconds before the second, third and last try."""
LONGEST_WAIT = 60.0
"""Seconds that are waited at most where the hub says how long."""
SAME_COMMAND = "run the same command again: what was downloaded is kept"

Result = TypeVar("Result")


class NotThere(InputError):
    """A repository, revision or file is gone, or the hub has trouble; a copy elsewhere would do."""


class Unreachable(InputError):
    """There is no way to the hub: whatever else is there cannot be had either."""


def retried(call: Callable[[], Result], rate_limits: bool = True) -> Result:
    """Call; call again, after a pause, where the hub or the network has passing trouble.

    Args:
        call: one request.
        rate_limits: also where the hub wants fewer requests; not where `call` itself waits then.
    """
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError

    for wait in WAITS:
        try:
            return call()
        except TransportError:
            pass
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status < 500 and not (status == 429 and rate_limits):
                raise
            wait = max(wait, min(seconds_to_wait(error), LONGEST_WAIT))
        time.sleep(wait)
    return call()


def seconds_to_wait(error: "HfHubHTTPError") -> float:
    """What the hub asks for in `Retry-After` or `RateLimit`; 0 where it does not say."""
    from huggingface_hub.utils import parse_ratelimit_headers

    headers = error.response.headers
    after = headers.get("Retry-After", "")
    limit = parse_ratelimit_headers(headers)
    return float(after) if after.isdigit() else float(limit.reset_in_seconds if limit else 0)


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn what huggingface_hub raises into an `InputError` about this address.

    What the server wrote is left out: it could repeat what it was sent, the token included.
    """
    from httpx2 import TransportError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    kind: type[InputError] = InputError
    try:
        yield
    except OfflineModeIsEnabled:
        kind = NotThere
        told = (
            f"is not whole in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to "
            "ask the hub; unset HF_HUB_OFFLINE, or fill that cache where there is a network"
        )
    except HfHubHTTPError as error:
        told = _refusal(error, address)
        kind = NotThere if _is_gone(error) else InputError
    except (TransportError, ConnectionError) as error:
        kind = Unreachable
        told = (
            f"cannot be reached at {constants.ENDPOINT} ({type(error).__name__}); check the "
            f"network and its proxy, then {SAME_COMMAND}. Without a network, fill the cache "
            f"{constants.HF_HUB_CACHE} elsewhere and set HF_HUB_OFFLINE=1"
        )
    except json.JSONDecodeError:
        told = (
            f"was asked for at {constants.ENDPOINT}, which did not answer as a hub does; check "
            "HF_ENDPOINT, and whether the network wants a login first"
        )
    else:
        return
    raise kind(f"{address} {told}") from None


def _is_gone(error: "HfHubHTTPError") -> bool:
    """Whether an answer says that something is not there, or that nobody is; not that it is denied.

    Where nobody is logged in, the hub says 401 of a repository that it does not have.
    """
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return False
    status = error.response.status_code
    known = isinstance(error, DisabledRepoError | RepositoryNotFoundError)
    return known or status in (404, 410) or status >= 500


def _refusal(error: "HfHubHTTPError", address: Address) -> str:
    """What to do about an answer that is an error."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{address.repository}"
    status = error.response.status_code
    kind = "model" if address.kind == MODEL else "data set"
    if isinstance(error, DisabledRepoError):
        return f"has been disabled by its owner or the hub; see {page}"
    if isinstance(error, GatedRepoError) or status == 403:
        return _not_admitted(page, bool(get_token()))
    if isinstance(error, RevisionNotFoundError):
        return f"has no such revision; write a branch, tag or commit that {page} has"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"has no such revision, file or folder; see {page}/tree/main"
    if isinstance(error, RepositoryNotFoundError) or (status == 401 and not get_token()):
        return (
            f"is not there: {constants.ENDPOINT} has no {kind} {address.repo}, or it is private. "
            "Check the name, or set HF_TOKEN to a token of an account that may read it"
        )
    if status == 401:
        return (
            "was refused: the hub does not know the token that it was sent; set HF_TOKEN to one "
            "that is still valid and may read, or unset it for what is public"
        )
    if status == 429:
        seconds = seconds_to_wait(error)
        wait = f"{seconds:.0f} seconds" if seconds else "some minutes"
        account = "" if get_token() else " With HF_TOKEN set, more is allowed."
        return (
            "was refused because a rate limit or quota is used up (429); wait "
            f"{wait}, then {SAME_COMMAND}.{account}"
        )
    if status >= 500:
        return f"failed because of trouble at {constants.ENDPOINT} ({status}); {SAME_COMMAND}"
    return f"was refused by {constants.ENDPOINT} ({status}); see {page}"


def _not_admitted(page: str, has_token: bool) -> str:
    if has_token:
        return (
            f"may not be read with the token in use: accept the licence at {page} with the account "
            "that the token belongs to (and wait to be admitted where the owner decides), or set "
            f"HF_TOKEN to a token of an account that may read it; then {SAME_COMMAND}"
        )
    return (
        f"may be read only once its licence is accepted: do so at {page}, make a token that may "
        f"read, and set HF_TOKEN to it; then {SAME_COMMAND}"
    )
