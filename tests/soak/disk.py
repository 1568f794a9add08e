"""A disk that is full for a while, under load: `python -m tests.soak.disk DIR`, where DIR is a small disk.

After the disk was full JetStream wants its server restarted; then every acknowledged job must be done, once.
Prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

from hivefold.client import connect
from tests.soak.audit import Auditor
from tests.soak.campaign import SETTLE_S, Settings, processes
from tests.soak.load import Load
from tests.soak.processes import Tally

LOAD_S = 5.0
FULL_S = 12.0


def fill(path: Path) -> None:
    """Takes all room that is left."""
    with path.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


async def tell(directory: Path) -> dict[str, object]:
    """Load, a full disk, room again, a restart of the server; what became of the work."""
    tally = Tally()
    server, daemons, addresses = await processes(Settings(directory, 0, 0, 1, coordinators=1, nodes=1), tally)
    for process in (server, *daemons):
        process.start({})
    try:
        async with connect(",".join(addresses)) as fleet:
            load, auditor = Load(fleet, 1), Auditor(fleet)
            loading = asyncio.create_task(load.run())
            while len(load.acknowledged) < 10:
                await asyncio.sleep(0.1)
            before = len(load.acknowledged)
            fill(directory / "ballast")
            await asyncio.sleep(FULL_S)
            while_full = len(load.acknowledged) - before
            (directory / "ballast").unlink()
            server.send(signal.SIGKILL)
            await asyncio.sleep(LOAD_S)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            left = await load.settle(SETTLE_S)
            await auditor.compare()
            return {
                "before": before,
                "while_full": while_full,
                "acknowledged": len(load.acknowledged),
                "faults": [*(f"job {job} did not end" for job in left), *auditor.verdict(load.acknowledged)],
            }
    finally:
        for process in (*daemons, server):
            await process.stop(how=signal.SIGKILL)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(tell(Path(sys.argv[1])))))
