"""From what a caller has (a file, an array) to a data set that the fleet can read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from hivefold.client.blobs import Blobs
from hivefold.client.sending import Progress
from hivefold.datasets import DataSetSource, open_array, open_data_set
from hivefold.v1 import job_pb2, model_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rows: TypeAlias = "Path | str | NDArray[np.generic]"
"""What a caller may give: a file, or an array whose first axis counts the rows."""
_PREFIX = "DATA_TYPE_"


async def stored(
    blobs: Blobs,
    rows: Rows,
    data_type: str,
    member: str = "",
    *,
    lossy: bool = False,
    request_id: str = "",
    on_progress: Progress | None = None,
) -> job_pb2.DataSet:
    """Uploads the rows of a file or an array, converted to `data_type` ("FP32"; "" leaves them).

    Values keep what they are, unless `lossy` lets them be rounded. `on_progress` gets bytes sent and bytes in
    all. The same rows under the same `request_id` give the same data set. Raises DataRefusedError.
    """
    source = await asyncio.to_thread(lambda: _opened(rows, member))
    source = source.as_type(data_type or source.data_type, lossy=lossy)
    blob = await blobs.upload(source.pieces, source.size_bytes, request_id, on_progress=on_progress)
    return job_pb2.DataSet(
        blob=blob,
        data_type=_type_number(source.data_type),
        row_shape=source.row_shape,
        row_count=source.row_count,
        origin=str(source.path),
    )


async def referenced_file(blobs: Blobs, path: Path | str, member: str = "", *, request_id: str = "") -> job_pb2.DataSet:
    """Registers a file that every node can read at the same path.

    The same file under the same `request_id` gives the same data set. Raises DataRefusedError.
    """
    absolute = Path(path).absolute()
    source = await asyncio.to_thread(lambda: open_data_set(absolute, member=member))
    offset = source.reference_offset_bytes()
    content = await blobs.register_file(absolute, request_id)
    return job_pb2.DataSet(
        file=job_pb2.FileRef(path=str(absolute), content=content),
        data_type=_type_number(source.data_type),
        row_shape=source.row_shape,
        row_count=source.row_count,
        data_offset_bytes=offset,
        origin=str(path),
    )


def arrays(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by their names."""
    import numpy as np

    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _opened(rows: Rows, member: str) -> DataSetSource:
    import numpy as np

    return open_data_set(rows, member=member) if isinstance(rows, Path | str) else open_array(np.asarray(rows))


def _type_number(name: str) -> model_pb2.DataType.ValueType:
    return model_pb2.DataType.Value(_PREFIX + name)


def type_name(number: model_pb2.DataType.ValueType) -> str:
    """The enum as "FP32"."""
    return model_pb2.DataType.Name(number).removeprefix(_PREFIX)
