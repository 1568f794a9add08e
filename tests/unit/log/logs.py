"""Records and files of logs for tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from hivefold.log.chain import GENESIS_HASH, record_hash
from hivefold.log.file_writer import LogFileStart, LogFileWriter
from hivefold.log.port import Stored
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def golden_records(version: str = "0.1.0") -> list[Stored]:
    """The records of a release's log."""
    _, *lines = (GOLDEN / f"{version}.jsonl").read_text(encoding="utf-8").splitlines()
    parsed = [json.loads(line) for line in lines]
    return [Stored(n, line["subject"], base64.b64decode(line["data"])) for n, line in enumerate(parsed, 1)]


def hash_of(stored: Stored) -> bytes:
    """A record's hash."""
    return record_hash(stored.sequence, stored.subject, stored.data)


def write_file(path: Path, records: Sequence[Stored], *, first: int = 1, checkpoint_at: int = 0) -> Path:
    """Writes the records from `first` on, a made-up checkpoint after that at `checkpoint_at`."""
    previous = hash_of(records[first - 2]) if first > 1 else GENESIS_HASH
    start = LogFileStart(hash_of(records[0]) if records else b"", first_sequence=first, previous_hash=previous)
    with LogFileWriter(path, start) as writer:
        for stored in records[first - 1 :]:
            writer.record(stored)
            if stored.sequence == checkpoint_at:
                writer.checkpoint(SignedCheckpoint(note="note", previous_size=0))
    return path
