"""`hivefold up`: a whole fleet on this machine, in this terminal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number

from cli.address import DEFAULT_DIRECTORY
from cli.daemons import Port
from cli.exits import Exit
from cli.output import Shown, facts, note, print_text, write_json
from cli.words import span
from hivefold.errors import HivefoldError, UnavailableError
from hivefold.limits import LOCAL_COORDINATORS, LOCAL_NODES, MODELS_LOADED, NODE_STOP_S
from hivefold.version import VERSION

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.local.fleet import LocalFleet, Wishes


def up(
    *,
    dir: Annotated[Path, Parameter(env_var="HIVEFOLD_DIR")] = DEFAULT_DIRECTORY,  # noqa: A002 - the option's name
    nodes: Annotated[int, Parameter(validator=Number(gte=1, lte=LOCAL_NODES))] = 3,
    coordinators: Annotated[int, Parameter(validator=Number(gte=1, lte=LOCAL_COORDINATORS))] = 1,
    slots: NonNegativeInt = 0,
    threads: NonNegativeInt = 0,
    models: PositiveInt = MODELS_LOADED,
    port: Port | None = None,
    node_port: Port | None = None,
    nats_port: Port | None = None,
    restart: bool = True,
    shown: Shown = Shown(),  # noqa: B008 - frozen
) -> int:
    """Run a whole fleet on this machine: NATS, coordinators and nodes.

    Leaves it running until Ctrl-C. Everything is kept in the directory: the next start goes on with it.
    Ports that are not given are those of the last start, or the next free ones.

    Parameters
    ----------
    dir
        Where the fleet keeps everything.
    nodes
        How many nodes to start.
    coordinators
        How many coordinators to start: one leads, the others take over when it dies.
    slots
        Attempts that each node runs at once; 0: its share of the cores.
    threads
        Threads that each node's models share; 0: its share of the cores.
    models
        Most models that each node has loaded at once.
    port
        The first coordinator's gRPC port, others follow; 0: any free ones.
    node_port
        The first node's gRPC port, the others follow; 0: any free ones.
    nats_port
        The port of nats-server; 0: any free one.
    restart
        Start again what ended.
    """
    from cli.local.fleet import Wishes, cores
    from cli.local.layout import Layout, owned

    share = max(1, cores() // nodes)
    wishes = Wishes(
        directory=dir,
        node_count=nodes,
        slots=slots or share,
        threads=threads or share,
        models=models,
        nats_port=nats_port,
        port=port,
        node_port=node_port,
        restart=restart,
        coordinator_count=coordinators,
    )
    Layout(dir).make()
    with owned(dir):
        return asyncio.run(_run(wishes, shown))


async def _run(wishes: Wishes, shown: Shown) -> int:
    """Runs the fleet until a signal comes (exit code 0) or it cannot go on."""
    from cli.local.fleet import LocalFleet

    clock = asyncio.get_running_loop().time
    began = clock()
    fleet = LocalFleet(wishes, note)
    async with _signals() as asked:
        running = asyncio.create_task(_serve(fleet, shown, began))
        try:
            await _first(running, asked)
        finally:
            await _stop(fleet, running, asked)
    return Exit.OK


async def _serve(fleet: LocalFleet, shown: Shown, began: float) -> None:
    await fleet.start()
    await fleet.wait_until_ready()
    _show(fleet, shown, asyncio.get_running_loop().time() - began)
    await fleet.supervise()
    raise UnavailableError("every process of the fleet has ended; start it again with: hivefold up")


async def _first(running: asyncio.Task[None], asked: asyncio.Queue[None]) -> None:
    """Waits until the fleet fails, which raises, or until a signal comes."""
    signalled = asyncio.create_task(asked.get())
    await asyncio.wait({running, signalled}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if running.done():
        await running


async def _stop(fleet: LocalFleet, running: asyncio.Task[None], asked: asyncio.Queue[None]) -> None:
    """Stops everything; another signal makes the nodes end at once."""
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError, HivefoldError, TimeoutError):
        await running
    if fleet.ready:
        note(f"stopping: nodes finish what runs, at most {NODE_STOP_S:g} s (Ctrl-C again: at once)")
    stopping = asyncio.create_task(fleet.stop())
    while not stopping.done():
        again = asyncio.create_task(asked.get())
        await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
        if again.done():
            fleet.hurry()
        again.cancel()
    await stopping
    if fleet.ready:
        note("stopped; everything is kept: start again with `hivefold up`")


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Queue[None]]:
    """Gives a queue with an entry for each signal that asks for the end."""
    asked: asyncio.Queue[None] = asyncio.Queue(maxsize=16)
    loop = asyncio.get_running_loop()

    def ask() -> None:
        with contextlib.suppress(asyncio.QueueFull):
            asked.put_nowait(None)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, ask)
    try:
        yield asked
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _show(fleet: LocalFleet, shown: Shown, seconds: float) -> None:
    endpoints = fleet.endpoints()
    if shown.output != "text":
        write_json(endpoints.as_plain(), indent=2 if shown.output == "json" else None)
        return
    print_text(_ready(fleet, seconds))


def _ready(fleet: LocalFleet, seconds: float) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    endpoints = fleet.endpoints()
    rows = [("nats", endpoints.nats)]
    rows += [(coordinator.id, coordinator.grpc) for coordinator in endpoints.coordinators]
    rows += [(node.id, node.grpc) for node in endpoints.nodes]
    rows.append(("directory", escape(str(fleet.directory))))
    return Group(
        Text.from_markup(f"[bold]hivefold {VERSION}[/]  [green]ready[/] in {span(seconds)}\n"),
        facts([(f"  {name}", value) for name, value in rows]),
        "\nCtrl-C stops it; everything is kept. In another terminal try:\n",
        Text("  hivefold top\n  hivefold job submit probe --tasks 1000 --wait\n  hivefold --help", style="cyan"),
    )
