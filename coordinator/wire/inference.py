"""Batches of inference to and from protobuf."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.inference import InferenceBatch, InferenceWindow
from coordinator.wire.times import micros, timestamp
from coordinator.wire.values import REASON_FROM_PROTO, REASON_TO_PROTO
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, ModelRef, NodeId
from hivefold.v1 import audit_pb2 as pb


def summary_to_proto(batch: InferenceBatch) -> pb.InferenceBatchSummary:
    """One batch as the log says it."""
    return pb.InferenceBatchSummary(
        node_id=batch.node_id,
        boot_id=batch.boot_id,
        number=batch.number,
        position=batch.position,
        digest=batch.digest,
        size_bytes=batch.size_bytes,
        request_count=batch.request_count,
        windows=map(_window_to_proto, batch.windows),
    )


def summary_from_proto(message: pb.InferenceBatchSummary) -> InferenceBatch:
    """One batch."""
    return InferenceBatch(
        NodeId(message.node_id),
        BootId(message.boot_id),
        message.number,
        message.position,
        Digest(message.digest),
        message.size_bytes,
        message.request_count,
        windows_from_proto(message.windows),
    )


def windows_from_proto(windows: Iterable[pb.InferenceWindow]) -> tuple[InferenceWindow, ...]:
    """Windows; of columns that should be equally long, what has no partner is left out."""
    return tuple([_window_from_proto(window) for window in windows])


def _window_to_proto(window: InferenceWindow) -> pb.InferenceWindow:
    return pb.InferenceWindow(
        model=window.model,
        model_digest=window.model_digest,
        start_time=timestamp(window.start_time_us),
        span_us=window.span_us,
        request_count=window.request_count,
        row_count=window.row_count,
        failures=[pb.FailureCount(reason=REASON_TO_PROTO[reason], count=count) for reason, count in window.failures],
        durations=pb.DurationSketch(
            bucket_steps=[step for step, _ in window.durations], counts=[count for _, count in window.durations]
        ),
        batch_rows=[rows for rows, _ in window.batches],
        batch_counts=[count for _, count in window.batches],
        full=window.full,
        unrecorded_count=window.unrecorded_count,
    )


def _window_from_proto(message: pb.InferenceWindow) -> InferenceWindow:
    failures = [(REASON_FROM_PROTO.get(f.reason, Reason.UNSPECIFIED), f.count) for f in message.failures]
    return InferenceWindow(
        ModelRef(message.model),
        Digest(message.model_digest),
        micros(message.start_time),
        message.span_us,
        message.request_count,
        message.row_count,
        tuple(failures),
        tuple(zip(message.durations.bucket_steps, message.durations.counts, strict=False)),
        tuple(zip(message.batch_rows, message.batch_counts, strict=False)),
        message.full,
        message.unrecorded_count,
    )
