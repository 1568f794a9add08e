"""What the doctor says of a fleet."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.address import Target
from cli.doctor import fleet
from hivefold.errors import InvalidRequestError


async def test_an_address_that_is_none_is_not_taken_for_no_fleet() -> None:
    """Who names a coordinator wants to hear of that one."""
    with pytest.raises(InvalidRequestError, match="host:port"):
        await fleet(Target(address="nowhere"))


async def test_no_fleet_is_no_trouble(tmp_path: Path) -> None:
    """It says how to start one."""
    (found,) = await fleet(Target(dir=tmp_path))

    assert (found.verdict, found.advice) == ("note", "start one with: hivefold up")
