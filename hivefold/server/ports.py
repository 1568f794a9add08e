"""Ports of this machine that nobody listens on."""

from __future__ import annotations

import socket
from collections import deque
from typing import Final

from hivefold.entropy import SystemEntropy

_KEPT: Final = range(15_000, 32_000)
"""Below those that systems lend to outgoing connections: what restarts finds its port free."""
_TRIES: Final = 100
_given: Final[deque[int]] = deque(maxlen=1000)
"""Handed out lately: whoever got one may not listen yet."""


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there at this moment."""
    with socket.socket(_family(host)) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError:
            return False
        return True


def any_free(host: str) -> int:
    """A port that nobody has or was given lately, and that no outgoing connection will take; else any other."""
    for _ in range(_TRIES):
        port = _KEPT[int.from_bytes(SystemEntropy().draw(4)) % len(_KEPT)]
        if port not in _given and is_free(host, port):
            _given.append(port)
            return port
    with socket.socket(_family(host)) as candidate:
        candidate.bind((host, 0))
        return int(candidate.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
