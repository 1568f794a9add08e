"""Where a fleet's coordinators are: given, in the environment, or written down by `hivefold up`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from hivefold.errors import InvalidRequestError, Reason, UnavailableError

Locate: TypeAlias = Callable[[], tuple[str, ...]]
"""Gives the addresses ("host:port") of the coordinators, the one that is thought to lead first."""

_DIRECTORY: Final = Path(".hivefold")
_START_ONE: Final = "start one with: hivefold up"


def locator(address: str | None, directory: Path | str | None) -> Locate:
    """What tells the coordinators' addresses, afresh at each call; `address` may hold several, with commas between."""
    if address is None and directory is None:
        address = os.environ.get("HIVEFOLD_ADDRESS") or None
    if address is not None:
        fixed = _addresses(address)
        return lambda: fixed
    place = Path(directory or os.environ.get("HIVEFOLD_DIR") or _DIRECTORY)
    return lambda: _local_coordinators(place)


def _addresses(text: str) -> tuple[str, ...]:
    """The addresses in a list. Raises InvalidRequestError."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for address in found or (text,):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise InvalidRequestError(f"{address!r} is no address: give host:port, e.g. 127.0.0.1:7400")
    return found


def _local_coordinators(directory: Path) -> tuple[str, ...]:
    path = directory / "endpoints.json"
    try:
        return _written(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UnavailableError(
            f"no fleet runs in {directory} ({path} does not exist); {_START_ONE}", reason=Reason.SERVER_UNAVAILABLE
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(
            f"{path} cannot be read ({error}); start the fleet again with: hivefold up",
            reason=Reason.SERVER_UNAVAILABLE,
        ) from error


def _written(plain: Any) -> tuple[str, ...]:
    """The coordinators of an endpoints.json, the leader first."""
    leader = str(plain["coordinator"])
    others = (str(coordinator["grpc"]) for coordinator in plain.get("coordinators", ()))
    return (leader, *(address for address in others if address != leader))
