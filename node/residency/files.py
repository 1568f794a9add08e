"""The model files of a node: fetched by content, named by their digest, a bounded number of them.

A fetch that is cut goes on where it ended, also after a restart: what lies on the disk is verified chunk by chunk
against the manifest, and the first chunk that is not as it should be is where it begins.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Container
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from hivefold.blobs.manifest import Manifest
from hivefold.errors import DataRefusedError, HivefoldError, Reason
from hivefold.ids import is_digest
from hivefold.limits import MODEL_BYTES, MODEL_FILES_KEPT
from hivefold.models.limits import FETCH_SAID_PERCENT, PARTIALS_KEPT
from hivefold.v1 import model_pb2
from node.content import Content

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Transfer:
    """How far the fetch of a file is: bytes that are there and verified, of all."""

    done_bytes: int
    total_bytes: int


class ModelFiles:
    """A folder of model files; those in `used`, by digest, stay."""

    def __init__(self, folder: Path, content: Content, used: Container[str]) -> None:
        self._folder = folder
        self._content = content
        self._used = used
        self.fetching: dict[str, Transfer] = {}
        """What is fetched now, by digest."""

    async def fetched(self, model: model_pb2.Model) -> Path:
        """The model's file, fetched if it is not there. Its name is its digest; it is verified when it is loaded."""
        if not is_digest(model.digest) or not 0 < model.artifact.size_bytes <= MODEL_BYTES:
            raise DataRefusedError(
                f"the work names a model with digest {model.digest[:64]!r} of {model.artifact.size_bytes} bytes, "
                "which cannot be; register the model again",
                reason=Reason.MODEL_INVALID,
            )
        path = self._folder / f"{model.digest}.onnx"
        if path.exists():
            path.touch()
            return path
        partial = path.with_suffix(".partial")
        # Known before there is a file of it: whoever fetches beside it leaves that alone.
        self.fetching[model.digest] = Transfer(0, model.artifact.size_bytes)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._download(model, partial)
            partial.replace(path)
            self._forget_oldest()
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise HivefoldError(
                f"the model cannot be kept in {self._folder}: {error.strerror or error}; free space there",
                reason=Reason.FILE_UNREADABLE,
            ) from error
        finally:
            self.fetching.pop(model.digest, None)
        return path

    async def _download(self, model: model_pb2.Model, to: Path) -> None:
        manifest = await self._content.manifest(model.artifact.root)
        to.touch(mode=0o600)
        self._forget_oldest()
        done = await asyncio.to_thread(_keep_verified, to, manifest)
        transfer = self.fetching[model.digest] = Transfer(done, manifest.size_bytes)
        name = f"{model.name}@{model.version}"
        _log.info("model.fetching", model=name, bytes=manifest.size_bytes, resumed_bytes=done)
        said = 0
        with to.open("r+b") as file:
            file.seek(done)
            async with aclosing(self._content.stream(model.artifact.root, done)) as pieces:
                async for piece in pieces:
                    file.write(piece)
                    transfer.done_bytes += len(piece)
                    percent = 100 * transfer.done_bytes // max(1, manifest.size_bytes)
                    if percent >= said + FETCH_SAID_PERCENT:
                        said = percent
                        _log.info("model.fetching", model=name, percent=percent)
        if await asyncio.to_thread(_digest, to) != model.digest:
            to.unlink()
            raise DataRefusedError(
                f"the stored bytes of {name} do not have its digest; register the model again",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"digest": model.digest},
            )

    def _forget_oldest(self) -> None:
        """Keeps the folder bounded; files of loaded models stay, and what is fetched now."""
        for suffix, kept in (("onnx", MODEL_FILES_KEPT), ("partial", PARTIALS_KEPT)):
            # Others, such as the measured peaks on their way to the disk, come and go as they like.
            found = [file for file in self._folder.glob(f"*.{suffix}") if is_digest(file.stem)]
            found.sort(key=lambda file: file.stat().st_mtime, reverse=True)
            for file in found[kept:]:
                if file.stem not in self._used and file.stem not in self.fetching:
                    file.unlink(missing_ok=True)


def _keep_verified(path: Path, manifest: Manifest) -> int:
    """Cuts a file down to the leading chunks that are as the manifest says; how many bytes that is."""
    done = 0
    with path.open("r+b") as file:
        for index in range(manifest.chunk_count):
            data = file.read(manifest.chunk_length(index))
            try:
                manifest.check(index, data)
            except DataRefusedError:
                break
            done += len(data)
        file.truncate(done)
    return done


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
