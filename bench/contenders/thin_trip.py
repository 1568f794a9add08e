"""The hops of a durable round trip and nothing else: no decisions, no records, no state.

Client, gRPC, one append with fsync, the work stream, another process, the results stream with fsync, one more
append with fsync, the answer: the way that hivefold goes, over the same libraries, with 200 bytes each time. What
hivefold takes above it is its own work.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from bench.broker import embedded_log
from bench.contenders import bare_rpc
from bench.contenders.protocol import serve
from hivefold.broker import BrokerSettings, Secret
from hivefold.bus import api, frames
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.pull import Puller

_ANSWER_S: Final = 10.0
_ACK: Final = b"+ACK"


async def _link(url: str, user: str, password: str) -> Link:
    return await connect(BrokerSettings((url,), user=user, password=Secret(password)))


async def _prepare(link: Link) -> None:
    for name, storage in (("LOG", "file"), ("WORK", "memory"), ("RESULTS", "file")):
        await api.call(
            link, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name.lower()}.>"], "storage": storage}
        )
    for name in ("WORK", "RESULTS"):
        config = {"durable_name": "one", "ack_policy": "explicit", "mem_storage": True}
        await api.call(link, f"CONSUMER.DURABLE.CREATE.{name}.one", {"stream_name": name, "config": config})


async def _coordinate(**broker: str) -> None:
    link = await _link(**broker)
    await _prepare(link)
    waiting: dict[bytes, asyncio.Future[None]] = {}
    count = 0

    async def trip(request: bytes, _context: object) -> bytes:
        nonlocal count
        count += 1
        number = b"%d" % count
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[number] = ended
        await api.store(link, "log.one", request, timeout_s=_ANSWER_S)
        await api.store(link, "work.one", number.ljust(200), timeout_s=_ANSWER_S)
        await ended
        return request

    async def take() -> None:
        puller = Puller(link, "RESULTS", "one")
        while batch := await puller.take():
            for message in batch:
                await api.store(link, "log.one", message.data, timeout_s=_ANSWER_S)
                waiting.pop(message.data.strip()).set_result(None)
                link.write(frames.publish(message.reply, _ACK))

    server = await bare_rpc.start(trip)
    await take()
    await server.stop(None)


async def _work(**broker: str) -> None:
    link = await _link(**broker)
    puller = Puller(link, "WORK", "one")
    print(f"{bare_rpc.READY}0", flush=True)
    while batch := await puller.take():
        for message in batch:
            await api.store(link, "results.one", message.data, timeout_s=_ANSWER_S)
            link.write(frames.publish(message.reply, _ACK))


def _start(role: str, broker: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "bench.contenders.thin_trip", role]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(broker) + "\n")  # holds a password: not for the command line
    process.stdin.flush()
    while not (line := process.stdout.readline()).startswith(bare_rpc.READY):
        assert line, f"{role} ended early"
    return process, int(line.removeprefix(bare_rpc.READY))


def main() -> None:
    with embedded_log(Path(sys.argv[1])) as broker:
        server, port = _start("coordinate", broker)
        worker, _ = _start("work", broker)
        serve({"round_trips": partial(bare_rpc.round_trips, port)})
        for process in (worker, server):
            process.terminate()
            process.wait()


_ROLES: Final = {"coordinate": _coordinate, "work": _work}

if __name__ == "__main__":
    if sys.argv[1] in _ROLES:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_ROLES[sys.argv[1]](**json.loads(sys.stdin.readline())))
    else:
        main()
