"""Ports of this machine that nobody listens on."""

from __future__ import annotations

import socket


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
    """A port that the system chose."""
    with socket.socket(_family(host)) as candidate:
        candidate.bind((host, 0))
        return int(candidate.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
