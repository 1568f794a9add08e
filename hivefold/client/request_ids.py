"""Ids of requests: made once a call, repeated with each retry of it."""

from __future__ import annotations

from hivefold.entropy import SystemEntropy


def new_request_id() -> str:
    """A fresh request id."""
    return SystemEntropy().draw(16).hex()
