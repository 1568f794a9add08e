"""A signed log of some records, as entries of a log file; and files made of such entries, whatever they hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from coordinator.core import commands as cmd
from coordinator.core.decide import decide
from coordinator.core.draft import Decision
from coordinator.core.model import JobSpec, ProbeSpec, State
from coordinator.wire.records import NewRecord
from hivefold.entropy import SeededEntropy
from hivefold.ids import JobId, RequestId
from hivefold.log.chain import GENESIS_HASH, record_hash
from hivefold.log.file_writer import LogFileStart, LogFileWriter
from hivefold.log.framing import MAGIC, TRAILER, Marks, length_prefix
from hivefold.log.port import TERM_SUBJECT, Entry, Stored
from hivefold.proof.checkpoint import Checkpoint, sign_checkpoint
from hivefold.proof.keys import Signer
from hivefold.proof.merkle import EMPTY, CompactRange, RangeBuilder
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint, SigningKey
from hivefold.v1.log_file_pb2 import LogFileEnd, LogFileEntry, LogFileHeader, LogFileMark
from hivefold.v1.record_pb2 import StoredRecord

_TIME_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A log file's header and entries, without its end; and the key that signed last."""

    header: LogFileHeader
    entries: tuple[LogFileEntry, ...]
    signer: Signer

    @property
    def records(self) -> int:
        """How many records it has."""
        return sum(entry.HasField("record") for entry in self.entries)

    def index_of(self, position: int) -> int:
        """Which of the entries is this record."""
        return next(i for i, entry in enumerate(self.entries) if entry.record.sequence == position)

    def with_entries(self, entries: list[LogFileEntry]) -> SignedFile:
        """Another file with the same header."""
        return replace(self, entries=tuple(entries))

    def to_bytes(self) -> bytes:
        """The file, with an end that fits to what is in it, whatever that is."""
        found, marks, last = LogFileEnd(last_hash=GENESIS_HASH), Marks(), 0
        data = bytearray(MAGIC)
        _append(data, LogFileEntry(header=self.header))
        found.header_digest = hashlib.sha256(data).digest()
        for entry in self.entries:
            if entry.HasField("checkpoint"):
                found.checkpoint_count += 1
            else:
                last += 1
                marks.record(last, len(data))
                found.record_count, found.last_sequence, found.last_hash = last, last, entry.record.hash
                if entry.record.subject == TERM_SUBJECT:
                    found.last_term_sequence = last
            _append(data, entry)
        at, found.digest = len(data), hashlib.sha256(data).digest()
        found.marks.extend(LogFileMark(sequence=s, offset=o) for s, o in marks.found)
        _append(data, LogFileEntry(end=found))
        return bytes(data + TRAILER.pack(at))


class LogSigner:
    """Makes a log: records that follow from each other, checkpoints, rotations."""

    def __init__(self, seed: int) -> None:
        self.entropy = SeededEntropy(seed)
        self.signer = Signer.of_seed(self.entropy.draw(32))
        self.state = State()
        self.entries: list[LogFileEntry] = []
        self.chain_id = b""
        self._hash = GENESIS_HASH
        self._tree: CompactRange = EMPTY
        self._since = RangeBuilder(EMPTY)
        self.keys: list[SigningKey] = []

    def record(self, body: cmd.CommandBody) -> None:
        """Decides and appends."""
        command = cmd.Command(_TIME_US + self.state.sequence * 1000, body)
        decision = decide(self.state, command)
        assert isinstance(decision, Decision)
        self.state = decision.state
        position = self.state.sequence
        new = NewRecord(position, self.state.term, self.entropy.draw(16), command, decision.events, self._hash).entry()
        self.append(position, new)

    def append(self, position: int, entry: Entry) -> None:
        """Adds a stored record."""
        self._hash = record_hash(position, entry.subject, entry.data)
        self.chain_id = self.chain_id or self._hash
        self._since.add(self._hash)
        stored = StoredRecord(sequence=position, subject=entry.subject, data=entry.data, hash=self._hash)
        self.entries.append(LogFileEntry(record=stored))

    def change_key(self, request_id: str = "") -> None:
        """Names the first key, or rotates."""
        old, new = self.signer, self.signer
        endorsement, previous = b"", ""
        if self.keys:
            new = Signer.of_seed(self.entropy.draw(32))
            endorsement, previous = old.endorse(self.chain_id, new.public), old.public.key_id
        public = new.public
        self.record(cmd.ChangeSigningKey(public.key_id, public.raw, previous, endorsement, RequestId(request_id)))
        self.keys.append(
            SigningKey(key_id=public.key_id, public_key=public.raw, previous_key_id=previous, endorsement=endorsement)
        )
        self.signer = new

    def checkpoint(self) -> None:
        """Signs what is there."""
        since = self._since.range()
        tree = self._tree.joined(since)
        claim = Checkpoint(self.chain_id, tree.end, tree.root(), self.state.term, self._hash)
        signed = SignedCheckpoint(
            note=sign_checkpoint(claim, self.signer),
            range=since.hashes,
            previous_size=since.begin,
            keys=self.keys,
            frontier=tree.hashes,
        )
        self.entries.append(LogFileEntry(checkpoint=signed))
        self._tree, self._since = tree, RangeBuilder(CompactRange(tree.end, tree.end))


def signed_log(seed: int, records: int, every: int = 7) -> LogSigner:
    """A log with a checkpoint after every few records and one after the last, two terms, one rotation."""
    log = LogSigner(seed)
    log.record(cmd.StartTerm("c1", "0"))
    log.change_key()
    while log.state.sequence < records:
        number = log.state.sequence
        if number == records // 2:
            log.record(cmd.StartTerm("c2", "0"))
        elif number == records // 3:
            log.change_key("r1")
        else:
            spec = JobSpec(ProbeSpec(1 + number % 5))
            log.record(cmd.SubmitJob(JobId(f"j{seed}-{number}"), RequestId(f"r{seed}-{number}"), spec))
        if log.state.sequence % every == 0 or log.state.sequence == records:
            log.checkpoint()
    return log


def signed_file(log: LogSigner, directory: Path) -> SignedFile:
    """The log as its file has it, with the header that the writer writes."""
    from hivefold.log.file import LogFileReader

    path = directory / "header.hflog"
    with LogFileWriter(path, LogFileStart(log.chain_id, keys=log.keys), replace=True) as writer:
        first = log.entries[0].record
        writer.record(Stored(1, first.subject, first.data))
    with LogFileReader(path) as reader:
        return SignedFile(reader.header, tuple(log.entries), log.signer)


def _append(data: bytearray, entry: LogFileEntry) -> None:
    body = entry.SerializeToString()
    data += length_prefix(len(body)) + body
