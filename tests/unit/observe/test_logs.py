"""Log lines as they come out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from hivefold import observe


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_carry_bound_keys() -> None:
    """Keys bound around a call are in every line of it and in none after."""
    out = io.StringIO()
    observe.configure_logging("json", stream=out)
    log = structlog.get_logger("hivefold.test")

    with observe.bound(job_id="j-1"):
        log.info("inside", rows=3)
    log.info("outside")

    inside, outside = lines(out)
    assert (inside["event"], inside["job_id"], inside["rows"], inside["level"]) == ("inside", "j-1", 3, "info")
    assert "job_id" not in outside


def test_levels_and_foreign_libraries() -> None:
    """Our lines from the chosen level on, those of libraries from warnings on, all in one form."""
    out = io.StringIO()
    observe.configure_logging("auto", level="warning", stream=out)

    structlog.get_logger("coordinator.test").info("too quiet")
    logging.getLogger("nats.aio").info("too quiet")
    logging.getLogger("nats.aio").warning("lost %s", "it")

    assert [line["event"] for line in lines(out)] == ["lost it"]


def test_the_environment_chooses_level_and_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """HIVEFOLD_LOG_LEVEL and HIVEFOLD_LOG_FORMAT; what is not known is said and passed over."""
    out = io.StringIO()
    monkeypatch.setenv("HIVEFOLD_LOG_LEVEL", "debug")
    monkeypatch.setenv("HIVEFOLD_LOG_FORMAT", "xml")
    observe.configure_logging(stream=out)

    structlog.get_logger("node.test").debug("seen")

    warning, seen = lines(out)
    assert (warning["variable"], warning["value"], seen["event"]) == ("HIVEFOLD_LOG_FORMAT", "xml", "seen")


def test_tracebacks_hold_no_values() -> None:
    """Local variables hold data and secrets: they stay out of the log."""
    out = io.StringIO()
    observe.configure_logging("json", stream=out)
    secret = "hush-hush"

    try:
        raise RuntimeError("defect")
    except RuntimeError:
        structlog.get_logger("hivefold.test").exception("failed")

    assert "defect" in out.getvalue()
    assert secret not in out.getvalue()
