"""Opens a data set by what its file holds."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final

from hivefold.datasets.binary import ARCHIVE_ERRORS, BinaryRows, Opening
from hivefold.datasets.npy import MAGIC, ArrayHeader, check_size, read_header, refused
from hivefold.datasets.source import DataSetSource
from hivefold.datasets.text import open_csv
from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import ARCHIVE_MEMBERS

_ZIP_MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLE_MAGIC: Final = b"\x80"
_TEXT_SUFFIXES: Final = frozenset({".csv", ".tsv", ".txt"})
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_ENCRYPTED: Final = 1


def open_data_set(path: str | Path, *, member: str = "") -> DataSetSource:
    """Opens a .npy, .npz or .csv file: reads its header only (a CSV file is read once to count its rows).

    `member` names the array of a .npz that holds several. The format is told from the content, not
    from the name. Raises DataRefusedError with what to do: FILE_UNREADABLE, DATA_INVALID,
    DATA_TYPE_MISMATCH, LIMIT_EXCEEDED.
    """
    path = Path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise refused(path.name, "it is not a regular file: save the rows to one", Reason.FILE_UNREADABLE)
        with path.open("rb") as file:
            start = file.read(8)
        if member and not start.startswith(_ZIP_MAGICS):
            raise refused(path.name, f"only .npz files have members: leave {member!r} away")
        if start.startswith(MAGIC):
            return _open_npy(path)
        if start.startswith(_ZIP_MAGICS):
            return _open_npz(path, member)
        if not start:
            raise refused(path.name, "it is empty: give at least one row")
        if path.suffix.lower() in _TEXT_SUFFIXES and not start.startswith(_PICKLE_MAGIC):
            return open_csv(path)
    except OSError as error:
        raise DataRefusedError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions.",
            reason=Reason.FILE_UNREADABLE,
            metadata={"path": str(path)},
        ) from error
    raise refused(path.name, _why_unknown(start))


def _why_unknown(start: bytes) -> str:
    if start.startswith(_PICKLE_MAGIC):
        return "it looks like a Python pickle, which is never loaded: write it with numpy.save"
    return "it is none of .npy, .npz and .csv: write it with numpy.save"


def _open_npy(path: Path) -> DataSetSource:
    with path.open("rb") as file:
        header = read_header(file, path.name)
        check_size(header, file.seek(0, 2), path.name)
    return _source(path, header, partial(path.open, "rb"), 0)


def _open_npz(path: Path, member: str) -> DataSetSource:
    try:
        with zipfile.ZipFile(path) as archive:
            entry = _choose(archive, path.name, member)
            name = f"{path.name}[{entry.filename.removesuffix('.npy')}]"
            if entry.flag_bits & _ENCRYPTED:
                raise refused(name, "it is encrypted: write it with numpy.savez")
            if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise refused(name, "it is compressed in an unusual way: write it with numpy.savez_compressed")
            with archive.open(entry) as file:
                header = read_header(file, name)
            check_size(header, entry.file_size, name)
        if entry.compress_type == zipfile.ZIP_STORED:
            start = _member_offset(path, entry)
            return _source(path, header, partial(path.open, "rb"), start)
    except ARCHIVE_ERRORS as error:
        raise refused(
            path.name, f"its archive is damaged ({error}): copy it again, or write it with numpy.savez"
        ) from None
    return _source(path, header, partial(_open_member, path, entry.filename), None)


def _choose(archive: zipfile.ZipFile, name: str, member: str) -> zipfile.ZipInfo:
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    if len(entries) > ARCHIVE_MEMBERS:
        raise refused(name, f"it has more than {ARCHIVE_MEMBERS} members: write one array with numpy.save")
    names = ", ".join(sorted(entries)[:10])
    if not entries:
        raise refused(name, "it holds no array: give at least one row")
    if member:
        found = entries.get(member.removesuffix(".npy"))
        if found is None:
            raise refused(name, f"it has no member {member!r}: choose one of {names}")
        return found
    if len(entries) > 1:
        raise refused(name, f"it holds several arrays: name one of {names}")
    return next(iter(entries.values()))


def _member_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes start: its local header may differ in length from the directory's."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise zipfile.BadZipFile("a member starts after its end")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if start + entry.file_size > file.seek(0, 2):
            raise zipfile.BadZipFile("a member ends after its end")
        return int(start)


@contextmanager
def _open_member(path: Path, filename: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(filename) as file:
        yield file


def _source(path: Path, header: ArrayHeader, opening: Opening, start: int | None) -> DataSetSource:
    """`start` is where the array's header lies in the file; None where its bytes do not lie in it as they are."""
    rows = BinaryRows(
        path=path,
        opening=opening,
        offset_bytes=(start or 0) + header.offset_bytes,
        size_bytes=header.size_bytes,
        stored_type=header.data_type,
        big_endian=header.big_endian,
        data_type=header.data_type,
    )
    readable = start is not None and not header.big_endian
    return DataSetSource(
        path=path,
        data_type=header.data_type,
        row_shape=header.shape[1:],
        row_count=header.shape[0],
        data_offset_bytes=rows.offset_bytes if readable else None,
        rows=rows,
    )
