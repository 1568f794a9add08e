"""`hivefold log restore`: the log of a fleet, or a segment of it, put back from its mirror or a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from cli.log.mirror import open_mirror, speak_of_trouble_only
from cli.output import Shown, facts, note, show_one
from cli.progress import Bar
from hivefold.errors import ConfigError, InvalidRequestError, NotFoundError
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from hivefold.broker import BrokerSettings
    from hivefold.log.file import LogFileReader
    from hivefold.log.mirror import MirroredLog
    from hivefold.log.stream import LogSettings


def restore(
    file: Path | None = None,
    *,
    mirror: Annotated[bool, Parameter(negative=())] = False,
    segment: PositiveInt | None = None,
    dir: Path | None = None,  # noqa: A002 - the option's name
    config: Path | None = None,
    shown: Shown = Shown(),  # noqa: B008 - frozen
) -> None:
    """Put the log back from its mirror, or from a file: after a disk was lost, or onto a new server.

    The copy is verified first. No coordinator may run meanwhile. Without --segment the server's log must be empty, or
    hold the beginning of the same log. Work, results and stored data are not in a copy: back up the server's streams
    for those. Nodes that saw records which the copy lacks refuse the log until they are told to trust it anew.

    Parameters
    ----------
    file
        The log file: an export, or the archive of the segment.
    mirror
        Take the mirror instead, in the account AUDIT.
    segment
        Put back only this segment, whatever the server has of it; the others stay as they are.
    dir
        Directory of the local fleet that gets the log. Else HIVEFOLD_DIR, else ./.hivefold.
    config
        A coordinator's configuration file instead: its server gets the log, its table [audit] names the mirror.
    """
    if (file is None) == (not mirror):
        raise InvalidRequestError("a file or --mirror: name one of them")
    speak_of_trouble_only()
    place = _Place(dir or Path(os.environ.get("HIVEFOLD_DIR") or ".hivefold"), config)
    first, last = asyncio.run(_restore(place, file, segment))
    source = str(file) if file is not None else "mirror"
    found = {"source": source, "firstSequence": str(first), "lastSequence": str(last)}
    show_one(shown, found, lambda: facts([("restored", f"records {first} to {last} from {file or 'the mirror'}")]))
    note("start the fleet, then compare with: hivefold log replay")


@dataclass(frozen=True, slots=True)
class _Place:
    """The local fleet, or the coordinator's configuration, whose server gets the log."""

    directory: Path
    config: Path | None


@dataclass(frozen=True, slots=True)
class _Ends:
    """Connections to the log's account and, where there is one, to the mirror's."""

    core: BrokerSettings
    audit: BrokerSettings | None
    log: LogSettings


async def _restore(place: _Place, file: Path | None, segment: int | None) -> tuple[int, int]:
    """Gives the first and the last position that were put back."""
    from hivefold.log.file import LogFileReader

    async with _ends(place) as ends, AsyncExitStack() as stack:
        copy: LogFileReader | MirroredLog
        if file is not None:
            copy = stack.enter_context(LogFileReader(file))
        elif ends.audit is not None:
            copy = (await stack.enter_async_context(open_mirror(ends.audit))).log
        else:
            raise ConfigError("the configuration has no table [audit]: there is no mirror to restore from")
        if segment is not None:
            return await _restore_segment(ends, copy, segment)
        return 1, await _restore_all(ends, copy)


async def _restore_all(ends: _Ends, copy: ReadableLog) -> int:
    from coordinator.replay import replay
    from hivefold import limits
    from hivefold.bus.connection import connect
    from hivefold.log.jetstream import open_log
    from hivefold.log.restoring import restore as put_back

    last = (await copy.head()).sequence
    with Bar("verify", "records") as bar:
        await replay(copy, up_to=last, progress=lambda position: bar.update(position, last))
    log = await open_log(await connect(ends.core, wait_s=limits.BROKER_START_S), ends.log)
    try:
        with Bar("restore", "records") as bar:
            return (await put_back(log, copy, bar.update)).sequence
    finally:
        await log.close()


async def _restore_segment(ends: _Ends, copy: LogFileReader | MirroredLog, number: int) -> tuple[int, int]:
    from hivefold import limits
    from hivefold.bus.connection import connect
    from hivefold.log.mirror import MirroredLog
    from hivefold.log.segment_restoring import Span, restore_segment

    if isinstance(copy, MirroredLog):
        mirrored = {each.number: each for each in copy.segments}
        if number not in mirrored:
            raise NotFoundError(f"the mirror has no segment {number}")
        held = Span(number, mirrored[number].first, mirrored[number].last)
    else:
        held = Span(number, copy.header.first_sequence, copy.end.last_sequence)
    link = await connect(ends.core, wait_s=limits.BROKER_START_S)
    try:
        with Bar("restore", "records") as bar:
            span = await restore_segment(link, ends.log, copy, held, bar.update)
    finally:
        await link.close()
    return span.first, span.last


@asynccontextmanager
async def _ends(place: _Place) -> AsyncIterator[_Ends]:
    """Where the server is that the configuration names, or the local fleet's own, started for this."""
    from cli.local.layout import Layout, owned
    from hivefold.config import load_coordinator_config
    from hivefold.log.stream import LogSettings
    from hivefold.server.embedded import EmbeddedServer

    if place.config is not None:
        named = load_coordinator_config({}, os.environ, place.config)
        yield _Ends(named.core, named.audit, LogSettings(replicas=named.log_replicas, max_bytes=named.log_max_bytes))
        return
    layout = Layout(place.directory)
    layout.make()
    with owned(place.directory):
        server = await EmbeddedServer(layout.nats).start()
        try:
            yield _Ends(server.core, server.auditor, LogSettings())
        finally:
            await server.stop()
