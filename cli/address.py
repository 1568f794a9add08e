"""Which fleet a command talks to."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cyclopts import Parameter

from cli.output import OutputFormat, Shown
from hivefold.errors import InvalidRequestError

if TYPE_CHECKING:
    from hivefold.client import Fleet

DEFAULT_DIRECTORY: Final = Path(".hivefold")
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Target(Shown):
    """How a command prints, and which fleet it talks to."""

    output: OutputFormat = "text"
    """What is printed: text for people, json (one document) or jsonl (one line each) for programs."""
    address: str | None = None
    """The coordinator, host:port. Else HIVEFOLD_ADDRESS, else the fleet that `hivefold up` runs in --dir."""
    dir: Path | None = None
    """Directory of a local fleet. Else HIVEFOLD_DIR, else ./.hivefold."""

    @property
    def directory(self) -> Path:
        """Where the local fleet would be."""
        return self.dir or Path(os.environ.get("HIVEFOLD_DIR") or DEFAULT_DIRECTORY)

    def coordinator(self) -> str:
        """The coordinator's address. Raises InvalidRequestError, or UnavailableError when there is no fleet."""
        from hivefold.client.connection import locator

        address = locator(self.address, self.dir)()
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise InvalidRequestError(f"{address!r} is no address: give host:port, e.g. 127.0.0.1:7400")
        return address

    def connect(self) -> Fleet:
        """A client of the fleet, for `async with`. Raises as `coordinator`."""
        from hivefold.client import connect

        self.coordinator()
        return connect(self.address, directory=self.dir)

    def ask(self, question: Callable[[Fleet], Awaitable[_Answer]]) -> _Answer:
        """What `question` answers, given a client of the fleet; traced where `OTEL_*` asks for it."""
        from hivefold import observe
        from hivefold.version import VERSION

        async def answer() -> _Answer:
            async with self.connect() as fleet:
                return await question(fleet)

        telemetry = observe.start_telemetry("hivefold-cli", f"{os.getpid()}", VERSION)
        try:
            with observe.span(_command()):
                return asyncio.run(answer())
        finally:
            telemetry.shutdown()


def _command() -> str:
    """The command without its arguments, as "hivefold job submit": names the span."""
    words = takewhile(lambda token: not token.startswith("-"), sys.argv[1:])
    return " ".join(["hivefold", *islice(words, 2)])


async def listed(items: AsyncIterator[_Item]) -> list[_Item]:
    """All items of a list call."""
    return [item async for item in items]
