"""Data sets that are none, or not what the model takes, on a real fleet: refused with what to do."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from hivefold.client import Fleet, InferOptions, JobOptions, connect
from hivefold.errors import ConflictError, DataRefusedError, InvalidRequestError, Reason
from hivefold.v1 import job_pb2
from tests.integration.fleets import RunningFleet
from tests.integration.refusals import ended, infers, refused

pytestmark = pytest.mark.integration
REFERENCE: Final = InferOptions(by_reference=True)


@pytest.fixture
async def client(fleet: RunningFleet, registered: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A client whose fleet still infers after the test."""
    async with connect(directory=fleet.directory) as client:
        yield client
        await infers(client, registered, tmp_path)


def rows(count: int = 100, columns: int = 4) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ones((count, columns), dtype="<f4")


def _cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def _truncated_npy(path: Path) -> None:
    np.save(path, rows())
    _cut(path, 100)


def _truncated_npz(path: Path) -> None:
    np.savez(path, x=rows())
    _cut(path, 100)


def _damaged_npz(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).random((1000, 4)).astype("<f4"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def _objects(path: Path) -> None:
    np.save(path, np.array([[1, None, {}, ()]], dtype=object), allow_pickle=True)


def _archive_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")


def _text(*lines: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text("\n".join(lines))


FILES: Final[dict[str, tuple[str, Callable[[Path], Any], Reason, str]]] = {
    "empty npy": ("a.npy", lambda path: path.write_bytes(b""), Reason.DATA_INVALID, "empty"),
    "no rows": ("a.npy", lambda path: np.save(path, rows(0)), Reason.DATA_INVALID, "empty"),
    "truncated npy": ("a.npy", _truncated_npy, Reason.DATA_INVALID, "truncated"),
    "header of npy alone": (
        "a.npy",
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
        Reason.DATA_INVALID,
        "header",
    ),
    "objects": ("a.npy", _objects, Reason.DATA_INVALID, "never loaded"),
    "pickle": ("a.npy", lambda path: path.write_bytes(pickle.dumps([1])), Reason.DATA_INVALID, "never loaded"),
    "pickle as csv": ("a.csv", lambda path: path.write_bytes(pickle.dumps([1])), Reason.DATA_INVALID, "never loaded"),
    "truncated npz": ("a.npz", _truncated_npz, Reason.DATA_INVALID, "damaged"),
    "damaged npz": ("a.npz", _damaged_npz, Reason.DATA_INVALID, "a.npz"),
    "npz of text": ("a.npz", _archive_of_text, Reason.DATA_INVALID, "NumPy"),
    "npz of two": ("a.npz", lambda path: np.savez(path, a=rows(), b=rows()), Reason.DATA_INVALID, "a, b"),
    "empty csv": ("a.csv", _text(""), Reason.DATA_INVALID, "empty"),
    "header of csv alone": ("a.csv", _text("a,b,c,d"), Reason.DATA_INVALID, "no rows"),
    "truncated csv": ("a.csv", _text("1,2,3,4", "1,2,3,4", "1,2"), Reason.DATA_INVALID, "line 3"),
    "word in csv": (
        "a.csv",
        _text("1,2,3,4", *["1,2,3,4"] * 40, "1,two,3,4"),
        Reason.DATA_INVALID,
        "line 42, column 2",
    ),
    "far word in csv": ("a.csv", _text(*["1,2,3,4"] * 400_000, "1,2,3,x"), Reason.DATA_INVALID, "line 400001"),
    "binary csv": ("a.csv", lambda path: path.write_bytes(bytes(range(1, 256)) * 9), Reason.DATA_INVALID, "a.csv"),
    "other file": ("a.bin", lambda path: path.write_bytes(b"what is this"), Reason.DATA_INVALID, "numpy.save"),
    "missing": ("a.npy", lambda path: None, Reason.FILE_UNREADABLE, "path"),
    "folder": ("a.npy", lambda path: path.mkdir(), Reason.FILE_UNREADABLE, "path"),
    "pipe": ("a.npy", os.mkfifo, Reason.FILE_UNREADABLE, "regular file"),
    "columns": ("a.npy", lambda path: np.save(path, rows(columns=5)), Reason.SHAPE_MISMATCH, "[5]"),
    "columns of csv": ("a.csv", _text("1,2,3", "4,5,6"), Reason.SHAPE_MISMATCH, "[3]"),
    "dimensions": ("a.npy", lambda path: np.save(path, np.ones((9, 4, 1), "<f4")), Reason.SHAPE_MISMATCH, "[4, 1]"),
    "scalars": ("a.npy", lambda path: np.save(path, np.ones(9, "<f4")), Reason.SHAPE_MISMATCH, "[]"),
    "doubles": ("a.npy", lambda path: np.save(path, np.ones((9, 4)) / 3), Reason.DATA_TYPE_MISMATCH, "FP32"),
    "text": ("a.npy", lambda path: np.save(path, np.array([["a"] * 4])), Reason.DATA_INVALID, "astype"),
    "complex": ("a.npy", lambda path: np.save(path, np.ones((9, 4), "<c8")), Reason.DATA_INVALID, "astype"),
}


@pytest.mark.parametrize("case", FILES)
async def test_files_that_are_no_rows_of_the_model_are_refused(
    client: Fleet, registered: str, tmp_path: Path, case: str
) -> None:
    """Before a job exists, with the place in the file and the next step."""
    name, write, reason, advice = FILES[case]
    path = tmp_path / name
    write(path)
    error = await refused(client.jobs.submit_infer(registered, path), DataRefusedError)

    assert error.reason is reason, error
    assert advice in error.message, error.message


ARRAYS: Final[dict[str, tuple[Any, Reason]]] = {
    "objects": (np.array([[None] * 4], dtype=object), Reason.DATA_INVALID),
    "text": (np.array([["a"] * 4]), Reason.DATA_INVALID),
    "nothing": (np.ones((0, 4), "<f4"), Reason.DATA_INVALID),
    "scalars": (np.ones(3, "<f4"), Reason.SHAPE_MISMATCH),
    "integers": (np.ones((3, 4), "<i8"), Reason.DATA_TYPE_MISMATCH),
    "columns": (np.ones((3, 5), "<f4"), Reason.SHAPE_MISMATCH),
}


@pytest.mark.parametrize("case", ARRAYS)
async def test_arrays_that_do_not_fit_are_refused(client: Fleet, registered: str, case: str) -> None:
    """As files are."""
    array, reason = ARRAYS[case]

    assert (await refused(client.jobs.submit_infer(registered, array), DataRefusedError)).reason is reason


async def test_nan_is_rejected_with_its_row_or_allowed(client: Fleet, registered: str, tmp_path: Path) -> None:
    """The row is that of the data set, wherever it was computed; allowed NaN comes out as NaN."""
    data = rows(5000)
    data[4321, 2] = np.nan
    job = await ended(client, await client.jobs.submit_infer(registered, data))
    assert job.state == job_pb2.JOB_STATE_FAILED
    assert "row 4321" in job.failure.message
    assert job.failure.metadata["row"] == "4321"

    allowed = InferOptions(allow_nan=True)
    job = await ended(client, await client.jobs.submit_infer(registered, data, infer=allowed))
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.failure.message
    await client.jobs.download_output(job.job_id, tmp_path / "nan.npy")
    assert np.isnan(np.load(tmp_path / "nan.npy")[4321, 2])


async def test_outputs_that_the_model_lacks_are_named(client: Fleet, registered: str) -> None:
    """With those that it has."""
    options = InferOptions(outputs=("probabilities",))
    error = await refused(client.jobs.submit_infer(registered, rows(), infer=options), InvalidRequestError)

    assert "it has: y" in error.message


async def reference(client: Fleet, model: str, path: Path) -> job_pb2.Job:
    """A job by reference that begins only after the nodes are undrained."""
    return await client.jobs.submit_infer(model, path, infer=REFERENCE, options=JobOptions(max_attempts=2))


def _replace(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


CHANGES: Final[dict[str, tuple[Callable[[Path], Any], str]]] = {
    "changed": (lambda path: path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1"), "DIGEST_MISMATCH"),
    "shortened": (lambda path: _cut(path, 4), "DIGEST_MISMATCH"),
    "gone": (lambda path: path.unlink(), "FILE_UNREADABLE"),
    "a folder": (lambda path: _replace(path, os.mkdir), "FILE_UNREADABLE"),
    "a pipe": (lambda path: _replace(path, os.mkfifo), "FILE_UNREADABLE"),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_files_by_reference_that_change_fail_their_job(
    client: Fleet, registered: str, tmp_path: Path, case: str
) -> None:
    """Nodes verify what they read: other bytes than those submitted never reach the model."""
    change, why = CHANGES[case]
    path = tmp_path / "rows.npy"
    np.save(path, rows())
    nodes = [node.spec.node_id async for node in client.nodes.list()]
    for node_id in nodes:
        await client.nodes.drain(node_id)
    try:
        job = await reference(client, registered, path)
        change(path)
    finally:
        for node_id in nodes:
            await client.nodes.undrain(node_id)
    job = await ended(client, job)

    assert job.state == job_pb2.JOB_STATE_FAILED
    assert why in job.failure.message or job.failure.metadata
    assert str(path) in job.failure.message or "chunk 0" in job.failure.message, job.failure.message


async def test_files_that_nodes_cannot_take_as_they_are_are_not_referenced(
    client: Fleet, registered: str, tmp_path: Path
) -> None:
    """CSV, compressed and converted rows have to be uploaded: said at submit."""
    for name, write in (("a.csv", _text("1,2,3,4")), ("a.npz", lambda path: np.savez_compressed(path, x=rows()))):
        write(tmp_path / name)
        error = await refused(reference(client, registered, tmp_path / name), DataRefusedError)
        assert "upload" in error.message


async def test_paths_that_are_no_data_set_fail_their_job_alone(client: Fleet, registered: str, tmp_path: Path) -> None:
    """A spec made by hand may name any path: nodes read none that does not have the registered digest."""
    path = tmp_path / "rows.npy"
    np.save(path, rows())
    good = await reference(client, registered, path)
    for elsewhere in ("/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/environ", "/"):
        spec = job_pb2.JobSpec()
        spec.CopyFrom(good.spec)
        spec.infer.data_set.file.path = elsewhere
        job = await ended(client, await client.jobs.submit(spec))
        assert job.state == job_pb2.JOB_STATE_FAILED
        assert "root:" not in job.failure.message
    assert (await ended(client, good)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_there_is_no_output_before_the_end(client: Fleet, registered: str, tmp_path: Path) -> None:
    """Nor of a probe, nor of a cancelled job, nor in a format that does not exist; no file is left behind."""
    nodes = [node.spec.node_id async for node in client.nodes.list()]
    for node_id in nodes:
        await client.nodes.drain(node_id)
    try:
        job = await client.jobs.submit_infer(registered, rows())
        error = await refused(client.jobs.download_output(job.job_id, tmp_path / "early.npz"), ConflictError)
        assert "wait" in error.message
        await client.jobs.cancel(job.job_id)
        await refused(client.jobs.download_output(job.job_id, tmp_path / "never.npz"), ConflictError)
    finally:
        for node_id in nodes:
            await client.nodes.undrain(node_id)
    probe = await ended(client, await client.jobs.submit_probe(1))
    await refused(client.jobs.download_output(probe.job_id, tmp_path / "probe.npz"), ConflictError)
    await refused(client.jobs.download_output(probe.job_id, tmp_path / "probe.pickle"), InvalidRequestError)
    assert list(tmp_path.iterdir()) == []
