"""The registered models as a node knows them: asked of the registry once, kept, and asked again behind the scenes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from hivefold.clock import Clock
from hivefold.errors import HivefoldError, NotFoundError, Reason
from hivefold.ids import is_alias, names_model
from hivefold.oip.limits import CATALOGUE_FRESH_MS, CATALOGUE_MODELS
from hivefold.oip.tensors import refused
from hivefold.v1 import model_pb2

_log = structlog.get_logger(__name__)


class Registry(Protocol):
    """Where models are registered."""

    async def get(self, reference: str) -> model_pb2.Model:
        """One version, by "name" (the latest) or "name@version". Raises NotFoundError, UnavailableError."""
        ...

    async def versions(self, name: str = "") -> list[model_pb2.Model]:
        """The versions of one name, or all, by name and version. Raises UnavailableError."""
        ...


@dataclass(slots=True)
class _Entry:
    """What the registry said of a reference: a model, or that there is none."""

    asked_ms: int
    names: int
    """As of which change of names that is."""
    model: model_pb2.Model | None = None
    asking: asyncio.Task[model_pb2.Model] | None = None
    asking_names: int = 0
    """As of which change of names the answer will be."""


class Catalogue:
    """Finds models by name and version. While the registry is away, what was known goes on being known."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._names = 0

    def outdate(self, names: int) -> None:
        """Names may stand for other models from now on, as of the change at position `names` of the log.

        Whoever asks for one next waits for the registry's answer; where it gives none, what was known goes on.
        """
        self._names = max(self._names, names)

    def known(self, name: str, version: str) -> model_pb2.Model | None:
        """The model, if it is known; an answer that is not fresh any more is asked for again meanwhile."""
        entry = self._entries.get(f"{name}@{version}" if version else name)
        if entry is None or entry.model is None or entry.names < self._names:
            return None
        if entry.asking is None and self._clock.monotonic_ms() - entry.asked_ms > CATALOGUE_FRESH_MS:
            self._ask(name, entry, version)
        return entry.model

    async def find(self, name: str, version: str) -> model_pb2.Model:
        """The model. Raises NotFoundError, InvalidRequestError for what is no name, UnavailableError."""
        model = self.known(name, version)
        if model is not None:
            return model
        reference = _reference(name, version)
        entry = self._entries.get(reference)
        now_ms = self._clock.monotonic_ms()
        if entry is None:
            if len(self._entries) >= CATALOGUE_MODELS:
                del self._entries[next(iter(self._entries))]
            entry = self._entries[reference] = _Entry(now_ms - CATALOGUE_FRESH_MS - 1, self._names)
        fresh = entry.names == self._names and now_ms - entry.asked_ms <= CATALOGUE_FRESH_MS
        if entry.asking is None and fresh:
            raise _not_found(reference)
        # What was asked before a change may be answered from before it.
        asking = entry.asking if entry.asking_names == self._names else None
        return await asyncio.shield(asking or self._ask(name, entry, version))

    async def versions(self, name: str = "") -> list[model_pb2.Model]:
        """The registered versions of a name, or of all. Raises UnavailableError."""
        return await self._registry.versions(name)

    def _ask(self, name: str, entry: _Entry, version: str) -> asyncio.Task[model_pb2.Model]:
        entry.asking_names = self._names
        task = entry.asking = asyncio.create_task(self._asked(_reference(name, version), entry))
        task.add_done_callback(_looked_at)
        return task

    async def _asked(self, reference: str, entry: _Entry) -> model_pb2.Model:
        names = entry.asking_names
        model: model_pb2.Model | None = None
        try:
            model = await self._registry.get(reference)
        except NotFoundError:
            pass
        except HivefoldError as error:
            if entry.model is None:
                raise
            _log.debug("catalogue.stale", model=reference, error=error.message)
            model = entry.model
        finally:
            if entry.asking is asyncio.current_task():
                entry.asking = None
        if names >= entry.names:
            entry.asked_ms, entry.names, entry.model = self._clock.monotonic_ms(), names, model
        if model is None:
            raise _not_found(reference)
        return model


def _reference(name: str, version: str) -> str:
    """The text that names a version. Raises InvalidRequestError for one that cannot be."""
    if version and ("@" in name or not (version.isdecimal() or is_alias(version))):
        raise refused(
            "model_version",
            f"{version[:32]!r} is no version; give a number from 1, an alias such as prod, or nothing for the latest",
        )
    reference = f"{name}@{version}" if version else name
    if not names_model(reference):
        raise _not_found(reference)
    return reference


def _not_found(reference: str) -> NotFoundError:
    return NotFoundError(
        f"there is no model {reference[:80]!r}; list them with: hivefold model ls",
        reason=Reason.MODEL_NOT_FOUND,
        metadata={"model": reference[:80]},
    )


def _looked_at(task: asyncio.Task[model_pb2.Model]) -> None:
    """A refresh that nobody waits for may fail: the next request asks again."""
    if not task.cancelled():
        task.exception()
