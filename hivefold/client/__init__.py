"""The Python client: `async with connect() as fleet`, or `with connect_sync() as fleet` without asyncio."""

from __future__ import annotations

from hivefold.client.connection import connect
from hivefold.client.fleet import Fleet
from hivefold.client.jobs import InferOptions, JobOptions
from hivefold.client.sync import SyncFleet, connect_sync

__all__ = ["Fleet", "InferOptions", "JobOptions", "SyncFleet", "connect", "connect_sync"]
