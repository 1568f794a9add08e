"""Bounds of the embedded nats-server."""

from __future__ import annotations

from typing import Final

SERVER_START_S: Final = 30.0
"""How long nats-server may take to recover its streams."""
SERVER_STOP_S: Final = 10.0
"""How long nats-server may take to end before it is killed."""
SERVER_PORTS: Final = 100
"""How many ports are tried where none was given."""
SERVER_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Most memory of its memory streams (waiting work)."""
SERVER_FILE_BYTES: Final = 1 << 44
"""Most bytes of its file streams: the disk is the bound that counts, and streams have their own."""
SERVER_GC_PERCENT: Final = "400"
"""How far its heap may grow before Go collects (GOGC): blobs are stored 8 % sooner."""
SERVER_HEAP: Final = "512MiB"
"""From which memory on Go collects however little that brings (GOMEMLIMIT). The server keeps what it has just stored or
read for seconds: without this bound it took 2.0 GB for a job of 640 MB in and 640 MB out."""
SERVER_LOG_BYTES: Final = 10 * 1024 * 1024
SERVER_ANSWER_S: Final = 2.0
"""How long servers may take to tell their settings."""
SERVER_STRAGGLERS_S: Final = 0.1
"""How long after the first the other servers of a cluster are waited for."""
SERVER_ANSWER_BYTES: Final = 1024 * 1024
