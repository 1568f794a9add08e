"""`python -m tests.truth`: random operations on the fakes and on a real nats-server, which must answer alike."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from hivefold.server.binary import find_server, version_text
from tests.truth.play import WORLD, play, script_of, shrink
from tests.truth.sides import RealServer


def main() -> int:
    """Plays what the arguments say; 1 when the sides differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth", description=__doc__)
    parser.add_argument("--operations", type=int, default=20_000, help="how many operations to play at least")
    parser.add_argument("--seed", type=int, help="one world again")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first world")
    parser.add_argument("--at-most", type=float, default=float("inf"), metavar="SECONDS", help="start no world later")
    given = parser.parse_args()
    worlds = -(-given.operations // WORLD)
    seeds: Sequence[int] = [given.seed] if given.seed is not None else range(given.first, given.first + worlds)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_run(Path(directory), seeds, given.at_most))


async def _run(directory: Path, seeds: Sequence[int], at_most: float) -> int:
    server = RealServer(directory)
    await server.start()
    began, played = time.perf_counter(), 0
    try:
        for seed in seeds:
            script = script_of(seed)
            difference = await play(server, script)
            if difference is not None:
                print(f"seed {seed}: the fake and the server differ at {difference}\nlooking for a shorter script ...")
                shorter, difference = await shrink(server, script, difference)
                print("\n".join(f"  {operation}" for operation in shorter))
                print(f"it ends with {difference}")
                print(f"repeat it: make truth SEED={seed}")
                return 1
            played += 1
            if time.perf_counter() - began > at_most:
                break
    finally:
        await server.stop()
    took = time.perf_counter() - began
    print(
        f"operations {played * WORLD}, worlds {played} (seeds {seeds[0]} to {seeds[0] + played - 1}), "
        f"differences 0, {took:.0f} s, {played * WORLD / took:.0f} operations/s, "
        f"nats-server {version_text((await find_server()).version)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
