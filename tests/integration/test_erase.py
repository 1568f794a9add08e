"""Erased means gone: no byte of the store opens, or shows, what a job read and wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hivefold.blobs.files import manifest_of_file
from hivefold.blobs.manifest import Manifest
from hivefold.client import connect
from tests.fixtures.onnx_models import doubling_model, looking_up_model
from tests.integration.fleets import START_S, RunningFleet, running_fleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class _Work:
    """A job, its rows, and the file with its output."""

    job_id: str
    rows: NDArray[np.float32]
    output: Path
    file: Manifest

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
        found["root of the file"] = self.file.root.encode()
        return found | {f"chunk {at} of the file": self.file.digest(at) for at in range(self.file.chunk_count)}


def _run(fleet: RunningFleet, folder: Path, name: str, row_count: int, *options: str) -> _Work:
    rows = np.random.default_rng(row_count).standard_normal((row_count, 4), dtype=np.float32)
    np.save(folder / f"{name}.npy", rows)
    output = folder / f"{name}-out.npy"
    source = folder / f"{name}.npy"
    job = fleet.json("job", "submit", "infer", "--input", source, "--model", "double", "--wait", *options)
    assert fleet.run("job", "output", job["jobId"], output).returncode == 0
    assert np.array_equal(np.load(output), 2 * rows)
    return _Work(job["jobId"], rows, output, manifest_of_file(source))


def _files(*places: Path) -> Iterator[tuple[Path, bytes]]:
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                yield path, path.read_bytes()


def _unpacked(data: bytes) -> Iterator[bytes]:
    """What lies compressed in a file, as parts of snapshots do."""
    for found in re.finditer(rb"\x78[\x01\x9c\xda]", data):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj().decompress(data[found.start() :])


def _found(traces: dict[str, bytes], *places: Path) -> list[str]:
    return [
        f"{what} in {path}"
        for path, stored in _files(*places)
        for data in (stored, *_unpacked(stored))
        for what, trace in traces.items()
        if trace in data
    ]


def _snapshots(directory: Path) -> list[Path]:
    """The files that hold snapshots."""
    (streams,) = (directory / "nats" / "store" / "jetstream" / "CORE" / "streams",)
    return sorted(streams.glob("HF_SNAPSHOTS/msgs/*.blk"))


def snapshot_often(fleet: RunningFleet) -> None:
    """Has the coordinator started again, to write a snapshot every few records, and waits until it answers."""
    config = fleet.directory / "config" / "coordinator.toml"
    config.write_text(f"snapshot_records = 5\n{config.read_text()}")
    os.kill(fleet.endpoints["pids"]["coordinator"], signal.SIGKILL)
    deadline = time.monotonic() + START_S
    while fleet.run("node", "ls").returncode:
        assert time.monotonic() < deadline, fleet.said()


def until_snapshot(directory: Path) -> None:
    """Waits until a snapshot is stored."""
    deadline = time.monotonic() + 30
    while not any(b"manifest" in path.read_bytes() for path in _snapshots(directory)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


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
    """Neither in the log, its mirror, the blobs, the results, the keys, a snapshot nor an export, before and after a
    restart; the log verifies and replays; other jobs are as before."""
    directory, exported = tmp_path / "hf", tmp_path / "log.hflog"
    doubling_model(tmp_path / "double.onnx")
    with running_fleet(directory, node_count=2) as fleet:
        snapshot_often(fleet)
        with connect(directory=directory) as client:
            client.models.add(tmp_path / "double.onnx", "double")
        small, large = _run(fleet, tmp_path, "small", 30), _run(fleet, tmp_path, "large", 300_000)
        by_path = _run(fleet, tmp_path, "lying", 300, "--by-reference")
        kept = _run(fleet, tmp_path, "kept", 40)
        secrets = _secrets(directory)
        assert {f"j.{work.job_id}" for work in (small, large, by_path, kept)} <= set(secrets)
        assert len(secrets) == 8, "one key a job, one an input"

        assert fleet.run("job", "erase", small.job_id).returncode == 2, "nobody agreed"
        for work in (small, large, by_path, small):
            assert fleet.json("job", "erase", work.job_id, "--yes")["eraseTime"]
            refused = fleet.run("job", "output", work.job_id, tmp_path / "none.npz")
            assert refused.returncode == 1
            assert "were erased" in refused.stderr
        assert fleet.run("log", "export", exported).returncode == 0
        replayed = fleet.json("log", "replay")
        until_snapshot(directory)
        fleet.stop()

    of_kept = {name: secret for name, secret in _secrets(directory).items() if secret in secrets.values()}
    assert f"j.{kept.job_id}" in of_kept
    assert len(of_kept) == 2
    gone = {name: secret for name, secret in secrets.items() if name not in of_kept}
    traces = small.traces() | large.traces() | by_path.traces() | kept.traces()
    assert _found(gone | traces, directory, exported) == []
    assert _found({"a job": kept.job_id.encode()}, exported), "the search finds what is there"
    assert _found({"a job": small.job_id.encode()}, *_snapshots(directory)), "also where it is compressed"

    with running_fleet(directory, node_count=2) as fleet:
        again = fleet.json("log", "replay", exported)
        assert again["stateDigest"] == replayed["stateDigest"]
        for verified in (fleet.json("log", "verify"), fleet.json("log", "verify", exported)):
            assert verified["verified"]
        assert fleet.json("log", "verify", "--mirror")["verified"]
        assert fleet.run("job", "output", kept.job_id, tmp_path / "again.npy").returncode == 0
        assert (tmp_path / "again.npy").read_bytes() == kept.output.read_bytes()
        refused = fleet.run("job", "output", large.job_id, tmp_path / "none.npz")
        assert "were erased" in refused.stderr
        fleet.stop()
    assert _found(gone | traces, directory) == []


def test_the_failure_of_an_erased_job_quotes_none_of_its_rows(tmp_path: Path) -> None:
    """The runtime names the value that it refuses; neither the log, its mirror, the events nor what was said has it."""
    directory = tmp_path / "hf"
    looking_up_model(tmp_path / "look-up.onnx")
    np.save(tmp_path / "rows.npy", np.array([[0, 1, 2, 2718281828459]]))
    with running_fleet(directory, node_count=1) as fleet:
        assert fleet.run("model", "add", "look-up", tmp_path / "look-up.onnx").returncode == 0
        rows = ("--input", tmp_path / "rows.npy", "--model", "look-up")
        failed = fleet.run("job", "submit", "infer", *rows, "--wait", "-o", "json")
        assert "Gather" in failed.stdout
        assert fleet.json("job", "erase", json.loads(failed.stdout)["jobId"], "--yes")["eraseTime"]
        assert _found({"the value": b"2718281828459"}, directory) == []
        assert _found({"the operator": b"Gather"}, directory), "the search finds what is there"


def test_an_open_job_is_not_erased(tmp_path: Path) -> None:
    """It is refused with what to do; once cancelled it can be."""
    with running_fleet(tmp_path / "hf", node_count=1) as fleet:
        job = fleet.json("job", "submit", "probe", "--tasks", "5", "--task-duration", "60")["jobId"]
        refused = fleet.run("job", "erase", job, "--yes", "-o", "json")
        assert refused.returncode == 1
        assert f"hivefold job cancel {job}" in refused.stderr
        assert fleet.run("job", "cancel", job).returncode == 0
        assert json.loads(fleet.run("job", "erase", job, "--yes", "-o", "json").stdout)["eraseTime"]
