"""How a model's requests are batched, as its labels say: `batch.max_rows`, `batch.max_delay_us`, and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import structlog

from actors.batching import BatchPolicy
from hivefold.oip.audit import AUDIT_LABEL, Level
from hivefold.oip.batching import MAX_DELAY_US, MAX_ROWS, PREFERRED_ROWS, QUEUE, read_number, read_sizes
from hivefold.oip.limits import BATCH_BYTES, BATCH_DELAY_US, BATCH_ROWS, QUEUE_BYTES, QUEUE_REQUESTS

_log = structlog.get_logger(__name__)
T = TypeVar("T")


def batch_policy(labels: Mapping[str, str], *, batchable: bool) -> BatchPolicy:
    """The policy of a model; a label that makes no sense is passed over, with a line in the log: older coordinators
    registered any.

    Without a free batch axis requests run one by one, whatever the labels say.
    """
    requests = _number(labels, QUEUE) or QUEUE_REQUESTS
    if not batchable:
        return BatchPolicy(max_rows=1, max_bytes=1, queue_requests=requests, queue_bytes=QUEUE_BYTES)
    delay_us = _number(labels, MAX_DELAY_US)
    return BatchPolicy(
        max_rows=_number(labels, MAX_ROWS) or BATCH_ROWS,
        max_bytes=BATCH_BYTES,
        max_delay_us=BATCH_DELAY_US if delay_us is None else delay_us,
        preferred_rows=_read(labels, PREFERRED_ROWS, read_sizes) or (),
        patient=delay_us is not None,
        queue_requests=requests,
        queue_bytes=QUEUE_BYTES,
    )


def audit_level(labels: Mapping[str, str]) -> Level:
    """How much of the model's inference is recorded: windows where its label `audit` says nothing that makes sense."""
    return _read(labels, AUDIT_LABEL, Level) or Level.WINDOWS


def _number(labels: Mapping[str, str], name: str) -> int | None:
    return _read(labels, name, lambda text: read_number(name, text))


def _read(labels: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    text = labels.get(name)
    if text is None:
        return None
    try:
        return read(text)
    except ValueError:
        _log.warning("label.passed_over", label=name, value=text[:64])
        return None
