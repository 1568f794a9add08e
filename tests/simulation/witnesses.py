"""Nodes as witnesses: what they keep, what they believe, and somebody whose log they must not believe."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from coordinator.checkpoints import key_message
from hivefold.bus.memory import Fault, MemoryConnection
from hivefold.bus.memory_ends import MemoryCheckpoints
from hivefold.bus.port import CheckpointReader, Message
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.errors import BrokerUnavailableError, ConfigError
from hivefold.proof.checkpoint import Checkpoint, sign_checkpoint
from hivefold.proof.extension import Proven
from hivefold.proof.key_file import KeyFile
from hivefold.proof.keys import SEED_BYTES, Signer
from hivefold.proof.merkle import EMPTY, CompactRange
from hivefold.v1 import job_pb2, work_pb2
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint
from node.witness import Witness
from tests.simulation.checker import Checker

IMPOSTOR: Final = "impostor"
LIES: Final = ("cut", "forked", "foreign key")
_SUBJECT: Final = "checkpoint.log"
_TERMS_AHEAD: Final = 1000


class SimKeyFile(KeyFile):
    """The fleet's key in memory: one path that all coordinators share."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self._held: dict[str, Signer | None] = {"active": None, "staged": None}

    def active(self, key_id: str) -> Signer:
        """The key that the log says signs now."""
        if (staged := self._held["staged"]) is not None and staged.public.key_id == key_id:
            self._held = {"active": staged, "staged": None}
        signer = self._held["active"]
        if signer is None or signer.public.key_id != key_id:
            raise ConfigError(f"the log is signed with key {key_id}, which is not there")
        return signer

    def first(self, entropy: Entropy) -> Signer:
        """The key of a log that has none yet."""
        signer = self._held["active"] or Signer.of_seed(entropy.draw(SEED_BYTES))
        self._held["active"] = signer
        return signer

    def stage(self, entropy: Entropy) -> Signer:
        """A key to rotate to: the one that is staged, or a new one."""
        signer = self._held["staged"] or Signer.of_seed(entropy.draw(SEED_BYTES))
        self._held["staged"] = signer
        return signer


class SimCheckpoints(MemoryCheckpoints):
    """A machine's end of the checkpoints: the checker sees what is stored; requests and answers get lost."""

    def __init__(self, connection: MemoryConnection, checker: Checker) -> None:
        super().__init__(connection)
        self._lossy = connection
        self._checker = checker

    async def store(self, data: bytes, *, after: int) -> int:
        """Stores a checkpoint, at times without telling so."""
        loss = self._lossy.broker.fault(_SUBJECT)
        await asyncio.sleep(0.001)
        if loss is not Fault.DROP:
            kept = self._lossy.broker.checkpoints
            before = len(kept)
            index = await super().store(data, after=after)
            if len(kept) > before:
                self._checker.proofs.signed(data)
            if loss is Fault.PASS:
                return index
        raise BrokerUnavailableError("the broker did not answer; try again")


@dataclass(slots=True)
class WitnessFile:
    """What a node's disk has of its witness, over all its boots. Stands for a path."""

    data: bytes | None = None

    def exists(self) -> bool:
        """Whether there is any."""
        return self.data is not None

    def read_bytes(self) -> bytes:
        """What was kept."""
        if self.data is None:
            raise FileNotFoundError
        return self.data

    def write_bytes(self, data: bytes) -> None:
        """Keeps it."""
        self.data = data

    def __str__(self) -> str:
        return "the witness's file"


class WatchedWitness(Witness):
    """The checker sees what it believes."""

    def __init__(
        self, node_id: str, file: WitnessFile, stream: CheckpointReader, clock: Clock, checker: Checker
    ) -> None:
        super().__init__(cast(Path, file), stream, clock)
        self._node_id = node_id
        self._checker = checker
        checker.proofs.boots(node_id, self._proven)

    def believes(self, pulse: work_pb2.Pulse) -> bool:
        """Whether the pulse comes from a coordinator to be listened to."""
        believed = super().believes(pulse)
        if believed and pulse.coordinator_id == IMPOSTOR:
            self._checker.proofs.believed_impostor(self._node_id)
        return believed

    def _believe(self, proven: Proven, signed: SignedCheckpoint) -> None:
        if proven != self._proven:
            self._checker.proofs.believed(self._node_id, proven)
        super()._believe(proven, signed)


def keep_in_memory(path: Path, data: bytes) -> None:
    """As node.witness._keep, without a disk."""
    path.write_bytes(data)


def pretence(lie: str, known: Proven, checker: Checker, keys: SimKeyFile, draw: random.Random) -> Message:
    """The pulse of a coordinator that leads a log which is cut, forked or signed by somebody else.

    What is told differs from the log within the part that is `known`: more nobody could tell.
    """
    size = known.checkpoint.size
    hashes = list(checker.proofs.hashes)
    statements = [key_message(key) for key in checker.state.signing_keys]
    signer = keys.active(checker.state.signing_keys[-1].key_id)
    if lie == "cut" and size > 1:
        del hashes[draw.randrange(1, size) :]
    elif lie == "foreign key":
        signer = Signer.of_seed(draw.randbytes(SEED_BYTES))
    else:
        hashes[draw.randrange(size)] = hashlib.sha256(b"another record").digest()
        hashes += [hashlib.sha256(b"one more").digest()] * draw.randint(0, 2)
    begin = size if size <= len(hashes) else 0
    tree = EMPTY.extended(hashes)
    term = known.checkpoint.term + _TERMS_AHEAD
    claim = Checkpoint(known.checkpoint.chain_id, len(hashes), tree.root(), term, hashes[-1])
    signed = SignedCheckpoint(
        note=sign_checkpoint(claim, signer),
        range=CompactRange(begin, begin).extended(hashes[begin:]).hashes,
        previous_size=begin,
        keys=statements,
        frontier=tree.hashes,
    )
    pulse = work_pb2.Pulse(term=term, coordinator_id=IMPOSTOR, sequence=len(hashes), checkpoint=signed)
    return Message("fleet.pulse", pulse.SerializeToString())


def forged_work(node_id: str, boot_id: str, known: Proven) -> Message:
    """Work that an impostor sends along."""
    probe = work_pb2.WorkItem(task=0, attempt=1, spec=work_pb2.TaskSpec(probe=work_pb2.ProbeTask()))
    spec = job_pb2.JobSpec(probe=job_pb2.ProbeSpec(task_count=1))
    term = known.checkpoint.term + _TERMS_AHEAD
    work = work_pb2.WorkBatch(term=term, node_id=node_id, boot_id=boot_id, job_id="forged", spec=spec, items=[probe])
    return Message(f"work.{node_id}", work.SerializeToString())
