"""A model file as a runtime gets it: what was hashed is what is read, and nothing lies beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from actors.backends.onnxruntime import OnnxRuntimeBackend
from actors.verified import verified
from hivefold.errors import DataRefusedError, Reason
from tests.fixtures.onnx_models import doubling_model, save_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    doubling_model(path)
    return path


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(path: Path, digest: str) -> Reason:
    with pytest.raises(DataRefusedError) as caught, verified(path, digest):
        pass
    return caught.value.reason


def test_the_runtime_reads_what_was_verified(model: Path, tmp_path: Path) -> None:
    """Though the path holds another model by then."""
    with verified(model, digest_of(model)) as file:
        other = tmp_path / "other.onnx"
        save_model(other, [("Neg", ["x"], "y")], [None, 2])
        other.replace(model)
        session = OnnxRuntimeBackend(1).open(file)

    assert session.inputs[0].shape == (-1, 4)


def test_nothing_lies_beside_it_and_nobody_writes_there(model: Path) -> None:
    """A model that names other files finds none; the folder is gone afterwards."""
    with verified(model, digest_of(model)) as file:
        assert [entry.name for entry in file.parent.iterdir()] == [file.name]
        assert file.parent.stat().st_mode & 0o777 == 0o500
        assert file.read_bytes() == model.read_bytes()
    assert not file.parent.exists()


def test_a_file_that_changes_while_it_is_loaded_is_refused(model: Path) -> None:
    """Its digest was true when it was taken, and is not any more."""
    with pytest.raises(DataRefusedError) as caught, verified(model, digest_of(model)):
        model.write_bytes(b"something else")

    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_only_a_file_of_its_own_is_taken(model: Path, tmp_path: Path) -> None:
    """Not one with another digest, with a second name through which it can be changed, a link, a pipe, or none."""
    digest = digest_of(model)
    assert refusal(model, "0" * 64) is Reason.DIGEST_MISMATCH
    link, pipe = tmp_path / "link.onnx", tmp_path / "pipe.onnx"
    link.symlink_to(model)
    os.mkfifo(pipe)
    assert refusal(link, digest) is Reason.FILE_UNREADABLE
    assert refusal(pipe, digest) is Reason.DIGEST_MISMATCH
    assert refusal(tmp_path / "none.onnx", digest) is Reason.FILE_UNREADABLE
    os.link(model, tmp_path / "second.onnx")
    assert refusal(model, digest) is Reason.DIGEST_MISMATCH
