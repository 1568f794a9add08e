"""From what a caller has (a file, an array) to a data set that the fleet can read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hivefold import limits
from hivefold.client.blobs import Blobs
from hivefold.datasets import open_data_set
from hivefold.errors import DataRefusedError, Reason
from hivefold.v1 import job_pb2, model_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PREFIX = "DATA_TYPE_"


async def stored_file(
    blobs: Blobs, path: Path | str, data_type: str, member: str = "", *, lossy: bool = False
) -> job_pb2.DataSet:
    """Uploads the rows of a file, converted to `data_type` ("FP32"; "" leaves them).

    Values keep what they are, unless `lossy` lets them be rounded. Raises DataRefusedError.
    """
    source = await asyncio.to_thread(lambda: open_data_set(path, member=member))
    source = source.as_type(data_type or source.data_type, lossy=lossy)
    blob = await blobs.upload(source.pieces(), source.size_bytes)
    return job_pb2.DataSet(
        blob=blob,
        data_type=_type_number(source.data_type),
        row_shape=source.row_shape,
        row_count=source.row_count,
        origin=str(path),
    )


async def referenced_file(blobs: Blobs, path: Path | str, member: str = "") -> job_pb2.DataSet:
    """Registers a file that every node can read at the same path. Raises DataRefusedError."""
    absolute = Path(path).absolute()
    source = await asyncio.to_thread(lambda: open_data_set(absolute, member=member))
    offset = source.reference_offset_bytes()
    content = await blobs.register_file(absolute)
    return job_pb2.DataSet(
        file=job_pb2.FileRef(path=str(absolute), content=content),
        data_type=_type_number(source.data_type),
        row_shape=source.row_shape,
        row_count=source.row_count,
        data_offset_bytes=offset,
        origin=str(path),
    )


async def stored_array(blobs: Blobs, rows: NDArray[np.generic]) -> job_pb2.DataSet:
    """Uploads an array; its first axis counts the rows. Raises DataRefusedError."""
    import numpy as np

    from hivefold.datasets.data_types import parse_description

    array = np.ascontiguousarray(rows)
    parsed = parse_description(array.dtype.str)
    if parsed is None or not array.ndim or not array.size:
        raise DataRefusedError(
            f"an array of {array.dtype} and shape {array.shape} is no data set: "
            "give numbers, the first axis counting the rows",
            reason=Reason.DATA_INVALID,
        )
    data_type, big_endian = parsed
    if big_endian:
        array = array.astype(array.dtype.newbyteorder("<"))
    blob = await blobs.upload(_slices(array.data.cast("B")), array.nbytes)
    return job_pb2.DataSet(
        blob=blob,
        data_type=_type_number(data_type),
        row_shape=array.shape[1:],
        row_count=array.shape[0],
        origin="array",
    )


def _slices(view: memoryview) -> Iterator[bytes]:
    for start in range(0, len(view), limits.STREAM_PIECE_BYTES):
        yield bytes(view[start : start + limits.STREAM_PIECE_BYTES])


def _type_number(name: str) -> model_pb2.DataType.ValueType:
    return model_pb2.DataType.Value(_PREFIX + name)


def type_name(number: model_pb2.DataType.ValueType) -> str:
    """The enum as "FP32"."""
    return model_pb2.DataType.Name(number).removeprefix(_PREFIX)
