"""What a model runtime is to an actor: the port behind which ONNX Runtime and the fakes of tests stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from actors.tensors import Array
from hivefold.models import TensorFacts


class Session(Protocol):
    """A model that a runtime has loaded. `run` MUST be allowed from several threads at once."""

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """What it must be given."""
        ...

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """What it produces."""
        ...

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for these inputs. BF16 is carried in UINT16, BYTES in objects.

        Raises DataRefusedError when the runtime fails; no value of `feeds` is in its message, which is recorded.
        """
        ...

    def close(self) -> None:
        """Releases its memory."""
        ...


class Backend(Protocol):
    """A model runtime."""

    def open(self, path: Path) -> Session:
        """Loads a verified file. Raises DataRefusedError when the runtime refuses it."""
        ...
