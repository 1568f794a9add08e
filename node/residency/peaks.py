"""What models were seen to take, kept on disk: the next time the same file is loaded nothing has to be estimated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from actors.footprint import LOADING
from hivefold.durable_file import DurableFile
from hivefold.ids import is_digest
from node.residency.limits import PEAKS_BYTES, PEAKS_KEPT

_log = structlog.get_logger(__name__)
_FILE_TIMES: Final = 2
_BASE_BYTES: Final = 4 * 1024 * 1024
"""What a model is taken for that was never loaded here: a multiple of its file, and what any session takes."""
_PATIENCE: Final = 4
"""A smaller measurement lowers a peak by this part of the difference: one that was disturbed is forgotten in time."""


class Peaks:
    """The peaks of (model digest, runtime, rows of a batch), in `path`; in memory alone where there is none."""

    def __init__(self, path: Path | None = None, runtime: str = "") -> None:
        self._path = path
        self._runtime = runtime
        self._known: dict[str, dict[int, int]] = _read(path) if path else {}
        self._changed = False

    def expected_bytes(self, digest: str, size_bytes: int) -> int:
        """The most that the model takes, loading counted; estimated by its file until it was measured."""
        return max(self._of(digest).values(), default=_FILE_TIMES * size_bytes + _BASE_BYTES)

    def steady_bytes(self, digest: str, size_bytes: int) -> int:
        """As above once it is loaded."""
        peaks = self._of(digest)
        batches = [size for rows, size in peaks.items() if rows != LOADING]
        return max(batches, default=0) or self.expected_bytes(digest, size_bytes)

    def measured(self, digest: str) -> Mapping[int, int]:
        """What was measured: bytes by rows of a batch, LOADING among them."""
        return dict(self._of(digest))

    def note(self, digest: str, seen: Mapping[int, int]) -> None:
        """Adds what was seen of a model."""
        key = self._key(digest)
        peaks = self._known.pop(key, {})
        for rows, size in seen.items():
            before = peaks.get(rows, 0)
            now = size if size >= before else before - max(1, (before - size) // _PATIENCE)
            self._changed |= now != before
            peaks[rows] = now
        if peaks:
            self._known[key] = peaks  # at the end: used last
        while len(self._known) > PEAKS_KEPT:
            del self._known[next(iter(self._known))]

    async def save(self) -> None:
        """Writes what changed. A file that cannot be written costs the next start its knowledge, no more."""
        if self._path is None or not self._changed:
            return
        self._changed = False
        text = json.dumps({"peaks": self._known})
        try:
            await asyncio.to_thread(_write, self._path, text.encode())
        except OSError as error:
            _log.warning("peaks.not_kept", path=str(self._path), error=error.strerror)

    def _of(self, digest: str) -> dict[int, int]:
        return self._known.get(self._key(digest), {})

    def _key(self, digest: str) -> str:
        return f"{digest} {self._runtime}"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with DurableFile(path, replace=True) as file:
        file.write(data)


def _read(path: Path) -> dict[str, dict[int, int]]:
    """What is in the file; what does not read as it was written is passed over."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(PEAKS_BYTES))
        known = {key: _peaks(peaks) for key, peaks in found["peaks"].items() if is_digest(key.partition(" ")[0])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        _log.warning("peaks.unreadable", path=str(path), error=repr(error))
        return {}
    return dict(list(known.items())[-PEAKS_KEPT:])


def _peaks(found: Mapping[str, Any]) -> dict[int, int]:
    peaks = {int(rows): int(size) for rows, size in found.items()}
    if any(rows < 0 or size < 0 for rows, size in peaks.items()):
        raise ValueError("a negative size")
    return peaks
