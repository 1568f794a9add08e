"""A log as JSON lines: for programs that would rather not parse protobuf."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cli.output import as_plain
from hivefold.durable_file import DurableFile
from hivefold.log.chain import record_hash
from hivefold.log.file_writer import LogFileStart
from hivefold.log.port import Stored
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint
from hivefold.v1.record_pb2 import Record
from hivefold.version import VERSION


class JsonLinesWriter:
    """Writes a log file's entries as JSON lines (docs/log-format.md); a context manager as LogFileWriter is."""

    def __init__(self, path: Path, start: LogFileStart, *, replace: bool = False) -> None:
        self._file = DurableFile(path, replace=replace)
        self._start = start
        self.size_bytes = 0
        self.record_count = 0
        self.last_sequence = start.first_sequence - 1
        self.last_hash = start.previous_hash
        self.checkpoint_count = self.signed_up_to = 0

    def __enter__(self) -> Self:
        self._file.open()
        start = self._start
        header = {
            "chainId": start.chain_id.hex(),
            "firstSequence": str(start.first_sequence),
            "previousHash": start.previous_hash.hex(),
            "keys": [as_plain(key) for key in start.keys],
            "codeVersion": VERSION,
        }
        self._line("header", header)
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
        """Adds the next record, both as it is stored and in protobuf's JSON mapping."""
        self.last_sequence, self.record_count = stored.sequence, self.record_count + 1
        self.last_hash = record_hash(stored.sequence, stored.subject, stored.data)
        plain = {
            "subject": stored.subject,
            "hash": self.last_hash.hex(),
            "data": base64.b64encode(stored.data).decode(),
            **as_plain(Record.FromString(stored.data)),
        }
        self._line("record", plain)

    def checkpoint(self, signed: SignedCheckpoint) -> None:
        """Adds a checkpoint."""
        self.checkpoint_count, self.signed_up_to = self.checkpoint_count + 1, self.last_sequence
        self._line("checkpoint", as_plain(signed))

    def _finish(self) -> None:
        end = {
            "recordCount": str(self.record_count),
            "lastSequence": str(self.last_sequence),
            "lastHash": self.last_hash.hex(),
            "checkpointCount": str(self.checkpoint_count),
        }
        self._line("end", end)

    def _line(self, name: str, value: dict[str, Any]) -> None:
        line = json.dumps({name: value}, ensure_ascii=False).encode() + b"\n"
        self._file.write(line)
        self.size_bytes += len(line)
