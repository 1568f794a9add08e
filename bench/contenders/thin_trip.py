"""The hops of a durable round trip and nothing else: no decisions, no records, no state.

Client, gRPC, one append with fsync, the work stream, another process, the results stream with fsync, one more
append with fsync, the answer: the way that hivefold goes, over the same libraries, with 200 bytes each time. What
hivefold takes above it is its own work.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import uvloop

from bench.broker import embedded_log
from bench.contenders.protocol import serve
from hivefold.broker import BrokerSettings, Secret
from hivefold.bus import api, frames
from hivefold.bus.connection import connect
from hivefold.bus.link import Link
from hivefold.bus.pull import Puller

_METHOD: Final = "/bench.Trip/Trip"
_MESSAGE: Final = bytes(200)
_ANSWER_S: Final = 10.0
_ACK: Final = b"+ACK"
_READY: Final = b"ready "


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


async def _coordinate(*broker: str) -> None:
    link = await _link(*broker)
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

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Trip": grpc.unary_unary_rpc_method_handler(trip)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Trip", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready {port}", flush=True)
    await take()


async def _work(*broker: str) -> None:
    link = await _link(*broker)
    puller = Puller(link, "WORK", "one")
    print("ready 0", flush=True)
    while batch := await puller.take():
        for message in batch:
            await api.store(link, "results.one", message.data, timeout_s=_ANSWER_S)
            link.write(frames.publish(message.reply, _ACK))


async def _round_trips(address: str, count: int) -> list[float]:
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        trip: Any = channel.unary_unary(_METHOD)
        for _ in range(count):
            began = time.perf_counter()
            await trip(_MESSAGE)
            times.append(1000 * (time.perf_counter() - began))
    return times


def _start(role: str, broker: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "bench.contenders.thin_trip", role, *broker.values()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith(_READY):
        assert line, f"{role} ended early"
    return process, int(line.removeprefix(_READY))


def main() -> None:
    with embedded_log(Path(sys.argv[1])) as broker:
        server, port = _start("coordinate", broker)
        worker, _ = _start("work", broker)

        def round_trips(count: int) -> dict[str, Any]:
            return {"ms": asyncio.run(_round_trips(f"127.0.0.1:{port}", count))}

        serve({"round_trips": round_trips})
        for process in (worker, server):
            process.terminate()
            process.wait()


_ROLES: Final = {"coordinate": _coordinate, "work": _work}

if __name__ == "__main__":
    if sys.argv[1] in _ROLES:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_ROLES[sys.argv[1]](*sys.argv[2:]))
    else:
        main()
