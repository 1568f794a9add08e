"""Changes of streams that a killed nats-server did not finish."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hivefold.server.highway import highway_hash_64
from hivefold.server.mending import CHECKSUM, CONFIG, checksum_of, finish_changes


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "907a56de22c26e53"), (1, "7eab43aac7cddd78"), (2, "b8d0569ab0b53d62")]
)
def test_the_hash_is_that_of_the_reference(size: int, expected: str) -> None:
    """The first vectors of google/highwayhash: data 00 01 02 ..., key 00 to 1f."""
    assert highway_hash_64(bytes(range(size)), bytes(range(32)))[::-1].hex() == expected


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A stream whose configuration was changed after its checksum was written."""
    path = tmp_path / "jetstream" / "CORE" / "streams" / "HF_LOG"
    path.mkdir(parents=True)
    (path / CHECKSUM).write_text("0" * 16)
    (path / CONFIG).write_text(json.dumps({"name": "HF_LOG", "sealed": True}))
    os.utime(path / CHECKSUM, ns=(1, 1))
    return path


def test_an_unfinished_change_is_finished_once(stream: Path, tmp_path: Path) -> None:
    """The checksum becomes that of the configuration; then there is nothing more to do."""
    assert finish_changes(tmp_path) == ["HF_LOG"]
    assert (stream / CHECKSUM).read_text() == checksum_of("HF_LOG", (stream / CONFIG).read_bytes())
    assert finish_changes(tmp_path) == []


@pytest.mark.parametrize("content", ["", '{"name": "HF_LOG"', '{"name": "HF_KEYS"}', "[]"])
def test_a_configuration_that_is_damaged_is_left_alone(stream: Path, tmp_path: Path, content: str) -> None:
    """Only a whole one that names its stream is taken for a change: the server shall tell of the rest."""
    (stream / CONFIG).write_text(content)

    assert finish_changes(tmp_path) == []
    assert (stream / CHECKSUM).read_text() == "0" * 16


def test_a_configuration_older_than_its_checksum_is_left_alone(stream: Path, tmp_path: Path) -> None:
    """It was finished: what differs since is damage."""
    os.utime(stream / CONFIG, ns=(0, 0))

    assert finish_changes(tmp_path) == []


def test_a_store_that_is_not_there_has_nothing_to_finish(tmp_path: Path) -> None:
    """As before the first start."""
    assert finish_changes(tmp_path / "nowhere") == []
