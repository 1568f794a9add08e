"""nats-py's socket, which says in a word that nats-py knows that it was closed."""

from __future__ import annotations

from collections.abc import Iterable

from nats.aio.transport import TcpTransport


class Transport(TcpTransport):
    """Raises ConnectionResetError for a write to a socket that was closed, where uvloop raises RuntimeError.

    That would end nats-py's connecting and reconnecting for good.
    """

    def write(self, payload: bytes) -> None:
        """Sends bytes."""
        try:
            super().write(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise _closed(error) from None

    def writelines(self, payload: Iterable[bytes]) -> None:
        """Sends bytes, piece by piece."""
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise _closed(error) from None


def _closed(error: RuntimeError) -> ConnectionResetError:
    return ConnectionResetError(f"the socket was closed: {error}")
