"""A runtime that needs none: deterministic, for tests and simulations of everything around a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from actors.tensors import Array
from hivefold.models import TensorFacts

_INPUT: Final = TensorFacts("x", "FP32", (-1, 4))
_ECHO: Final = TensorFacts("echo", "FP32", (-1, 4))
_TOTAL: Final = TensorFacts("total", "FP32", (-1,))


class EchoBackend:
    """Takes any file for the model that gives back its rows as `echo` and their sums as `total`."""

    def __init__(self) -> None:
        self.opened: list[Path] = []
        self.batches: list[int] = []
        """Rows of each batch that was run."""

    def open(self, path: Path) -> EchoSession:
        """The model, whatever the file holds."""
        self.opened.append(path)
        return EchoSession(self.batches)


class EchoSession:
    """The echo model."""

    def __init__(self, batches: list[int]) -> None:
        self._batches = batches

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """`x`: four FP32 a row."""
        return (_INPUT,)

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """`echo` and `total`."""
        return (_ECHO, _TOTAL)

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The rows, and their sums."""
        rows = feeds[_INPUT.name]
        self._batches.append(len(rows))
        known = {_ECHO.name: rows, _TOTAL.name: rows.sum(axis=1)}
        return [known[output] for output in outputs]

    def close(self) -> None:
        """Nothing to release."""
