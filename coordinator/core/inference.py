"""What nodes say they inferred, as the log records it. Field by field as in protos/hivefold/v1/audit.proto. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, ModelRef, NodeId
from hivefold.sketch import DurationSketch


@dataclass(frozen=True, slots=True)
class InferenceWindow:
    """What one node inferred with one model version in a stretch of time.

    `durations` is a sketch (hivefold.sketch) as pairs of bucket step and count, `batches` are pairs of rows and count.
    """

    model: ModelRef
    model_digest: Digest
    start_time_us: int
    span_us: int
    request_count: int
    row_count: int
    failures: tuple[tuple[Reason, int], ...]
    durations: tuple[tuple[int, int], ...]
    batches: tuple[tuple[int, int], ...]
    full: bool = False
    unrecorded_count: int = 0

    def sketch(self) -> DurationSketch:
        """How long requests took."""
        return DurationSketch.of_steps([step for step, _ in self.durations], [count for _, count in self.durations])


@dataclass(frozen=True, slots=True)
class InferenceBatch:
    """A batch as the log commits to it: where it is stored, and the digest of its bytes."""

    node_id: NodeId
    boot_id: BootId
    number: int
    position: int
    digest: Digest
    size_bytes: int
    request_count: int
    windows: tuple[InferenceWindow, ...]
