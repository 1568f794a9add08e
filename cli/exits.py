"""Exit codes of every command. Programs rely on them: they never change."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from hivefold.errors import ConfigError, HivefoldError, InvalidRequestError, NotFoundError, Reason, UnavailableError


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    FAILED = 1
    """The command could not be carried out."""
    USAGE = 2
    """The arguments or the configuration are not acceptable, here or to the fleet."""
    NOT_FOUND = 3
    """The job, node or model does not exist."""
    UNAVAILABLE = 4
    """No fleet answers, or not in time; the same command may succeed later."""
    JOB_UNSUCCESSFUL = 5
    """The job that was waited for failed or was cancelled."""
    INTERRUPTED = 130
    """Ctrl-C."""


_BY_REASON: Final = {
    Reason.DEADLINE_EXCEEDED: Exit.UNAVAILABLE,
    Reason.MODEL_NOT_FOUND: Exit.NOT_FOUND,
    Reason.JOB_NOT_FOUND: Exit.NOT_FOUND,
    Reason.NODE_NOT_FOUND: Exit.NOT_FOUND,
    Reason.BLOB_NOT_FOUND: Exit.NOT_FOUND,
}


def exit_for(error: HivefoldError) -> Exit:
    """The exit code of a command that ended with `error`."""
    match error:
        case NotFoundError():
            return Exit.NOT_FOUND
        case UnavailableError():
            return Exit.UNAVAILABLE
        case InvalidRequestError() | ConfigError():
            return Exit.USAGE
        case _:
            return _BY_REASON.get(error.reason, Exit.FAILED)
