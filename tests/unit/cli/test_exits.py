"""The exit codes of every command."""

from __future__ import annotations

import pytest

from cli.exits import Exit, exit_for
from hivefold import errors
from hivefold.errors import HivefoldError, Reason

TABLE = [
    (errors.InvalidRequestError("x"), Exit.USAGE),
    (errors.NotFoundError("x", reason=Reason.JOB_NOT_FOUND), Exit.NOT_FOUND),
    (errors.UnavailableError("x"), Exit.UNAVAILABLE),
    (errors.BrokerUnavailableError("x"), Exit.UNAVAILABLE),
    (errors.NotLeaderError("x"), Exit.UNAVAILABLE),
    (errors.LogFullError("x"), Exit.UNAVAILABLE),
    (errors.ConflictError("x"), Exit.FAILED),
    (errors.DataRefusedError("x"), Exit.FAILED),
    (errors.LimitExceededError("x"), Exit.FAILED),
    (errors.ConfigError("x"), Exit.USAGE),
    (errors.DurabilityWeakError("x"), Exit.USAGE),
    (errors.LogCorruptError("x", position=1), Exit.FAILED),
    (HivefoldError("x", reason=Reason.DEADLINE_EXCEEDED), Exit.UNAVAILABLE),
    (HivefoldError("x", reason=Reason.MODEL_NOT_FOUND), Exit.NOT_FOUND),
    (HivefoldError("x", reason=Reason.INTERNAL), Exit.FAILED),
]


@pytest.mark.parametrize(("error", "code"), TABLE, ids=lambda value: str(getattr(value, "name", type(value).__name__)))
def test_each_error_has_its_exit_code(error: HivefoldError, code: Exit) -> None:
    """An error of one kind always ends in the same exit code."""
    assert exit_for(error) is code


def test_the_codes_never_change() -> None:
    """Scripts rely on these numbers."""
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "UNAVAILABLE": 4,
        "JOB_UNSUCCESSFUL": 5,
        "INTERRUPTED": 130,
    }
