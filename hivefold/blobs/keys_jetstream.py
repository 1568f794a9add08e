"""Data keys on the stream HF_KEYS of the account CORE, where coordinators alone can read."""

from __future__ import annotations

import base64
from typing import Final

from hivefold.blobs.sealing import KEY_BYTES, DataKey, erased
from hivefold.bus import api, frames, streams
from hivefold.bus.link import Link
from hivefold.entropy import Entropy
from hivefold.errors import BrokerUnavailableError, LimitExceededError
from hivefold.limits import BROKER_ANSWER_S

STREAM: Final = "HF_KEYS"
_NEW_ONLY: Final = frames.header_block({api.EXPECT_NEW: "0"})


async def open_keys(link: Link, entropy: Entropy, replicas: int = 1) -> JetStreamKeys:
    """The keys of the fleet; makes their stream where there is none.

    Raises ConfigError, BrokerUnavailableError.
    """
    config = {
        "name": STREAM,
        "subjects": ["key.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "discard_new_per_subject": True,
        "num_replicas": replicas,
    }
    await streams.prepare_stream(link, config)
    return JetStreamKeys(link, entropy)


class JetStreamKeys:
    """hivefold.blobs.keys.KeyStore: one message a key."""

    def __init__(self, link: Link, entropy: Entropy) -> None:
        self._link = link
        self._entropy = entropy

    async def obtain(self, key_id: str) -> DataKey:
        """The key of that name, made and stored durably where there is none.

        Raises LimitExceededError when the stream is full, BrokerUnavailableError.
        """
        found = await self._stored(key_id)
        if found is None:
            secret = self._entropy.draw(KEY_BYTES)
            if await self._put(key_id, secret):
                return DataKey(key_id, secret)
            found = await self._stored(key_id)
        if found is None:
            raise BrokerUnavailableError(f"key {key_id} came and went meanwhile; try again")
        return DataKey(key_id, found[1])

    async def get(self, key_id: str) -> DataKey:
        """The key of that name. Raises DataRefusedError (JOB_ERASED), BrokerUnavailableError."""
        found = await self._stored(key_id)
        if found is None:
            raise erased(key_id)
        return DataKey(key_id, found[1])

    async def shred(self, key_id: str) -> None:
        """Removes the key; the server overwrites its bytes in the stream's file. Raises BrokerUnavailableError."""
        found = await self._stored(key_id)
        if found is None:
            return
        body = {"seq": found[0], "no_erase": False}
        try:
            await api.call(self._link, f"STREAM.MSG.DELETE.{STREAM}", body)
        except api.ApiError as error:
            if error.code not in api.MESSAGE_GONE:
                raise BrokerUnavailableError(f"key {key_id} was not shredded: {error.description}; try again") from None

    async def _stored(self, key_id: str) -> tuple[int, bytes] | None:
        """Sequence and bytes, as the stream's leader has them: a copy that lags must not hide a key from shredding."""
        try:
            answer = await api.call(self._link, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": f"key.{key_id}"})
        except api.ApiError as error:
            if error.code == api.NO_MESSAGE:
                return None
            raise BrokerUnavailableError(f"key {key_id} cannot be read: {error.description}; try again") from None
        return int(answer["message"]["seq"]), base64.b64decode(answer["message"]["data"])

    async def _put(self, key_id: str, secret: bytes) -> bool:
        """Stores a new key; False when one was stored meanwhile."""
        try:
            await api.store(self._link, f"key.{key_id}", secret, headers=_NEW_ONLY, timeout_s=BROKER_ANSWER_S)
        except api.ApiError as error:
            if error.code == api.WRONG_LAST:
                return False
            if error.code in api.STORAGE_SHORT:
                raise LimitExceededError(f"no room for key {key_id}: {error.description}; free some disk") from None
            raise BrokerUnavailableError(f"key {key_id} was not stored: {error.description}; try again") from None
        return True
