"""One connected trace through the node: work, fetch, the actor's thread, the send, the outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hivefold.v1 import error_pb2
from tests.fixtures.node import infer_work, probes, running, shard
from tests.fixtures.onnx_models import doubling_model

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_an_attempt_is_one_trace_from_its_message_to_its_outcome(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    """Also in the actor's thread; the outcome names the span that the coordinator goes on from."""
    async with running(tmp_path) as rig:
        work = await infer_work(rig, np.zeros((4, 4), dtype=np.float32), doubling_model(tmp_path / "m.onnx"))
        work.traceparent = TRACEPARENT
        shard(work, 0, 0, 4)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        await rig.until(lambda: "send results" in by_name(spans))
    found = by_name(spans)
    assert {trace_of(found[name]) for name in ("process work", "fetch", "infer", "store", "send results")} == {TRACE}
    process = found["process work"].context
    assert process is not None
    assert {parent_of(found[name]) for name in ("fetch", "infer", "store", "send results")} == {process.span_id}
    assert outcome.traceparent == f"00-{TRACE}-{process.span_id:016x}-01"
    assert found["infer"].attributes is not None
    assert found["infer"].attributes["hivefold.rows"] == 4


async def test_a_failed_attempt_is_a_failed_span(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    """With the reason as its type."""
    async with running(tmp_path) as rig:
        work = await infer_work(rig, np.full((4, 4), np.nan, dtype=np.float32), doubling_model(tmp_path / "m.onnx"))
        shard(work, 0, 0, 4)
        await rig.send(work)
        (outcome,) = await rig.outcome_count(1)
        await rig.until(lambda: "process work" in by_name(spans))
    assert outcome.failure.reason == error_pb2.REASON_NAN_FOUND
    span = by_name(spans)["process work"]
    assert not span.status.is_ok
    assert span.attributes is not None
    assert span.attributes["error.type"] == "NAN_FOUND"


async def test_without_an_exporter_the_given_trace_is_passed_on(tmp_path: Path) -> None:
    """The coordinator's trace does not break at a node that records nothing."""
    async with running(tmp_path) as rig:
        work = probes(2)
        work.traceparent = TRACEPARENT
        await rig.send(work)
        assert {outcome.traceparent for outcome in await rig.outcome_count(2)} == {TRACEPARENT}
