"""Descriptor pools as one: services whose names others claim too have a pool of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool


class Pools:
    """Looks in each pool in turn. What reflection asks of a pool, no more; raises KeyError when none knows."""

    def __init__(self, pools: Sequence[DescriptorPool]) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:  # noqa: N802 - named by protobuf
        """The file of this name."""
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, name: str) -> Any:  # noqa: N802
        """The file that declares this name."""
        return self._first(lambda pool: pool.FindFileContainingSymbol(name))

    def FindMessageTypeByName(self, name: str) -> Any:  # noqa: N802
        """The message of this name."""
        return self._first(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:  # noqa: N802
        """The extension of a message that has this number."""
        return message.file.pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:  # noqa: N802
        """The extensions of a message."""
        return message.file.pool.FindAllExtensions(message)

    def _first(self, find: Callable[[DescriptorPool], Any]) -> Any:
        for pool in self._pools[:-1]:
            try:
                return find(pool)
            except KeyError:
                continue
        return find(self._pools[-1])
