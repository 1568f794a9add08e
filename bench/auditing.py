"""python -m bench.auditing: what the audit of inference costs. Prints the result.

One node serves the digits model under three names that differ in the label `audit` alone. Clients in a process of
their own ask for single rows; the names take turns in each round, in another order each time, so that what disturbs
one disturbs all. A ratio is that of two neighbours of one round; its interval is bootstrapped over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc.aio
import numpy as np
import psutil

from bench.contender import ROOT
from bench.environment import machine
from bench.fleet import endpoints, fleet
from bench.statistics import bootstrapped, ratios
from hivefold.client import connect
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.schema import SERVICE
from hivefold.oip.tensors import from_array

LEVELS: Final = ("none", "windows", "full")
_WARM_S: Final = 1.0


class Turn(NamedTuple):
    """What one turn of one level gave."""

    per_second: float
    cpu_us: float
    """Processor time of the node for each request."""


async def load(address: str, model: str, *, clients: int, seconds: float, pid: int) -> Turn:
    """Clients that ask one after the other, for a while."""
    row = np.zeros((1, 64), "<f4")
    data = write_request(InferRequest(model, "", "", (from_array("pixels", row),), ())).SerializeToString()
    process = psutil.Process(pid)
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        until = time.perf_counter() + seconds
        answered = 0

        async def ask() -> None:
            nonlocal answered
            while time.perf_counter() < until:
                await call(data)
                answered += 1

        began, busy = time.perf_counter(), _busy_s(process)
        await asyncio.gather(*(ask() for _ in range(clients)))
        took = time.perf_counter() - began
    return Turn(answered / took, (_busy_s(process) - busy) / answered * 1e6)


def _busy_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(directory: Path, model: Path, *, rounds: int, clients: int, seconds: float) -> dict[str, list[Turn]]:
    """The turns of each level."""
    async with connect(directory=directory / "hf") as client:
        for level in LEVELS:
            await client.models.add(model, level, labels={"audit": level})
    places = endpoints(directory / "hf")
    address, pid = places["nodes"][0]["grpc"], places["pids"]["node-1"]
    for level in LEVELS:
        await load(address, level, clients=clients, seconds=_WARM_S, pid=pid)
    turns: dict[str, list[Turn]] = {level: [] for level in LEVELS}
    for number in range(rounds):
        first = number % len(LEVELS)
        for level in (*LEVELS[first:], *LEVELS[:first]):
            turns[level].append(await load(address, level, clients=clients, seconds=seconds, pid=pid))
    return turns


def _trained(folder: Path) -> Path:
    program = (sys.executable, "-m", "examples.digits", folder, "--rows", "1")
    subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "digits.onnx"


def told(turns: dict[str, list[Turn]], clients: int) -> str:
    """The result for people."""
    lines = [f"digits, single rows, {clients} clients; {machine()}", ""]
    for level, found in turns.items():
        low, middle, high = bootstrapped([turn.per_second for turn in found])
        cpu = bootstrapped([turn.cpu_us for turn in found])[1]
        lines.append(f"{level:8} {middle:7,.0f} requests/s ({low:,.0f} to {high:,.0f}), node {cpu:.0f} us a request")
    for level in LEVELS[1:]:
        lines.append(_ratio(f"{level} over none, requests/s", [t.per_second for t in turns[level]], turns["none"], 0))
        lines.append(_ratio(f"{level} over none, node's time", [t.cpu_us for t in turns[level]], turns["none"], 1))
    return "\n".join(lines)


def _ratio(name: str, ours: Sequence[float], none: Sequence[Turn], index: int) -> str:
    low, middle, high = bootstrapped(ratios(ours, [turn[index] for turn in none]))
    return f"{name:28} {middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.auditing", description="Measure the audit of inference.")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each level (default %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="requests at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (default %(default)s)")
    parser.add_argument("--model", type=Path, help="a digits.onnx that is there; otherwise one is trained")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = given.model or _trained(directory / "data")
        with fleet(directory / "hf", nodes=1, threads=1):
            found = asyncio.run(
                measure(directory, model, rounds=given.rounds, clients=given.clients, seconds=given.seconds)
            )
    print(told(found, given.clients))


if __name__ == "__main__":
    main()
