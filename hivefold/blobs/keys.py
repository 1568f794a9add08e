"""Where data keys are kept: apart from the log and from what they seal, so that each can be shredded."""

from __future__ import annotations

from typing import Protocol

from hivefold.blobs.sealing import KEY_BYTES, DataKey, erased
from hivefold.entropy import Entropy


class KeyStore(Protocol):
    """Keeps data keys by name. Nothing of it is in the log, in a snapshot or in an export."""

    async def obtain(self, key_id: str) -> DataKey:
        """The key of that name, made and stored durably where there is none.

        Raises LimitExceededError when the store is full, BrokerUnavailableError.
        """
        ...

    async def get(self, key_id: str) -> DataKey:
        """The key of that name. Raises DataRefusedError (JOB_ERASED) when there is none, BrokerUnavailableError."""
        ...

    async def shred(self, key_id: str) -> None:
        """Removes the key and overwrites its bytes; does nothing when it is not there.

        Raises BrokerUnavailableError: then whether it is gone is not known, and it has to be repeated.
        """
        ...


class MemoryKeys:
    """KeyStore in memory, for tests and the simulation."""

    def __init__(self, entropy: Entropy) -> None:
        self.secrets: dict[str, bytes] = {}
        self._entropy = entropy

    async def obtain(self, key_id: str) -> DataKey:
        """The key of that name, made where there is none."""
        return DataKey(key_id, self.secrets.setdefault(key_id, self._entropy.draw(KEY_BYTES)))

    async def get(self, key_id: str) -> DataKey:
        """The key of that name. Raises DataRefusedError (JOB_ERASED)."""
        secret = self.secrets.get(key_id)
        if secret is None:
            raise erased(key_id)
        return DataKey(key_id, secret)

    async def shred(self, key_id: str) -> None:
        """Removes the key."""
        self.secrets.pop(key_id, None)
