"""What the fleet's wishes need of a node: keep a model loaded, let it go, say what is there."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hivefold.v1 import model_pb2


class ResidentModel(NamedTuple):
    """A model in the memory of a node."""

    digest: str
    ready: bool
    """False while it is being loaded or unloaded."""
    pinned: bool
    users: int
    """Leases on it now."""
    held_bytes: int
    """Memory that it takes, as measured; 0 where that is not known."""


class Residents(Protocol):
    """The models of a node. Nothing here waits: what is wanted comes about as soon as there is room."""

    def keep(self, model: model_pb2.Model, *, pinned: bool) -> None:
        """Loads the model. Pinned, it stays until it is released, and is loaded again should that fail."""
        ...

    def release(self, digest: str) -> None:
        """Unloads the model as soon as nobody uses it, pinned or not."""
        ...

    def resident(self) -> tuple[ResidentModel, ...]:
        """The models that are there or on their way, by digest."""
        ...
