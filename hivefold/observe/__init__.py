"""What a process says of itself: log lines, spans, metrics. Standard `OTEL_*` variables only.

Without an exporter configured nothing of the OpenTelemetry SDK is imported and `span` costs next to nothing.
"""

from __future__ import annotations

from hivefold.observe.logs import bound, configure_logging
from hivefold.observe.providers import Telemetry, start_telemetry
from hivefold.observe.spans import (
    ActiveSpan,
    Kind,
    current_traceparent,
    extract,
    inject,
    is_traceparent,
    meter,
    span,
    start_span,
    tracing,
)

__all__ = [
    "ActiveSpan",
    "Kind",
    "Telemetry",
    "bound",
    "configure_logging",
    "current_traceparent",
    "extract",
    "inject",
    "is_traceparent",
    "meter",
    "span",
    "start_span",
    "start_telemetry",
    "tracing",
]
