"""The bounds of residency: their units are in their names. What a node may be told otherwise is in hivefold.limits."""

from __future__ import annotations

from typing import Final

MODEL_ROOM_MS: Final = 30_000
"""How long a request waits for other models to make room."""
MODEL_TURN_MS: Final = 200
"""How long a model that is used all the time stays at least while others wait for its room."""
MODELS_WAITING: Final = 256
MODEL_REQUESTS_WAITING: Final = 2048
"""Models that wait for room, and requests that wait for one of them."""
MEMORY_PATIENCE_MS: Final = 3000
"""How long a request waits for memory that other processes have."""
ROOM_LOOK_MS: Final = 2000
"""How often the free memory is looked at while models are loaded; ten times as often while some wait for it."""
MODEL_UNLOAD_MS: Final = 10_000
PEAKS_KEPT: Final = 4096
PEAKS_BYTES: Final = 4 * 1024 * 1024
"""Models whose measured memory a node keeps in mind, and the most that it reads of them."""
RUNS_A_SLOT: Final = 2
"""Runs under way at once for each slot: while one computes, the next is handed to its actor and answers go out."""
QUIET_S: Final = 2.0
"""How long a load waits for others to end, so that a model is weighed alone; if not now, then another time."""
