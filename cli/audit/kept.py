"""Batches of inference in a file: each a ReadInferenceBatchesResponse, with its length before it as a varint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from coordinator.audit.inference import Contents
from hivefold.durable_file import DurableFile
from hivefold.errors import DataRefusedError
from hivefold.limits import BROKER_MESSAGE_BYTES
from hivefold.oip.responses import varint
from hivefold.v1.audit_service_pb2 import ReadInferenceBatchesResponse

_MOST_BYTES = BROKER_MESSAGE_BYTES + 64


class KeptBatches:
    """Batches out of a file (coordinator.audit.inference.Contents)."""

    def __init__(self, path: Path) -> None:
        """Reads where each batch is. Raises OSError, DataRefusedError."""
        self._path = path
        self._places: dict[int, tuple[int, int]] = {}
        with path.open("rb") as file:
            while (size := _length(file.read(4))) is not None:
                length, digits = size
                start = file.tell() - 4 + digits
                file.seek(start)
                batch = _batch(file.read(length), length, path)
                self._places[batch.position] = (start, length)
                file.seek(start + length)

    async def inference_batches(self, positions: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        """Position and bytes of those that are there."""
        with self._path.open("rb") as file:
            for position in positions:
                if position in self._places:
                    start, length = self._places[position]
                    file.seek(start)
                    yield position, _batch(file.read(length), length, self._path).data


class SavedBatches:
    """Keeps each batch that is read from `source` in a file, too."""

    def __init__(self, source: Contents, file: DurableFile) -> None:
        self._source = source
        self._file = file

    async def inference_batches(self, positions: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        """As `source` has them."""
        async for position, data in self._source.inference_batches(positions):
            entry = ReadInferenceBatchesResponse(position=position, data=data).SerializeToString()
            self._file.write(varint(len(entry)) + entry)
            yield position, data


def _length(head: bytes) -> tuple[int, int] | None:
    """A length and its digits; None at the end of the file. What is no length is 0."""
    if not head:
        return None
    length = 0
    for index, byte in enumerate(head):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return length, index + 1
    return 0, 4


def _batch(data: bytes, length: int, path: Path) -> ReadInferenceBatchesResponse:
    batch = ReadInferenceBatchesResponse()
    try:
        if 0 < length <= _MOST_BYTES and len(data) == length:
            batch.ParseFromString(data)
            return batch
    except DecodeError:
        pass
    raise DataRefusedError(f"{path} holds no batches of inference, or is cut short: write it anew with --save")
