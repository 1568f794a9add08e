"""The environment decides, and silence means no SDK at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hivefold.observe.providers import exporters


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ()),
    ],
    ids=["silence", "endpoint", "traces", "metrics only", "none wins", "two", "unknown", "http"],
)
def test_the_environment_chooses_exporters(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    """Standard variables only; what is not there is left out."""
    assert exporters(environment, "TRACES") == expected


@pytest.mark.parametrize("environment", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}])
def test_nothing_of_the_sdk_is_imported_without_an_exporter(environment: dict[str, str]) -> None:
    """An idle daemon does not pay for what nobody asked for."""
    script = (
        "import sys\n"
        "from hivefold import observe\n"
        "telemetry = observe.start_telemetry('s', 'i', '1')\n"
        "telemetry.shutdown()\n"
        "print(telemetry.tracing, any(name.startswith('opentelemetry.sdk') for name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.split() == ["False", "False"]
