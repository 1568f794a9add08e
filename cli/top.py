"""`hivefold top`: the fleet and its jobs, live."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from cli import words
from cli.address import Target, listed
from cli.exits import Exit
from cli.output import console, note, print_text, write_json
from cli.views import jobs as job_views
from cli.views import nodes as node_views
from hivefold.clock import SystemClock
from hivefold.errors import UnavailableError
from hivefold.v1 import fleet_pb2, job_pb2, log_service_pb2

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hivefold.client import Fleet

_JOBS_SHOWN: Final = 12
_ANSWER_S: Final = 3.0
_OPEN: Final = (job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_RUNNING)


@dataclass(frozen=True, slots=True)
class Glance:
    """The fleet at one moment, as far as a screen has room; `time_ms` is monotonic."""

    time_ms: int
    head: log_service_pb2.GetHeadResponse
    nodes: list[fleet_pb2.Node]
    jobs: list[job_pb2.Job]

    @property
    def tasks_done(self) -> int:
        """Tasks that the nodes completed."""
        return sum(node.tasks_succeeded for node in self.nodes)


def top(
    *,
    interval: Annotated[float, Parameter(validator=Number(gte=0.2, lte=3600))] = 1.0,
    once: Annotated[bool, Parameter(negative=())] = False,
    target: Target = Target(),  # noqa: B008 - frozen
) -> int:
    """Watch the fleet and its jobs live, until Ctrl-C.

    With -o json or jsonl, one line for each look.

    Parameters
    ----------
    interval
        Seconds between two looks.
    once
        Look once.
    """
    try:
        target.ask(lambda fleet: _watch(fleet, target, interval, once=once))
    except KeyboardInterrupt:
        return Exit.OK
    return Exit.OK


async def _watch(fleet: Fleet, target: Target, interval: float, *, once: bool) -> None:
    last = await _look(fleet)
    if target.output != "text" or once or not sys.stdout.isatty():
        await _print(fleet, target, last, interval, once=once)
        return
    from rich.live import Live

    with Live(screen(None, last), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(interval)
            now = await _look_again(fleet)
            live.update(silent(last) if now is None else screen(last, now), refresh=True)
            last = now or last


async def _print(fleet: Fleet, target: Target, first: Glance, interval: float, *, once: bool) -> None:
    last, now = None, first
    while True:
        if target.output == "text":
            print_text(screen(last, now))
        else:
            write_json(plain(now))
        if once:
            return
        await asyncio.sleep(interval)
        while (found := await _look_again(fleet)) is None:
            note("the coordinator does not answer; trying again")
        last, now = now, found


async def _look_again(fleet: Fleet) -> Glance | None:
    """The fleet now; None when the coordinator does not answer soon."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await _look(fleet)
    except (UnavailableError, TimeoutError):
        await asyncio.sleep(_ANSWER_S / 10)
        return None


async def _look(fleet: Fleet) -> Glance:
    head, nodes, running = await asyncio.gather(
        fleet.log.head(), listed(fleet.nodes.list()), listed(fleet.jobs.list(states=_OPEN))
    )
    recent = list(running[:_JOBS_SHOWN])
    if len(recent) < _JOBS_SHOWN:
        known = {job.job_id for job in recent}
        async for job in fleet.jobs.list(page_size=2 * _JOBS_SHOWN):
            if len(recent) >= _JOBS_SHOWN:
                break
            if job.job_id not in known:
                recent.append(job)
    return Glance(SystemClock().monotonic_ms(), head, nodes, recent)


def plain(glance: Glance) -> dict[str, object]:
    """A glance for programs."""
    from cli.output import as_plain

    return {
        "head": as_plain(glance.head),
        "nodes": [as_plain(node) for node in glance.nodes],
        "jobs": [as_plain(job) for job in glance.jobs],
    }


def screen(last: Glance | None, now: Glance) -> RenderableType:
    """What is shown; rates are those since `last`."""
    from rich.console import Group
    from rich.text import Text

    heading = Text.from_markup(headline(last, now))
    parts: list[RenderableType] = [heading, Text(), node_views.nodes_table(now.nodes)]
    if now.jobs:
        parts += [Text(), job_views.jobs_table(now.jobs)]
    else:
        parts += [Text(), Text("no jobs yet", style="dim")]
    return Group(*parts)


def headline(last: Glance | None, now: Glance) -> str:
    """The first line, as markup."""
    online = sum(node.state == fleet_pb2.NODE_STATE_ONLINE for node in now.nodes)
    busy = sum(node.attempts_outstanding for node in now.nodes)
    slots = sum(node.spec.slot_count for node in now.nodes)
    parts = [
        "[bold]hivefold[/]",
        f"{online} of {len(now.nodes)} nodes online",
        f"{words.count(busy)} attempts on {slots} slots",
        f"record {words.count(now.head.sequence)}, term {now.head.term}",
        now.head.durability,
    ]
    if last is not None and now.time_ms > last.time_ms:
        seconds = (now.time_ms - last.time_ms) / 1000
        parts.append(words.rate(max(0, now.tasks_done - last.tasks_done) / seconds, "tasks"))
    return "  [dim]-[/]  ".join(part for part in parts if part)


def silent(last: Glance) -> RenderableType:
    """The last that is known of a fleet whose coordinator does not answer."""
    from rich.console import Group
    from rich.text import Text

    seconds = (SystemClock().monotonic_ms() - last.time_ms) / 1000
    warning = (
        f"The coordinator has not answered for {words.span(seconds)}; trying again. This is what was known last:\n"
    )
    return Group(Text(warning, style="bold yellow"), screen(None, last))
