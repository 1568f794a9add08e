"""Trace context as strings, and spans that cost nothing when nobody listens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from hivefold import observe
from hivefold.errors import NotFoundError, Reason
from hivefold.observe.logs import add_trace_ids

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Finished spans of a tracer that is in place for one test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_without_a_tracer_a_parent_is_passed_on() -> None:
    """A process that records nothing does not break the trace of others."""
    with observe.span("work", parent=PARENT) as span:
        assert span.traceparent == PARENT
        assert observe.current_traceparent() == PARENT

    assert observe.current_traceparent() == ""


def test_without_a_tracer_and_a_parent_nothing_happens() -> None:
    """No parent, no tracer: nothing to say and nothing to pass on."""
    with observe.span("work", attributes={"a": 1}) as span:
        span.set("b", 2)
        span.fail("oops")

        assert (span.traceparent, observe.current_traceparent(), observe.tracing()) == ("", "", False)


def test_a_span_continues_its_parents_trace(spans: InMemorySpanExporter) -> None:
    """The trace id is the parent's; the traceparent handed on names the new span."""
    with observe.span("work", kind="consumer", parent=PARENT, attributes={"a": 1}, links=[PARENT, "junk"]) as span:
        assert observe.current_traceparent() == span.traceparent

    done = only(spans)
    assert done.kind is SpanKind.CONSUMER
    assert done.parent is not None
    assert f"{done.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.traceparent.split("-")[1] == PARENT.split("-")[1]
    assert (done.attributes, len(done.links)) == ({"a": 1}, 1)


def test_spans_nest_within_a_task(spans: InMemorySpanExporter) -> None:
    """Without a given parent the current span is it."""
    with observe.span("outer"), observe.span("inner"):
        pass

    inner, outer = spans.get_finished_spans()
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_an_error_that_leaves_a_span_fails_it(spans: InMemorySpanExporter) -> None:
    """An error of hivefold is marked by its reason."""
    with pytest.raises(NotFoundError), observe.span("work"):
        raise NotFoundError("no such job", reason=Reason.JOB_NOT_FOUND)

    done = only(spans)
    assert done.status.status_code is StatusCode.ERROR
    assert done.attributes == {"error.type": "JOB_NOT_FOUND"}


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_headers_are_read_in_any_case(name: str) -> None:
    """Go writes the header in capitals, NATS keeps it so."""
    assert observe.extract({"other": "x", name: PARENT}) == PARENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk",
        PARENT.upper(),
        PARENT + "-x",
        "01" + PARENT[2:],
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    """A malformed header starts a new trace instead of failing a call."""
    assert observe.extract({"traceparent": text}) == ""
    assert not observe.is_traceparent(text)


def test_inject_names_the_current_span() -> None:
    """Headers carry the current span, or nothing at all."""
    outside: dict[str, str] = {}
    inside: dict[str, str] = {}

    observe.inject(outside)
    with observe.span("work", parent=PARENT):
        observe.inject(inside)

    assert (outside, inside) == ({}, {"traceparent": PARENT})


def test_log_lines_carry_the_current_span() -> None:
    """A line is found by its trace, and a trace by its line."""
    with observe.span("work", parent=PARENT):
        line = add_trace_ids(None, "info", {"event": "hello"})

    assert line == {"event": "hello", "trace_id": PARENT.split("-")[1], "span_id": PARENT.split("-")[2]}
