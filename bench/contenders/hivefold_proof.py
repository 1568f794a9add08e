"""hivefold's proofs: what they cost the writer, and how fast a signed log is verified from a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import uvloop

from bench.contenders.history import History
from bench.contenders.hivefold_log import open_bench_log
from bench.contenders.protocol import Verb, serve
from coordinator import batch
from coordinator.checkpoints import Checkpointer, Signing, key_message, signed_past
from coordinator.core.commands import ChangeSigningKey, DrainNode, JoinNode, UndrainNode
from coordinator.core.model import NodeSpec, SigningKey
from coordinator.followers import Committed
from coordinator.replay import NOTHING
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
from hivefold.memory import peak_resident_bytes
from hivefold.proof.checkpoint import Checkpoint, sign_checkpoint
from hivefold.proof.key_file import KeyFile
from hivefold.proof.keys import SEED_BYTES, Signer
from hivefold.proof.merkle import EMPTY, CompactRange, RangeBuilder
from hivefold.proof.reading import verify_file
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint

_WARM_UP_PAIRS: Final = 3


class _Switched(Checkpointer):
    """Hashes and signs what is committed while it is on."""

    on = True

    def _add(self, commits: Sequence[Committed]) -> None:
        if self.on:
            super()._add(commits)


class _Turns:
    """One coordinator's writer that records in turns with its proofs and as the same code without them."""

    def __init__(self, writer: Writer, checkpoints: _Switched, at_once: int) -> None:
        self._writer = writer
        self._checkpoints = checkpoints
        self._names = [NodeId(f"node-{number}") for number in range(at_once)]

    async def join(self) -> None:
        """Adds as many nodes as commands wait at any time."""
        for name in self._names:
            spec = NodeSpec(name, BootId("boot"), slot_count=1, cpu_count=1, memory_bytes=1 << 30)
            await self._writer.execute(JoinNode(spec))

    async def take(self, *, proven: bool, each: int) -> tuple[float, float]:
        """Drains and undrains all nodes `each` times: decisions that cost little beside their append.

        Gives the microseconds that a record took, and those of the processor's time.
        """
        self._checkpoints.on = proven
        first = self._writer.state.sequence
        with nullcontext() if proven else patch.object(batch, "record_hash", lambda *_: GENESIS_HASH):
            began, busy = time.perf_counter(), time.process_time()
            await asyncio.gather(*(self._toggle(name, each) for name in self._names), *self._signing(proven))
            took_s, busy_s = time.perf_counter() - began, time.process_time() - busy
        records = 2 * each * len(self._names)
        assert self._writer.state.sequence - first == records, "each decision is recorded"
        return 1e6 * took_s / records, 1e6 * busy_s / records

    async def _toggle(self, name: NodeId, each: int) -> None:
        for _ in range(each):
            await self._writer.execute(DrainNode(name, "bench"))
            await self._writer.execute(UndrainNode(name))

    def _signing(self, proven: bool) -> list[Coroutine[Any, Any, None]]:
        """One checkpoint in a turn with proofs, over all that was committed since the one before."""
        return [self._checkpoints.seal()] if proven else []


async def _append(directory: str, *, pairs: int, each: int, at_once: int, **server: str) -> dict[str, Any]:
    """Has a coordinator's writer record decisions, `at_once` waiting at any time, in `pairs` of turns.

    Of a pair, one turn has proofs and one has not; which is first changes from pair to pair.
    `server` says how to reach the accounts CORE and NODES of a nats-server.
    """
    log = await open_bench_log(server["url"], server["user"], server["password"])
    nodes = await connect(
        BrokerSettings((server["url"],), user=server["nodes_user"], password=Secret(server["nodes_password"]))
    )
    await prepare_streams(nodes)
    entropy = SystemEntropy()
    writer = Writer(log, SystemClock(), entropy, NOTHING)
    signing = Signing(NatsCheckpoints(nodes), KeyFile(Path(directory) / "signing.key"), entropy)
    checkpoints = _Switched(signing, writer, await signed_past(signing, log, NOTHING.state))
    await writer.begin("bench", "0")
    await checkpoints.begin()
    writing = asyncio.create_task(writer.run())
    turns = _Turns(writer, checkpoints, at_once)
    await turns.join()
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for at in range(-_WARM_UP_PAIRS, pairs):
        for proven in (True, False) if at % 2 else (False, True):
            turn = await turns.take(proven=proven, each=each)
            if at >= 0:
                found[proven].append(turn)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await nodes.close()
    await log.close()
    return {
        name: dict(zip(("us", "busy_us"), zip(*found[proven], strict=True), strict=True))
        for name, proven in (("proven", True), ("unproven", False))
    }


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
    return {
        "seconds": seconds,
        "records": verified.records,
        "checkpoints": verified.checkpoints,
        "peak_bytes": peak_resident_bytes(),
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
