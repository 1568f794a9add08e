"""Files with secrets: whole, durable under their name, for their owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hivefold.server.private import write_private


def test_a_private_file_keeps_its_name_through_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is synced after the file has its name: a signing key that the log names must not be lost."""
    path = tmp_path / "signing-key"
    named_when_synced: list[bool] = []
    sync = os.fsync

    def watched(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            named_when_synced.append(path.exists())
        sync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    write_private(path, "secret")

    assert named_when_synced == [True]
    assert path.read_text(encoding="utf-8") == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
