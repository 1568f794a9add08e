"""The model files of a node: fetched by content, named by their digest, a bounded number of them."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from contextlib import aclosing, suppress
from pathlib import Path

from hivefold.errors import DataRefusedError, HivefoldError, Reason
from hivefold.ids import is_digest
from hivefold.limits import MODEL_BYTES, MODEL_FILES_KEPT
from hivefold.v1 import model_pb2
from node.content import Content


class ModelFiles:
    """A folder of model files; those in `used`, by digest, stay."""

    def __init__(self, folder: Path, content: Content, used: Container[str]) -> None:
        self._folder = folder
        self._content = content
        self._used = used

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
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._download(model, partial)
            partial.replace(path)
            self._forget_oldest()
        except OSError as error:
            raise HivefoldError(
                f"the model cannot be kept in {self._folder}: {error.strerror or error}; free space there",
                reason=Reason.FILE_UNREADABLE,
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return path

    async def _download(self, model: model_pb2.Model, to: Path) -> None:
        state = hashlib.sha256()
        with to.open("wb") as file:
            async with aclosing(self._content.stream(model.artifact.root)) as pieces:
                async for piece in pieces:
                    state.update(piece)
                    file.write(piece)
        if state.hexdigest() != model.digest:
            raise DataRefusedError(
                f"the stored bytes of {model.name}@{model.version} do not have its digest; register the model again",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"digest": model.digest},
            )

    def _forget_oldest(self) -> None:
        """Keeps the folder bounded; files of loaded models stay."""
        files = sorted(self._folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[MODEL_FILES_KEPT:]:
            if file.stem not in self._used:
                file.unlink(missing_ok=True)
