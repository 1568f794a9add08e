"""`hivefold log restore`: the log of a fleet, put back from a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli import words
from cli.output import Shown, facts, note, show_one
from cli.progress import Bar

if TYPE_CHECKING:
    from hivefold.log.port import EventLog, Head


def restore(
    file: Path,
    *,
    dir: Path | None = None,  # noqa: A002 - the option's name
    config: Path | None = None,
    shown: Shown = Shown(),  # noqa: B008 - frozen
) -> None:
    """Put the log back from a file that `hivefold log export` wrote: after a disk was lost, or onto a new server.

    The file is verified first. No coordinator may run meanwhile, and the server's log must be empty, or hold the
    beginning of the same log. Work, results and stored data are not in the file: back up the server's streams for
    those. Nodes that saw records which the file lacks refuse the log until they are told to trust it anew.

    Parameters
    ----------
    file
        The log file.
    dir
        Directory of the local fleet that gets the log. Else HIVEFOLD_DIR, else ./.hivefold.
    config
        A coordinator's configuration file instead: its server gets the log.
    """
    head = asyncio.run(_restore(file, dir or Path(os.environ.get("HIVEFOLD_DIR") or ".hivefold"), config))
    found = {"file": str(file), "lastSequence": str(head.sequence)}
    show_one(shown, found, lambda: facts([("restored", f"{words.count(head.sequence)} records from {file}")]))
    note("start the fleet, then compare with: hivefold log replay")


async def _restore(file: Path, directory: Path, config: Path | None) -> Head:
    from coordinator.replay import replay
    from hivefold.log.file import LogFileReader
    from hivefold.log.restoring import restore as put_back

    with LogFileReader(file) as copy:
        last = (await copy.head()).sequence
        with Bar("verify", "records") as bar:
            await replay(copy, up_to=last, progress=lambda position: bar.update(position, last))
        async with _log_of(directory, config) as log:
            with Bar("restore", "records") as bar:
                return await put_back(log, copy, bar.update)


@asynccontextmanager
async def _log_of(directory: Path, config: Path | None) -> AsyncIterator[EventLog]:
    """The log on the server that the configuration names, or on the local fleet's own, started for this."""
    from cli.local.layout import Layout, owned
    from hivefold import limits
    from hivefold.bus.connection import connect
    from hivefold.config import load_coordinator_config
    from hivefold.log.jetstream import open_log
    from hivefold.log.stream import LogSettings
    from hivefold.server.embedded import EmbeddedServer

    if config is not None:
        named = load_coordinator_config({}, os.environ, config)
        link = await connect(named.core, wait_s=limits.BROKER_START_S)
        log = await open_log(link, LogSettings(replicas=named.log_replicas, max_bytes=named.log_max_bytes))
        try:
            yield log
        finally:
            await log.close()
        return
    layout = Layout(directory)
    layout.make()
    with owned(directory):
        server = await EmbeddedServer(layout.nats).start()
        try:
            log = await open_log(await connect(server.core, wait_s=limits.BROKER_START_S))
            try:
                yield log
            finally:
                await log.close()
        finally:
            await server.stop()
