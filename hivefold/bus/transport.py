"""nats-py's socket, which says in a word that nats-py knows that it was closed, and can write at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress

from nats.aio.transport import TcpTransport


class Transport(TcpTransport):
    """Raises ConnectionResetError for a write to a socket that was closed, where uvloop raises RuntimeError.

    That would end nats-py's connecting and reconnecting for good.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._queued = False
        """Whether something was written in this turn of the loop: uvloop sends it at the turn's end."""

    def write(self, payload: bytes) -> None:
        """Sends bytes."""
        try:
            super().write(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise _closed(error) from None
        self._note_queued()

    def writelines(self, payload: Iterable[bytes]) -> None:
        """Sends bytes, piece by piece."""
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise _closed(error) from None
        self._note_queued()

    def write_now(self, payload: bytes) -> None:
        """Sends bytes before anything else runs, in order: where others wait to be sent, as `write` does."""
        sent = 0
        if not self._queued and (descriptor := self._descriptor()) >= 0:
            # What fails here fails again below, where it is told as ever.
            with suppress(OSError):
                sent = os.write(descriptor, payload)
        if sent < len(payload):
            self.write(payload[sent:])

    def _descriptor(self) -> int:
        """The socket, where it is open, has sent all it was given and takes bytes as they are; else -1."""
        if self._io_writer is None:
            return -1
        stream = self._io_writer.transport
        encrypted = stream.get_extra_info("ssl_object") is not None
        if encrypted or stream.is_closing() or stream.get_write_buffer_size():
            return -1
        socket = stream.get_extra_info("socket")
        return -1 if socket is None else int(socket.fileno())

    def _note_queued(self) -> None:
        if not self._queued:
            self._queued = True
            asyncio.get_running_loop().call_soon(self._sent)

    def _sent(self) -> None:
        self._queued = False


def _closed(error: RuntimeError) -> ConnectionResetError:
    return ConnectionResetError(f"the socket was closed: {error}")
