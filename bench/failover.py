"""python -m bench.failover: how long a group is without a leader. Writes bench/FAILOVER.md.

A group of three coordinators runs jobs. Its leader is killed (kill -9), told to stop (SIGTERM), asked to hand over or
stopped (SIGSTOP), again and again; each time two things are measured from then on: until another coordinator
says that it leads, and until a client's next submit is answered. Each time the job that ran must end well,
and the repeat of an acknowledged submit must find the job that it made.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.contender import ROOT, ContenderError
from bench.environment import machine
from bench.fleet import endpoints, fleet
from bench.statistics import percentile
from hivefold.client import Fleet, JobOptions, connect
from hivefold.errors import HivefoldError
from hivefold.v1 import job_pb2, log_service_pb2

_PAGE: Final = ROOT / "bench" / "FAILOVER.md"
_KINDS: Final[Mapping[str, tuple[signal.Signals | None, str]]] = {
    "killed": (signal.SIGKILL, "kill -9 of the leader"),
    "told to stop": (signal.SIGTERM, "SIGTERM: the leader hands over"),
    "handed over": (None, "`coordinator hand-over`: it goes on as a standby"),
    "stopped": (signal.SIGSTOP, "SIGSTOP: its connections stay, its lease lapses"),
}
_LOOK_S: Final = 0.005
_SETTLE_S: Final = 30.0
_TASKS: Final = 60
_TASK_S: Final = 0.02


@dataclass(slots=True)
class Times:
    """Seconds from the signal on, run by run."""

    leading: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """One of the group."""

    name: str
    address: str
    client: Fleet

    async def head(self) -> log_service_pb2.GetHeadResponse | None:
        """What it says of the log; None when it does not answer at once."""
        try:
            async with asyncio.timeout(0.5):
                return await self.client.log.head()
        except (HivefoldError, TimeoutError):
            return None


@dataclass(frozen=True, slots=True)
class Group:
    """A running group: a client of all, and one of each."""

    directory: Path
    client: Fleet
    coordinators: Sequence[Coordinator]


async def measure(directory: Path, runs: int) -> dict[str, Times]:
    """All runs of all kinds on one group."""
    places = endpoints(directory)["coordinators"]
    found = {kind: Times() for kind in _KINDS}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(directory=directory))
        coordinators = [
            Coordinator(place["id"], place["grpc"], await stack.enter_async_context(connect(place["grpc"])))
            for place in places
        ]
        group = Group(directory, client, coordinators)
        for number in range(runs):
            for kind, times in found.items():
                await _run(group, kind, times, f"{kind.replace(' ', '-')}-{number}")
            print(f"run {number + 1} of {runs}", flush=True)
    return found


async def _run(group: Group, kind: str, times: Times, name: str) -> None:
    client, leader = group.client, await _settled(group.coordinators)
    pid = endpoints(group.directory)["pids"][leader.name]
    before = await client.jobs.submit_probe(_TASKS, task_duration_s=_TASK_S, options=JobOptions(request_id=name))
    head = await client.log.head()
    number, began = _KINDS[kind][0], time.perf_counter()
    if number is None:
        await client.log.hand_over(term=head.term)
    else:
        os.kill(pid, number)
    others = [coordinator for coordinator in group.coordinators if coordinator is not leader]
    try:
        led, answered = await asyncio.gather(_led(others, began), _answered(client, name, began))
    finally:
        if number is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    again = await client.jobs.submit_probe(_TASKS, task_duration_s=_TASK_S, options=JobOptions(request_id=name))
    ended = await client.jobs.wait(before)
    if again.job_id != before.job_id or ended.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise ContenderError(f"{name}: the job was lost, run twice or failed: {ended}")
    times.leading.append(led)
    times.answered.append(answered)


async def _settled(coordinators: Sequence[Coordinator]) -> Coordinator:
    """Who leads, once all others follow it."""
    async with asyncio.timeout(_SETTLE_S):
        while True:
            heads = [await coordinator.head() for coordinator in coordinators]
            leaders = [each for each, head in zip(coordinators, heads, strict=True) if head and head.leading]
            if len(leaders) == 1 and all(head and head.leader_address == leaders[0].address for head in heads):
                return leaders[0]
            await asyncio.sleep(0.05)


async def _led(others: Sequence[Coordinator], began: float) -> float:
    async with asyncio.timeout(_SETTLE_S):
        while True:
            heads = await asyncio.gather(*(other.head() for other in others))
            if any(head is not None and head.leading for head in heads):
                return time.perf_counter() - began
            await asyncio.sleep(_LOOK_S)


async def _answered(client: Fleet, name: str, began: float) -> float:
    await client.jobs.submit_probe(1, options=JobOptions(request_id=f"{name}-next"))
    return time.perf_counter() - began


def page(found: Mapping[str, Times], runs: int) -> str:
    """The result for people."""
    lines = [
        "# Fail-over",
        "",
        f"Three coordinators, three nodes, jobs running; {runs} runs of each kind, on one machine.",
        "Written by `make failover`; seconds from the signal or call to the next leader and to the answer to a submit.",
        "",
        "| what happens to the leader | another leads: p50 | p90 | p99 | most | next answer: p50 | p99 | most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, times in found.items():
        cells = [*_percentiles(times.leading, 50, 90, 99, 100), *_percentiles(times.answered, 50, 99, 100)]
        lines.append(f"| {_KINDS[kind][1]} | {' | '.join(cells)} |")
    lines += [
        "",
        "After every run the job that ran had ended well, and the repeat of an acknowledged submit had found its job.",
        "",
        *(f"- {name}: {value}" for name, value in machine().items()),
        f"- measured: {datetime.now(UTC):%Y-%m-%d}",
    ]
    return "\n".join(lines) + "\n"


def _percentiles(values: Sequence[float], *percents: float) -> list[str]:
    return [f"{percentile(values, percent):.2f}" for percent in percents]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="of each kind (default %(default)s)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="hivefold-failover-") as folder:
        directory = Path(folder) / "hf"
        with fleet(directory, nodes=3, threads=1, coordinators=3):
            found = asyncio.run(measure(directory, runs))
    _PAGE.write_text(page(found, runs), encoding="utf-8")
    print(_PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
