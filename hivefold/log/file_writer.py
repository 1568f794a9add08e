"""Writes a log, or a part of it, as one self-contained file (docs/log-format.md), in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from hivefold.durable_file import DurableFile
from hivefold.errors import LogCorruptError
from hivefold.limits import LOG_FILE_ENTRY_BYTES, LOG_FILE_READ_BYTES
from hivefold.log.chain import GENESIS_HASH, record_hash
from hivefold.log.framing import FORMAT_VERSION, MAGIC, TRAILER, Marks, length_prefix
from hivefold.log.port import TERM_SUBJECT, Stored
from hivefold.log.schema import record_schema
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint, SigningKey
from hivefold.v1.log_file_pb2 import LogFileEnd, LogFileEntry, LogFileHeader, LogFileMark
from hivefold.v1.record_pb2 import StoredRecord
from hivefold.version import VERSION


@dataclass(frozen=True, slots=True)
class LogFileStart:
    """Where a file begins in its log.

    `chain_id` is the hash of record 1 (empty for a log without records), `previous_hash` that of the record
    before `first_sequence`; `keys` are those that sign checkpoints, oldest first.
    """

    chain_id: bytes
    first_sequence: int = 1
    previous_hash: bytes = GENESIS_HASH
    keys: Sequence[SigningKey] = ()
    create_time_us: int = 0


class LogFileWriter:
    """Writes a log file; a context manager. The file appears under its name, durable, when the block ends well.

    Only its owner may read it. Raises ConflictError when it exists and is not to be replaced, OSError.
    """

    def __init__(self, path: Path, start: LogFileStart, *, replace: bool = False) -> None:
        self._file = DurableFile(path, replace=replace)
        self._start = start
        self._end = LogFileEnd(last_sequence=start.first_sequence - 1)
        self._last_hash = start.previous_hash
        """Not in the message while it changes: what a message once held, it keeps until it goes itself."""
        self._marks = Marks()
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._offset = 0
        self.signed_up_to = 0
        """Position of the record that the last checkpoint was added after; 0 before the first."""

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._offset

    @property
    def record_count(self) -> int:
        """Records written so far."""
        return self._end.record_count

    @property
    def checkpoint_count(self) -> int:
        """Checkpoints written so far."""
        return self._end.checkpoint_count

    @property
    def last_sequence(self) -> int:
        """Position of the last record written; before the first, the one before it."""
        return self._end.last_sequence

    @property
    def last_hash(self) -> bytes:
        """Hash of the last record written; before the first, that of the one before it."""
        return self._last_hash

    def __enter__(self) -> Self:
        self._file.open()
        self._write(MAGIC)
        self._entry(LogFileEntry(header=self._header()))
        self._flush()
        self._end.header_digest = self._digest.digest()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
                self._file.commit()
        finally:
            self._file.discard()

    def record(self, stored: Stored) -> None:
        """Adds the next record. Raises LogCorruptError when it is not the next."""
        end, position = self._end, stored.sequence
        if position != end.last_sequence + 1:
            raise LogCorruptError(
                f"record {end.last_sequence + 1} is missing: the log goes on with {position}",
                position=end.last_sequence + 1,
            )
        digest = record_hash(position, stored.subject, stored.data)
        if position == 1 and digest != self._start.chain_id:
            raise LogCorruptError("record 1 is not that of this log", position=1)
        end.last_sequence, self._last_hash, end.record_count = position, digest, end.record_count + 1
        if stored.subject == TERM_SUBJECT:
            end.last_term_sequence = position
        self._marks.record(position, self._offset)
        record = StoredRecord(sequence=position, subject=stored.subject, data=stored.data, hash=digest)
        self._entry(LogFileEntry(record=record))

    def records(self, page: Iterable[Stored]) -> None:
        """Adds the next records. Raises LogCorruptError at the first that is not the next."""
        for stored in page:
            self.record(stored)

    def checkpoint(self, signed: SignedCheckpoint) -> None:
        """Adds a checkpoint. It MUST commit to the records up to the one that was added last."""
        self._end.checkpoint_count += 1
        self.signed_up_to = self.last_sequence
        self._entry(LogFileEntry(checkpoint=signed))

    def _header(self) -> LogFileHeader:
        start, time = self._start, Timestamp()
        time.FromMicroseconds(start.create_time_us)
        return LogFileHeader(
            format_version=FORMAT_VERSION,
            chain_id=start.chain_id,
            first_sequence=start.first_sequence,
            previous_hash=start.previous_hash,
            keys=start.keys,
            schema=record_schema(),
            code_version=VERSION,
            create_time=time,
        )

    def _finish(self) -> None:
        self._flush()
        at = self._offset
        self._end.last_hash, self._end.digest = self._last_hash, self._digest.digest()
        self._end.marks.extend(LogFileMark(sequence=s, offset=offset) for s, offset in self._marks.found)
        self._entry(LogFileEntry(end=self._end))
        self._write(TRAILER.pack(at))
        self._flush()

    def _entry(self, entry: LogFileEntry) -> None:
        body = entry.SerializeToString()
        if len(body) > LOG_FILE_ENTRY_BYTES:
            raise ValueError(f"an entry of {len(body)} bytes is larger than LOG_FILE_ENTRY_BYTES")
        self._write(length_prefix(len(body)))
        self._write(body)

    def _write(self, data: bytes) -> None:
        self._pending += data
        self._offset += len(data)
        if len(self._pending) >= LOG_FILE_READ_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._digest.update(self._pending)
        self._file.write(self._pending)
        self._pending.clear()
