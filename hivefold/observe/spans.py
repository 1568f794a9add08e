"""Spans, and W3C trace context as plain strings: `traceparent` travels in records, messages and metadata."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from hivefold.errors import HivefoldError

Kind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]
Attributes: TypeAlias = Mapping[str, AttributeValue]

TRACEPARENT: Final = "traceparent"
_SCOPE: Final = "hivefold"
_FORMAT: Final = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")
_KINDS: Final[dict[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


def tracing() -> bool:
    """Whether spans are recorded: by this process's telemetry or by the program that embeds the client."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def meter() -> metrics.Meter:
    """The meter of hivefold's metrics; its instruments do nothing until an exporter is configured."""
    return metrics.get_meter(_SCOPE)


class ActiveSpan:
    """A span in work. `traceparent` names it for others; "" when nothing is recorded and nothing was passed on."""

    __slots__ = ("_span", "_token", "traceparent")

    def __init__(self, span: Span | None, traceparent: str) -> None:
        self._span = span
        self._token: object | None = None
        self.traceparent = traceparent

    def set(self, key: str, value: AttributeValue) -> None:
        """Adds an attribute."""
        if self._span is not None:
            self._span.set_attribute(key, value)

    def fail(self, error_type: str, description: str = "") -> None:
        """Marks it as failed; `error_type` is of low cardinality, e.g. a reason or a status code."""
        if self._span is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(Status(StatusCode.ERROR, description or None))

    def end(self) -> None:
        """Ends it. Needed only where it is not used in a `with` statement."""
        if self._span is not None:
            self._span.end()

    def __enter__(self) -> Self:
        context = _context_of(self._span, self.traceparent)
        if context is not None:
            self._token = otel_context.attach(context)
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._token is not None:
            otel_context.detach(self._token)  # type: ignore[arg-type]  # the API's token is opaque
            self._token = None
        if self._span is not None:
            if error is not None and not isinstance(error, GeneratorExit):
                self.fail(_error_type(error), str(error))
            self._span.end()


_NOTHING: Final = ActiveSpan(None, "")


def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str = "",
    attributes: Attributes | None = None,
    links: Sequence[str] = (),
) -> ActiveSpan:
    """A span for a `with` statement: current inside it, ended after it, failed when an exception leaves it.

    `parent` is a traceparent; "" means the current span. `links` are traceparents of other causes. When
    nothing is recorded, a parent is passed on unchanged.
    """
    if not tracing():
        return ActiveSpan(None, parent) if parent else _NOTHING
    return start_span(name, kind=kind, parent=parent, attributes=attributes, links=links)


def start_span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str = "",
    attributes: Attributes | None = None,
    links: Sequence[str] = (),
) -> ActiveSpan:
    """A span that is current nowhere and MUST be ended with `end`: for work that outlives the code that starts it."""
    if not tracing():
        return ActiveSpan(None, parent) if parent else _NOTHING
    contexts = [context for context in map(_parse, links) if context is not None]
    started = trace.get_tracer(_SCOPE).start_span(
        name,
        context=_remote(parent),
        kind=_KINDS[kind],
        attributes=attributes,
        links=[Link(context) for context in contexts],
    )
    return ActiveSpan(started, _format(started.get_span_context()))


def current_traceparent() -> str:
    """The traceparent of the current span; "" when there is none."""
    return _format(trace.get_current_span().get_span_context())


def is_traceparent(text: str) -> bool:
    """Whether `text` is a W3C traceparent, version 00, with ids other than zero."""
    return _parse(text) is not None


def inject(headers: dict[str, str]) -> None:
    """Adds the current span's traceparent to headers or metadata, if there is one."""
    traceparent = current_traceparent()
    if traceparent:
        headers[TRACEPARENT] = traceparent


def extract(headers: Mapping[str, str]) -> str:
    """The traceparent in headers, "" if none. NATS keeps the case of names and Go writes capitals: any case will do."""
    found = headers.get(TRACEPARENT)
    if found is None:
        found = next((value for name, value in headers.items() if name.lower() == TRACEPARENT), "")
    return found if is_traceparent(found) else ""


def _format(context: SpanContext) -> str:
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 0xFF:02x}"


def _parse(traceparent: str) -> SpanContext | None:
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return None
    flags = TraceFlags(int(match["flags"], 16))
    context = SpanContext(int(match["trace"], 16), int(match["span"], 16), is_remote=True, trace_flags=flags)
    return context if context.is_valid else None


def _remote(traceparent: str) -> Context | None:
    """A context whose current span is the remote one; None (the current context) without a parent."""
    parsed = _parse(traceparent) if traceparent else None
    return None if parsed is None else trace.set_span_in_context(NonRecordingSpan(parsed))


def _context_of(span: Span | None, traceparent: str) -> Context | None:
    return _remote(traceparent) if span is None else trace.set_span_in_context(span)


def _error_type(error: BaseException) -> str:
    match error:
        case HivefoldError(reason=reason):
            return reason.value
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return type(error).__qualname__
