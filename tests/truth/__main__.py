"""`python -m tests.truth`: random operations on the fakes and on a real nats-server, which must answer alike."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from hivefold.server.binary import find_server, version_text
from tests.truth.play import WORLD, play, script_of, shrink
from tests.truth.sides import RealServer

_SLICE: Final = 10
"""Worlds that a process plays on one server."""
_IN_MEMORY: Final = Path("/dev/shm")
_TELL_S: Final = 10.0


class _Part(NamedTuple):
    """What came of a slice."""

    last: int
    worlds: int
    difference: str


def main() -> int:
    """Plays what the arguments say; 1 when the sides differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth", description=__doc__)
    parser.add_argument("--operations", type=int, default=20_000, help="how many operations to play at least")
    parser.add_argument("--seed", type=int, help="one world again")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first world: go on where a run ended")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, each with a server of its own")
    parser.add_argument("--at-most", type=float, default=float("inf"), metavar="SECONDS", help="start no worlds later")
    given = parser.parse_args()
    worlds = -(-given.operations // WORLD)
    first, last = (given.seed, given.seed) if given.seed is not None else (given.first, given.first + worlds - 1)
    began_s = time.perf_counter()
    played, differences = _play_all(first, last, given.workers, given.at_most)
    took_s = time.perf_counter() - began_s
    print(
        f"operations {played * WORLD}, worlds {played} (seeds {first} to {first + played - 1}), "
        f"differences {len(differences)}, {took_s:.0f} s, {played * WORLD / took_s:.0f} operations/s, "
        f"nats-server {version_text(asyncio.run(find_server()).version)}"
    )
    return 1 if differences else 0


def _play_all(first: int, last: int, workers: int, at_most_s: float) -> tuple[int, list[str]]:
    """Plays the worlds of these seeds in slices; how many were played, and what differed."""
    began_s = told_s = time.perf_counter()
    slices: Iterator[range] = (range(at, min(at + _SLICE, last + 1)) for at in range(first, last + 1, _SLICE))
    played, differences = 0, list[str]()
    with ProcessPoolExecutor(workers) as pool:
        under_way: set[Future[_Part]] = set()
        while True:
            now_s = time.perf_counter()
            if not differences and now_s - began_s < at_most_s:
                under_way |= {pool.submit(_play, part) for part in islice(slices, workers - len(under_way))}
            if not under_way:
                return played, differences
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for part in (future.result() for future in done):
                played += part.worlds
                if part.difference:
                    differences.append(part.difference)
                    print(part.difference, file=sys.stderr, flush=True)
            if now_s - told_s > _TELL_S:
                told_s = now_s
                rate = played * WORLD / (now_s - began_s)
                print(f"{played * WORLD} operations, {rate:.0f} operations/s", file=sys.stderr, flush=True)


def _play(seeds: range) -> _Part:
    """Plays a slice, up to the first world in which the sides differ."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # Whether bytes reach a disk is not compared: the server is killed, the machine never.
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as directory:
        return asyncio.run(_play_on_server(Path(directory), seeds))


async def _play_on_server(directory: Path, seeds: range) -> _Part:
    server = RealServer(directory)
    await server.start()
    try:
        for played, seed in enumerate(seeds):
            script = script_of(seed)
            difference = await play(server, script)
            if difference is not None:
                # Told before it is shrunk, which takes long and may find nothing again.
                print(f"seed {seed} differs at {difference}", file=sys.stderr, flush=True)
                shorter, last = await shrink(server, script, difference)
                lines = "\n".join(f"  {operation}" for operation in shorter)
                told = f"seed {seed}: the fake and the server differ at {difference}\nshrunk:\n{lines}\n"
                return _Part(seed, played, f"{told}it ends with {last}\nrepeat it: make truth SEED={seed}")
    finally:
        await server.stop()
    return _Part(seeds[-1], len(seeds), "")


if __name__ == "__main__":
    sys.exit(main())
