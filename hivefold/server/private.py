"""Files that only their owner may read."""

from __future__ import annotations

import base64
from pathlib import Path

from hivefold.broker import Secret
from hivefold.durable_file import DurableFile
from hivefold.entropy import SystemEntropy


def make_directory(path: Path) -> Path:
    """Makes a directory (and its parents) that only the owner may enter, where there is none."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replaces a file at once and durably; only the owner may read it."""
    with DurableFile(path, replace=True) as file:
        file.write(text.encode())


class Passwords:
    """Generated passwords, a file each, kept across restarts."""

    def __init__(self, directory: Path) -> None:
        self._directory = make_directory(directory)

    def users(self) -> list[str]:
        """Who has one."""
        return sorted(path.name for path in self._directory.iterdir() if not path.name.startswith("."))

    def of(self, user: str) -> Secret:
        """The user's password, made on first use."""
        path = self._directory / user
        try:
            return Secret(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            password = base64.urlsafe_b64encode(SystemEntropy().draw(24)).decode()
            write_private(path, password)
            return Secret(password)
