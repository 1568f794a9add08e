"""What was inferred, as people and programs see it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Group

from cli import words
from cli.output import facts, table
from cli.views import times
from coordinator.audit.inference import Report, Request, Share
from coordinator.core.inference import InferenceWindow
from hivefold.errors import Reason
from hivefold.sketch import DurationSketch

if TYPE_CHECKING:
    from rich.console import RenderableType

_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def report_view(report: Report, *, windows: bool, requests: bool) -> RenderableType:
    """Shares by model and node, then what was asked for."""
    parts: list[RenderableType] = [_shares(report)]
    if windows:
        parts += ["", _windows(report)]
    if requests:
        parts += ["", _requests(report)]
    return Group(*parts, "", facts(_batches(report)))


def report_plain(report: Report, *, windows: bool, requests: bool) -> dict[str, Any]:
    """The same for programs."""
    shares = sorted(report.shares.items())
    plain: dict[str, Any] = {
        "models": [_share_plain(model, node_id, share) for (model, node_id), share in shares],
        "batches": {
            "recorded": report.batches,
            "missing": report.missing_count,
            "missingRanges": [
                {"node": node_id, "boot": boot_id, "first": first, "last": last}
                for node_id, boot_id, first, last in report.missing
            ],
            "verified": report.verified,
            "gone": report.gone,
            "goneRequests": report.gone_requests,
            "altered": report.altered_count,
            "alteredPositions": [str(batch.position) for batch in report.altered],
        },
    }
    if windows:
        plain["windows"] = [_window_plain(node_id, window) for node_id, window in report.windows]
    if requests:
        plain["requests"] = [_request_plain(request) for request in report.requests]
    return plain


def _shares(report: Report) -> RenderableType:
    rows = [
        (
            model,
            node_id,
            words.count(share.requests),
            _failures(share.failures),
            *(_quantile(share.durations, quantile) for _, quantile in _QUANTILES),
            words.count(share.rows),
            _mean_rows(share.batches),
            "full" if share.full else "windows",
            words.count(share.recorded) if share.recorded else "",
            words.count(share.unrecorded) if share.unrecorded else "",
        )
        for (model, node_id), share in sorted(report.shares.items())
    ]
    names = [name for name, _ in _QUANTILES]
    right = ("requests", *names, "rows", "rows/batch", "recorded", "not recorded")
    headings = ("model", "node", "requests", "failed", *names, "rows", "rows/batch", "audit", "recorded")
    return table((*headings, "not recorded"), rows, right=right)


def _windows(report: Report) -> RenderableType:
    rows = [
        (
            times.stamp(window.start_time_us),
            words.span(window.span_us / 1e6),
            window.model,
            node_id,
            words.count(window.request_count),
            _failures(Counter(dict(window.failures))),
            *(_quantile(window.sketch(), quantile) for _, quantile in _QUANTILES),
            " ".join(f"{count}x{rows}" for rows, count in window.batches),
        )
        for node_id, window in report.windows
    ]
    names = [name for name, _ in _QUANTILES]
    headings = ("from", "for", "model", "node", "requests", "failed", *names, "batches")
    return table(headings, rows, right=("requests", *names))


def _requests(report: Report) -> RenderableType:
    rows = [
        (
            times.stamp(request.time_us),
            request.model,
            request.node_id,
            request.caller,
            words.span(request.duration_us / 1e6),
            str(request.reason or "ok"),
            request.input_digest[:12],
            request.output_digest[:12],
        )
        for request in report.requests
    ]
    return table(("time", "model", "node", "caller", "took", "ended", "input", "output"), rows, right=("took",))


def _batches(report: Report) -> list[tuple[str, str]]:
    missing = ", ".join(f"{node} {boot} {first}-{last}" for node, boot, first, last in report.missing[:4])
    altered = ", ".join(str(batch.position) for batch in report.altered[:8])
    return [
        ("batches", words.count(report.batches)),
        ("missing", f"[bold red]{words.count(report.missing_count)}[/]: {missing}" if report.missing_count else ""),
        ("verified", words.count(report.verified) if report.verified else ""),
        ("not kept", f"{report.gone} with {report.gone_requests} requests" if report.gone else ""),
        ("altered", f"[bold red]{report.altered_count}[/]: at {altered}" if report.altered_count else ""),
    ]


def _share_plain(model: str, node_id: str, share: Share) -> dict[str, Any]:
    return {
        "model": model,
        "modelDigest": share.digest,
        "node": node_id,
        "audit": "full" if share.full else "windows",
        "windows": share.windows,
        "firstTime": times.iso(share.first_us),
        "lastTime": times.iso(share.last_us),
        "requests": share.requests,
        "rows": share.rows,
        "failures": _failures_plain(share.failures),
        "durationsUs": _quantiles_plain(share.durations),
        "batches": _batches_plain(share.batches),
        "recorded": share.recorded,
        "unrecorded": share.unrecorded,
    }


def _window_plain(node_id: str, window: InferenceWindow) -> dict[str, Any]:
    return {
        "node": node_id,
        "model": window.model,
        "modelDigest": window.model_digest,
        "startTime": times.iso(window.start_time_us),
        "spanUs": window.span_us,
        "requests": window.request_count,
        "rows": window.row_count,
        "failures": _failures_plain(Counter(dict(window.failures))),
        "durationsUs": _quantiles_plain(window.sketch()),
        "batches": _batches_plain(Counter(dict(window.batches))),
        "unrecorded": window.unrecorded_count,
    }


def _request_plain(request: Request) -> dict[str, Any]:
    return {
        "time": times.iso(request.time_us),
        "node": request.node_id,
        "model": request.model,
        "modelDigest": request.model_digest,
        "caller": request.caller,
        "durationUs": request.duration_us,
        "reason": request.reason.value if request.reason else "",
        "inputDigest": request.input_digest,
        "outputDigest": request.output_digest,
        "salt": request.salt,
        "position": str(request.position),
    }


def _quantile(sketch: DurationSketch, quantile: float) -> str:
    return words.span(sketch.quantile_us(quantile) / 1e6) if sketch.buckets else ""


def _quantiles_plain(sketch: DurationSketch) -> dict[str, float]:
    return {name: round(sketch.quantile_us(quantile), 1) for name, quantile in _QUANTILES}


def _failures(failures: Counter[Reason]) -> str:
    return " ".join(f"{count} {reason}" for reason, count in sorted(failures.items()))


def _failures_plain(failures: Counter[Reason]) -> dict[str, int]:
    return {reason.value: count for reason, count in sorted(failures.items())}


def _batches_plain(batches: Counter[int]) -> dict[str, int]:
    return {str(rows): count for rows, count in sorted(batches.items())}


def _mean_rows(batches: Counter[int]) -> str:
    """From 17 rows on sizes are rounded up, and so is their mean."""
    runs = batches.total()
    return f"{sum(rows * count for rows, count in batches.items()) / runs:.1f}" if runs else ""
