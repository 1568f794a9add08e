"""hivefold's proofs: what they cost the writer, and how fast a signed log is verified from a file."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvloop

from bench.contenders.history import History
from bench.contenders.hivefold_log import open_bench_log
from bench.contenders.protocol import Verb, serve
from coordinator.checkpoints import Checkpointer, Signing, key_message, signed_past
from coordinator.core.commands import ChangeSigningKey, DrainNode, JoinNode, UndrainNode
from coordinator.core.model import NodeSpec, SigningKey
from coordinator.replay import NOTHING, replay
from coordinator.writer import Writer
from hivefold.broker import BrokerSettings, Secret
from hivefold.bus.checkpoints import NatsCheckpoints
from hivefold.bus.connection import connect
from hivefold.bus.streams import prepare_streams
from hivefold.clock import SystemClock
from hivefold.entropy import SystemEntropy
from hivefold.ids import BootId, NodeId, RequestId
from hivefold.log.chain import GENESIS_HASH, record_hash
from hivefold.log.file_writer import LogFileStart, LogFileWriter
from hivefold.log.port import Stored
from hivefold.proof.checkpoint import Checkpoint, sign_checkpoint
from hivefold.proof.key_file import KeyFile
from hivefold.proof.keys import SEED_BYTES, Signer
from hivefold.proof.merkle import EMPTY, CompactRange, RangeBuilder
from hivefold.proof.reading import verify_file
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint


@contextmanager
def _unproven(writer: Writer) -> Iterator[None]:
    """The same writer without the chain and the tree: every hash is zeros."""
    writer.leave_tree_to(lambda: EMPTY)
    with patch("coordinator.writer.record_hash", lambda *_: GENESIS_HASH):
        yield


async def _append(directory: str, *, proven: bool, records: int, at_once: int, **server: str) -> dict[str, Any]:
    """Has a coordinator's writer record decisions, `at_once` waiting at any time; with its proofs or without.

    `server` says how to reach the accounts CORE and NODES of a nats-server.
    """
    log = await open_bench_log(server["url"], server["user"], server["password"])
    nodes = await connect(
        BrokerSettings((server["url"],), user=server["nodes_user"], password=Secret(server["nodes_password"]))
    )
    await prepare_streams(nodes)
    entropy, head = SystemEntropy(), await log.head()
    start = await replay(log, up_to=head.sequence) if head.sequence else NOTHING
    writer = Writer(log, SystemClock(), entropy, start)
    running: list[asyncio.Task[None]] = []
    if proven:
        signing = Signing(NatsCheckpoints(nodes), KeyFile(Path(directory) / "signing.key"), entropy)
        checkpoints = Checkpointer(signing, writer, await signed_past(signing, log, start.state))
        await writer.begin("bench", "0")
        await checkpoints.begin()
        running.append(asyncio.create_task(checkpoints.run()))
        seconds, busy_s = await _decide_all(writer, records, at_once)
        signed = int(checkpoints.latest.note.split("\n", 2)[1])
    else:
        with _unproven(writer):
            await writer.begin("bench", "0")
            seconds, busy_s = await _decide_all(writer, records, at_once)
        signed = 0
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await nodes.close()
    await log.close()
    return {"seconds": seconds, "busy_s": busy_s, "records": records, "signed": signed}


async def _decide_all(writer: Writer, records: int, at_once: int) -> tuple[float, float]:
    """Drains and undrains as many nodes as commands wait: decisions that cost little beside their append.

    Gives the seconds that it took, and those of the processor's time.
    """
    running = asyncio.create_task(writer.run())
    names = [NodeId(f"node-{number}") for number in range(at_once)]
    for name in names:
        spec = NodeSpec(name, BootId("boot"), slot_count=1, cpu_count=1, memory_bytes=1 << 30)
        await writer.execute(JoinNode(spec))

    async def toggle(name: NodeId, times: int) -> None:
        for _ in range(times):
            await writer.execute(DrainNode(name, "bench"))
            await writer.execute(UndrainNode(name))

    first, began, busy = writer.state.sequence, time.perf_counter(), time.process_time()
    await asyncio.gather(*(toggle(name, records // at_once // 2) for name in names))
    seconds, busy_s = time.perf_counter() - began, time.process_time() - busy
    assert writer.state.sequence - first == records, "each decision is recorded"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return seconds, busy_s


async def _write(path: str, *, records: int, each: int) -> dict[str, Any]:
    """Writes a signed log of so many records into a file, with a checkpoint after `each` of them."""
    signer = Signer.of_seed(SystemEntropy().draw(SEED_BYTES))
    key_id, raw = signer.public.key_id, signer.public.raw
    history = History(
        SystemEntropy(), job_tasks=3000, at_once=1, first_key=ChangeSigningKey(key_id, raw, "", b"", RequestId(""))
    )
    entries = (entry for entry, _ in history.entries(1 << 62))
    first = next(entries)
    chain_id = record_hash(1, first.subject, first.data)
    key = key_message(SigningKey(key_id, raw, "", b"", RequestId("")))
    tree, since = EMPTY, RangeBuilder(EMPTY)
    with LogFileWriter(Path(path), LogFileStart(chain_id, keys=[key]), replace=True) as writer:
        for sequence in range(1, records + 1):
            entry = first if sequence == 1 else next(entries)
            writer.record(Stored(sequence, entry.subject, entry.data))
            since.add(writer.last_hash)
            if sequence % each == 0 or sequence == records:
                ranged = since.range()
                tree = tree.joined(ranged)
                claim = Checkpoint(chain_id, sequence, tree.root(), 1, writer.last_hash)
                writer.checkpoint(
                    SignedCheckpoint(
                        note=sign_checkpoint(claim, signer),
                        range=ranged.hashes,
                        previous_size=ranged.begin,
                        keys=[key],
                        frontier=tree.hashes,
                    )
                )
                since = RangeBuilder(CompactRange(sequence, sequence))
    return {"records": records, "size_bytes": Path(path).stat().st_size}


async def _verify(path: str) -> dict[str, Any]:
    """Verifies a file, signatures and all."""
    began = time.perf_counter()
    verified = verify_file(Path(path))
    seconds = time.perf_counter() - began
    assert verified.signed == verified.sequence, "the last record is signed"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "records": verified.records,
        "checkpoints": verified.checkpoints,
        "peak_bytes": peak,
    }


def _verb(measure: Callable[..., Awaitable[dict[str, Any]]]) -> Verb:
    def verb(**arguments: Any) -> dict[str, Any]:
        async def run() -> dict[str, Any]:
            return await measure(**arguments)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())

    return verb


if __name__ == "__main__":
    serve({"append": _verb(_append), "write": _verb(_write), "verify": _verb(_verify)})
