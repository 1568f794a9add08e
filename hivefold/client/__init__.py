"""The Python client: `with connect() as fleet`, or `async with connect() as fleet` in programs with asyncio."""

from __future__ import annotations

from hivefold.client.fleet import Fleet
from hivefold.client.handles import JobHandle, Progress
from hivefold.client.jobs import InferOptions, JobOptions
from hivefold.client.loading import Loading
from hivefold.client.opening import Opening, connect
from hivefold.client.sync import SyncFleet, SyncJobHandle
from hivefold.errors import (
    ConflictError,
    DataRefusedError,
    HivefoldError,
    InvalidRequestError,
    JobFailedError,
    LimitExceededError,
    NotFoundError,
    Reason,
    UnavailableError,
)

__all__ = [
    "ConflictError",
    "DataRefusedError",
    "Fleet",
    "HivefoldError",
    "InferOptions",
    "InvalidRequestError",
    "JobFailedError",
    "JobHandle",
    "JobOptions",
    "LimitExceededError",
    "Loading",
    "NotFoundError",
    "Opening",
    "Progress",
    "Reason",
    "SyncFleet",
    "SyncJobHandle",
    "UnavailableError",
    "connect",
]
