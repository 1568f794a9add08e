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

if TYPE_CHECKING:
    from hivefold.client import Fleet, Opening

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
    """The coordinator, host:port; several with commas between. Else HIVEFOLD_ADDRESS, else the fleet in --dir."""
    dir: Path | None = None
    """Directory of a local fleet. Else HIVEFOLD_DIR, else ./.hivefold."""

    @property
    def directory(self) -> Path:
        """Where the local fleet would be."""
        return self.dir or Path(os.environ.get("HIVEFOLD_DIR") or DEFAULT_DIRECTORY)

    def coordinators(self) -> tuple[str, ...]:
        """The coordinators' addresses. Raises InvalidRequestError, or UnavailableError when there is no fleet."""
        from hivefold.client.locating import locator

        return locator(self.address, self.dir)()

    def connect(self) -> Opening:
        """A client of the fleet, for `async with`. Raises as `coordinator`."""
        from hivefold.client import connect

        self.coordinators()
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
