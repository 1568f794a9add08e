"""Starts the OpenTelemetry SDK when, and only when, an exporter is configured by `OTEL_*`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import structlog
from opentelemetry import metrics, trace

from hivefold.limits import TELEMETRY_FLUSH_MS

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

_log = structlog.get_logger(__name__)
_KNOWN: Final = ("otlp", "console")


@dataclass(slots=True)
class Telemetry:
    """What was started. Flushing blocks for at most TELEMETRY_FLUSH_MS a signal: call it off the event loop."""

    tracing: bool = False
    stops: list[Callable[[], object]] = field(default_factory=list)

    def shutdown(self) -> None:
        """Sends what has not been sent yet and stops; afterwards spans and metrics go nowhere."""
        while self.stops:
            self.stops.pop()()


def start_telemetry(
    service_name: str, instance_id: str, version: str, environment: Mapping[str, str] | None = None
) -> Telemetry:
    """Starts tracing and metrics as `OTEL_*` says; does nothing, and imports nothing, when it says nothing.

    An OTLP endpoint, for all signals or for one, switches the OTLP exporter (gRPC) of that signal on;
    `OTEL_TRACES_EXPORTER` and `OTEL_METRICS_EXPORTER` choose otlp, console or none; `OTEL_SDK_DISABLED`
    switches all off. Sampling, limits, headers and certificates are the SDK's own to read.
    """
    env = os.environ if environment is None else environment
    telemetry = Telemetry()
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return telemetry
    span_exporters = exporters(env, "TRACES")
    metric_exporters = exporters(env, "METRICS")
    if not span_exporters and not metric_exporters:
        return telemetry
    resource = _resource(service_name, instance_id, version)
    if span_exporters:
        _start_tracing(telemetry, resource, span_exporters)
    if metric_exporters:
        _start_metrics(telemetry, resource, metric_exporters)
    return telemetry


def exporters(env: Mapping[str, str], signal: Literal["TRACES", "METRICS"]) -> tuple[str, ...]:
    """Which exporters the environment asks for: of "otlp" and "console". Others are named in a warning."""
    endpoint = env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    chosen = env.get(f"OTEL_{signal}_EXPORTER", "").strip() or ("otlp" if endpoint else "none")
    wanted = [name.strip().lower() for name in chosen.split(",")]
    for name in wanted:
        if name not in {*_KNOWN, "none", ""}:
            _log.warning("exporter not known, left out", variable=f"OTEL_{signal}_EXPORTER", value=name, known=_KNOWN)
    protocol = env.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if "otlp" in wanted and protocol != "grpc":
        _log.warning("only OTLP over gRPC is there: point the endpoint at the collector's gRPC port", protocol=protocol)
        wanted.remove("otlp")
    return tuple(name for name in _KNOWN if name in wanted)


def _resource(service_name: str, instance_id: str, version: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    named = {"service.namespace": "hivefold", "service.instance.id": instance_id, "service.version": version}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        named["service.name"] = service_name
    return Resource.create(named)


def _start_tracing(telemetry: Telemetry, resource: Resource, names: tuple[str, ...]) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        provider.add_span_processor(_span_processor(name))
    trace.set_tracer_provider(provider)
    telemetry.tracing = True
    telemetry.stops += [provider.shutdown, lambda: provider.force_flush(TELEMETRY_FLUSH_MS)]


def _span_processor(name: str) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    if name == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr))
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return BatchSpanProcessor(OTLPSpanExporter())


def _start_metrics(telemetry: Telemetry, resource: Resource, names: tuple[str, ...]) -> None:
    from opentelemetry.sdk.metrics import MeterProvider

    readers = [_metric_reader(name) for name in names]
    provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    telemetry.stops.append(lambda: provider.shutdown(TELEMETRY_FLUSH_MS))


def _metric_reader(name: str) -> MetricReader:
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    if name == "console":
        return PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr))
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return PeriodicExportingMetricReader(OTLPMetricExporter())
