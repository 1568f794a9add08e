"""Log lines: JSON for machines, coloured text for people, always to standard error."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager
from typing import Any, Final, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

FORMATS: Final = ("auto", "json", "console")
LEVELS: Final = ("debug", "info", "warning", "error")


def configure_logging(log_format: str = "", level: str = "", stream: TextIO | None = None) -> None:
    """Sets up structlog for this process.

    `log_format` is one of FORMATS ("auto", the default, is console on a terminal and JSON elsewhere),
    `level` one of LEVELS (default "info"); left empty they come from HIVEFOLD_LOG_FORMAT and
    HIVEFOLD_LOG_LEVEL. Lines of libraries that use the standard logging come out the same way, from
    warnings on. An unknown value is named in a warning: no daemon stays down for the look of its log.
    """
    out = sys.stderr if stream is None else stream
    chosen, unknown_format = _choice("HIVEFOLD_LOG_FORMAT", log_format, FORMATS, "auto")
    named, unknown_level = _choice("HIVEFOLD_LOG_LEVEL", level, LEVELS, "info")
    number = logging.getLevelNamesMapping()[named.upper()]
    as_json = chosen == "json" or (chosen == "auto" and not out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace_ids,
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(as_json, out))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for product in ("hivefold", "coordinator", "node", "actors", "cli"):
        logging.getLogger(product).setLevel(number)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    for variable, value, known in (*unknown_format, *unknown_level):
        structlog.get_logger(__name__).warning("log setting not known", variable=variable, value=value, known=known)


def _choice(
    variable: str, given: str, known: tuple[str, ...], default: str
) -> tuple[str, list[tuple[str, str, tuple[str, ...]]]]:
    """The value to use, and what was asked for in vain."""
    value = (given or os.environ.get(variable, "") or default).lower()
    return (value, []) if value in known else (default, [(variable, value, known)])


def bound(**keys: str) -> AbstractContextManager[None]:
    """Adds keys, e.g. `job_id`, to every line logged inside the `with` statement, in this task or thread."""
    return structlog.contextvars.bound_contextvars(**keys)


def add_trace_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds `trace_id` and `span_id` of the current span, if there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _rendering(as_json: bool, out: TextIO) -> list[Any]:
    if as_json:
        return [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # No local variables: they hold data and secrets.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]
