"""Verifies a log file (docs/log-format.md) from its first byte to its last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hivefold.errors import LogCorruptError, LogFileInvalidError, ProofError
from hivefold.limits import READ_PAGE_RECORDS
from hivefold.log.file import LogFileReader
from hivefold.log.port import Stored
from hivefold.proof.extension import Proven
from hivefold.proof.key_history import check_keys
from hivefold.proof.keys import KeyStatement
from hivefold.proof.verifier import Beginning, LogVerifier, Verified


def verify_file(
    path: Path,
    *,
    key_id: str = "",
    witness: Proven | None = None,
    progress: Callable[[int, int], None] = lambda _bytes, _of: None,
) -> Verified:
    """What the file proves; `key_id` and `witness` are as for LogVerifier. Constant memory.

    `progress` is called with the bytes done and the size now and then.
    Raises LogCorruptError with the first bad position, OSError.
    """
    with LogFileReader(path) as reader:
        header = reader.header
        partial = header.first_sequence > 1
        keys = [KeyStatement(k.key_id, k.public_key, k.previous_key_id, k.endorsement) for k in header.keys]
        try:
            check_keys(keys, header.chain_id)
        except ProofError as error:
            raise LogCorruptError(error.message, position=1) from None
        beginning = Beginning(
            header.first_sequence, header.previous_hash, header.chain_id, tuple(keys) if partial else ()
        )
        verifier = LogVerifier(beginning, key_id=key_id, witness=witness)
        try:
            _feed(reader, verifier, progress)
        except LogFileInvalidError as error:
            raise LogCorruptError(error.message, position=verifier.first_bad(error.position)) from error
        return verifier.result()


def _feed(reader: LogFileReader, verifier: LogVerifier, progress: Callable[[int, int], None]) -> None:
    size = reader.size_bytes
    for offset, entry in reader.entries():
        match entry.WhichOneof("entry"):
            case "record":
                record = entry.record
                verifier.record(Stored(record.sequence, record.subject, record.data), record.hash)
                if record.sequence % READ_PAGE_RECORDS == 0:
                    progress(offset, size)
            case "checkpoint":
                verifier.checkpoint(entry.checkpoint)
            case _:
                progress(size, size)
