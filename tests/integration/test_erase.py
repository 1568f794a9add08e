"""Erased means gone: no byte of the store opens, or shows, what a job read and wrote."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hivefold.client import connect_sync
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class _Work:
    """A job, its rows, and the file with its output."""

    job_id: str
    rows: NDArray[np.float32]
    output: Path

    def traces(self) -> dict[str, bytes]:
        """What must not be found: rows and outputs here and there, and digests that a guess could be held against."""
        found: dict[str, bytes] = {}
        for name, array in (("row", self.rows), ("output row", 2 * self.rows)):
            every = max(1, len(array) // 50)
            found |= {f"{name} {at}": array[at].tobytes() for at in range(0, len(array), every)}
            for what, data in (("all", array.tobytes()), ("first", array[0].tobytes())):
                digest = hashlib.sha256(data)
                found[f"digest of {name}s, {what}"] = digest.digest()
                found[f"digest of {name}s, {what}, hex"] = digest.hexdigest().encode()
        return found


def _run(fleet: RunningFleet, folder: Path, name: str, row_count: int) -> _Work:
    rows = np.random.default_rng(row_count).standard_normal((row_count, 4), dtype=np.float32)
    np.save(folder / f"{name}.npy", rows)
    output = folder / f"{name}-out.npy"
    job = fleet.json("job", "submit", "infer", "--input", folder / f"{name}.npy", "--model", "double", "--wait")
    assert fleet.run("job", "output", job["jobId"], output).returncode == 0
    assert np.array_equal(np.load(output), 2 * rows)
    return _Work(job["jobId"], rows, output)


def _files(*places: Path) -> Iterator[tuple[Path, bytes]]:
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                yield path, path.read_bytes()


def _found(traces: dict[str, bytes], *places: Path) -> list[str]:
    return [f"{what} in {path}" for path, data in _files(*places) for what, trace in traces.items() if trace in data]


def _secrets(directory: Path) -> dict[str, bytes]:
    """The data keys as the broker has them on the disk, by name: after the subject come the headers, then the key."""
    found = {}
    for path, data in _files(directory):
        at = -1
        while path.suffix == ".blk" and (at := data.find(b"key.", at + 1)) >= 0:
            name = data[at + 4 : at + 4 + 66].split(b"NATS/1.0", 1)[0][:-4].decode("ascii", "ignore")
            start = at + 4 + len(name)
            (size,) = struct.unpack("<I", data[start : start + 4])
            if name and size < 1000:
                found[name] = data[start + 4 + size : start + 36 + size]
    return found


def test_nothing_of_an_erased_job_is_left_in_the_store(tmp_path: Path) -> None:
    """Neither in the log, the blobs, the results, the keys nor an export; the log replays; other jobs are as before."""
    directory = tmp_path / "hf"
    doubling_model(tmp_path / "double.onnx")
    with running_fleet(directory, node_count=2) as fleet:
        with connect_sync(directory=directory) as client:
            client.add_model(tmp_path / "double.onnx", "double")
        small, large = _run(fleet, tmp_path, "small", 30), _run(fleet, tmp_path, "large", 300_000)
        kept = _run(fleet, tmp_path, "kept", 40)
        secrets = _secrets(directory)
        gone = {name: secret for name, secret in secrets.items() if kept.job_id not in name}
        assert {f"j.{work.job_id}" for work in (small, large, kept)} <= set(secrets)
        assert len(secrets) == 6, "one key a job, one an input"

        assert fleet.run("job", "erase", small.job_id).returncode == 2, "nobody agreed"
        for work in (small, large, small):
            assert fleet.json("job", "erase", work.job_id, "--yes")["eraseTime"]
            refused = fleet.run("job", "output", work.job_id, tmp_path / "none.npz")
            assert refused.returncode == 1
            assert "were erased" in refused.stderr
        assert fleet.run("log", "export", tmp_path / "log.hfl").returncode == 0
        replayed = fleet.json("log", "replay")
        fleet.stop()

    of_kept = {name: secret for name, secret in _secrets(directory).items() if secret in secrets.values()}
    assert f"j.{kept.job_id}" in of_kept
    assert len(of_kept) == 2
    gone = {name: secret for name, secret in secrets.items() if name not in of_kept}
    store = (directory, tmp_path / "log.hfl")
    assert _found(gone, *store) == []
    assert _found(small.traces() | large.traces() | kept.traces(), *store) == []
    assert _found({"a job": kept.job_id.encode()}, *store), "the search finds what is there"

    with running_fleet(directory, node_count=2) as fleet:
        again = fleet.json("log", "replay", tmp_path / "log.hfl")
        assert again["stateDigest"] == replayed["stateDigest"]
        assert fleet.run("job", "output", kept.job_id, tmp_path / "again.npy").returncode == 0
        assert (tmp_path / "again.npy").read_bytes() == kept.output.read_bytes()
        refused = fleet.run("job", "output", large.job_id, tmp_path / "none.npz")
        assert "were erased" in refused.stderr


def test_an_open_job_is_not_erased(tmp_path: Path) -> None:
    """It is refused with what to do; once cancelled it can be."""
    with running_fleet(tmp_path / "hf", node_count=1) as fleet:
        job = fleet.json("job", "submit", "probe", "--tasks", "5", "--task-duration", "60")["jobId"]
        refused = fleet.run("job", "erase", job, "--yes", "-o", "json")
        assert refused.returncode == 1
        assert f"hivefold job cancel {job}" in refused.stderr
        assert fleet.run("job", "cancel", job).returncode == 0
        assert json.loads(fleet.run("job", "erase", job, "--yes", "-o", "json").stdout)["eraseTime"]
