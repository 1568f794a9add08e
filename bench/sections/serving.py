"""Serving one answer at a time: one row of digits from many clients, large tensors, and a model that computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.contender import ROOT, Contender, ContenderError
from bench.context import Context
from bench.environment import LOAD, prepare_load, prepare_mlserver
from bench.models import write_cnn, write_mean
from bench.results import Better, Measure, Section, Target
from bench.statistics import percentile, ratios
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.tensors import from_array

KEY: Final = "serving"
TITLE: Final = "Serving over gRPC"
_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_CLIENTS: Final = (1, 32, 512)
_WINDOW_S: Final = 1.2
_WARM_S: Final = 0.3
_TURNS: Final = 2
_PACE: Final = 0.5
_LARGE_ELEMENTS: Final = 10_000_000 // 4
_HEAVY_ROWS: Final = 16
_HEAVY_CLIENTS: Final = 4
_HEAVY_S: Final = 3.0
_PYTHON_CALLS: Final = 300
_OURS, _ECHO = "hivefold", "echo"
_HOW: Final = """\
One row of the digits classifier a request, from 1, 32 and 512 clients in closed loops, each with a connection of its
own: the load generator (bench/load, in Go) shares the machine with what it measures. hivefold is one node of a fleet.
The echo is a bare server of the same kind, grpc.aio on uvloop with the node's options, that answers with as many bytes,
in turns with the node. MLServer serves the same ONNX file over the same protocol, in one process without
workers; Ray Serve over HTTP with the bare bytes of the tensors; LitServe over HTTP and JSON. In a
closed loop 512 clients of a server that 32 keep busy wait 16 times as long, whatever it does: so they are also measured
at half of the calls a second that the node gave 32. Then 10 MB in one tensor of which the mean comes back, and a
convolutional network (five layers, fitted to the digits), 16 images a request from 4 clients, against ONNX Runtime
without any server in the better of two ways: all threads for one call at a time, or one call a thread."""


@dataclass(frozen=True, slots=True)
class _Files:
    """What is served, and what is sent."""

    digits: Path
    cnn: Path
    mean: Path
    row: Path
    row_bytes: Path
    row_json: Path
    rows: Path
    images: Path
    images_message: Path
    large_message: Path
    echo: Path


class _Found:
    """Values by who and what, round by round."""

    def __init__(self) -> None:
        self.rate: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.p50: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.p99: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.paced_p99: list[float] = []
        self.large_p50: list[float] = []
        self.python_p50: list[float] = []
        self.heavy: dict[str, list[float]] = defaultdict(list)

    def take(self, who: str, clients: int, seen: dict[str, Any]) -> None:
        self.rate[who, clients].append(seen["rate"])
        self.p50[who, clients].append(seen["p50_ms"])
        self.p99[who, clients].append(seen["p99_ms"])


def run(context: Context) -> Section:
    """Measures the node and the echo in turns, then each peer, round by round."""
    prepare_load()
    prepare_mlserver()
    files, known = _make(context.workplace)
    context.say(f"made the models; the convolutional one knows {known:.1%} of the digits")
    found = _Found()
    peers: dict[str, tuple[Callable[[int], AbstractContextManager[Contender]], dict[str, Any]]] = {
        "MLServer": (
            lambda at: context.mlserver("mlserver_serving", files.digits, context.workplace / f"mlserver-{at}", 0),
            {"body": files.row},
        ),
        "Ray Serve": (
            lambda _: context.theirs("ray_serving", files.digits),
            {"protocol": "http", "method": "/", "body": files.row_bytes},
        ),
        "LitServe": (
            lambda _: context.theirs("litserve_serving", files.digits),
            {
                "protocol": "http",
                "method": "/predict",
                "body": files.row_json,
                "content_type": "application/json",
            },
        ),
    }
    for at in range(context.rounds):
        _ours(context, files, found)
        with context.ours("onnx_serving", files.cnn, files.images, context.cores) as contender:
            contender.ask("rate", seconds=0.5)
            found.heavy["ONNX Runtime"].append(contender.ask("rate", seconds=_HEAVY_S)["rate"])
        for who, (start, how) in peers.items():
            with start(at) as contender:
                address = contender.ask("where")["address"]
                for clients in _CLIENTS:
                    found.take(who, clients, _load(address, clients, **how))
        context.say(f"round {at + 1}: " + _told(found))
    return Section(KEY, TITLE, _HOW, _targets(found), _measures(found))


def _ours(context: Context, files: _Files, found: _Found) -> None:
    """The node and the echo, each idle while the other is measured."""
    with (
        context.ours("hivefold_serving", context.workplace, context.cores) as node,
        context.ours("echo_server", files.echo) as echo,
    ):
        for file, name in ((files.digits, "digits"), (files.cnn, "cnn"), (files.mean, "mean")):
            node.ask("add", file=str(file), name=name)
        where = {_OURS: node.ask("where")["address"], _ECHO: echo.ask("where")["address"]}
        for address in where.values():
            _load(address, 8, body=files.row)
        for clients in _CLIENTS:
            for _ in range(_TURNS):
                for who, address in where.items():
                    found.take(who, clients, _load(address, clients, body=files.row))
        pace = _PACE * found.rate[_OURS, _CLIENTS[1]][-1]
        found.paced_p99.append(_load(where[_OURS], _CLIENTS[2], body=files.row, rate=pace)["p99_ms"])
        found.large_p50.append(_load(where[_OURS], 1, body=files.large_message)["p50_ms"])
        calls = node.ask("python_calls", model="digits", rows_file=str(files.rows), count=_PYTHON_CALLS)
        found.python_p50.append(percentile(calls["ms"], 50))
        heavy = _load(where[_OURS], _HEAVY_CLIENTS, body=files.images_message, seconds=_HEAVY_S)
        found.heavy[_OURS].append(heavy["rate"])


def _load(
    address: str,
    clients: int,
    *,
    body: object,
    protocol: str = "grpc",
    method: str = _METHOD,
    content_type: str = "application/octet-stream",
    rate: float = 0,
    seconds: float = _WINDOW_S,
) -> dict[str, Any]:
    """What the load generator saw. Raises ContenderError when calls failed."""
    options = {
        "target": address,
        "clients": clients,
        "body": body,
        "protocol": protocol,
        "method": method,
        "content-type": content_type,
        "rate": rate,
        "seconds": seconds,
        "warm": _WARM_S,
    }
    command: list[str | Path] = [LOAD, *[f"-{name}={value}" for name, value in options.items()]]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    seen: dict[str, Any] = json.loads(done.stdout)
    if seen["failed"] or not seen["calls"]:
        raise ContenderError(f"{seen['failed']} calls of {clients} clients failed: {seen['error']}")
    return seen


def _make(folder: Path) -> tuple[_Files, float]:
    """Models and messages, and the share of digits that the convolutional network knows."""
    made: list[str | Path] = [sys.executable, "-m", "examples.digits", folder / "digits", "--rows", "100"]
    subprocess.run(made, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    names = ("cnn.onnx", "mean.onnx", "row", "row.raw", "row.json", "row.npy", "images.npy", "images", "large", "echo")
    files = _Files(folder / "digits" / "digits.onnx", *[folder / name for name in names])
    known = write_cnn(files.cnn)
    write_mean(files.mean)
    rows = np.load(folder / "digits" / "rows.npy", allow_pickle=False)
    images = rows[:_HEAVY_ROWS].reshape(-1, 1, 8, 8)
    np.save(files.rows, rows[:1])
    np.save(files.images, images)
    files.row.write_bytes(_message("digits", "pixels", rows[:1]))
    files.images_message.write_bytes(_message("cnn", "image", images))
    files.large_message.write_bytes(_message("mean", "x", np.ones((1, _LARGE_ELEMENTS), np.float32)))
    files.row_bytes.write_bytes(rows[:1].tobytes())
    files.row_json.write_text(json.dumps({"rows": rows[:1].tolist()}), encoding="utf-8")
    files.echo.write_bytes(bytes(_ANSWER_BYTES))
    return files, known


_ANSWER_BYTES: Final = 109
"""Of the node's answer to one row of digits."""


def _message(model: str, name: str, array: np.ndarray) -> bytes:
    request = InferRequest(model, "", "", (from_array(name, array),), ())
    data: bytes = write_request(request).SerializeToString()
    return data


def _told(found: _Found) -> str:
    at = _CLIENTS[1]
    rates = ", ".join(f"{who} {rates[-1]:,.0f}/s" for (who, clients), rates in found.rate.items() if clients == at)
    return f"{at} clients: {rates}; 10 MB {found.large_p50[-1]:.1f} ms"


def _targets(found: _Found) -> tuple[Target, ...]:
    rate, p50 = found.rate, found.p50
    every = range(_TURNS - 1, len(rate[_OURS, _CLIENTS[1]]), _TURNS)
    targets = []
    for clients in _CLIENTS:
        ours = [rate[_OURS, clients][at] for at in every]
        name = f"one row, {clients} client{'s' if clients > 1 else ''}, calls a second, over"
        targets += [
            Target(f"{name} MLServer", "x", ratios(ours, rate["MLServer", clients]), 3, Better.MORE),
            Target(f"{name} the bare echo", "x", ratios(rate[_OURS, clients], rate[_ECHO, clients]), 0.8, Better.MORE),
        ]
    few, some, many = _CLIENTS
    return (
        *targets,
        Target(
            "one row, 1 client, p50 over the echo's", "x", ratios(p50[_OURS, few], p50[_ECHO, few]), 1.3, Better.LESS
        ),
        Target(
            f"p99 at {many} clients over the p50 at {some}",
            "x",
            ratios(found.p99[_OURS, many], p50[_OURS, some]),
            10,
            Better.LESS,
        ),
        Target("10 MB in one tensor, p50", "ms", tuple(found.large_p50), 30, Better.LESS),
        Target(
            "convolutional network, over ONNX Runtime alone",
            "x",
            ratios(found.heavy[_OURS], found.heavy["ONNX Runtime"]),
            0.95,
            Better.MORE,
        ),
    )


def _measures(found: _Found) -> tuple[Measure, ...]:
    some, many = _CLIENTS[1:]
    measures = [
        Measure(f"{name}, {clients} client{'s' if clients > 1 else ''}", who, unit, tuple(values), better)
        for name, unit, better, by in (
            ("calls a second", "/s", Better.MORE, found.rate),
            ("p50", "ms", Better.LESS, found.p50),
            ("p99", "ms", Better.LESS, found.p99),
        )
        for clients in _CLIENTS
        for (who, of), values in by.items()
        if of == clients
    ]
    echo = ratios(found.p99[_ECHO, many], found.p50[_ECHO, some])
    return (
        *measures,
        Measure(f"p99 at {many} clients over the p50 at {some}", _ECHO, "x", echo, Better.LESS),
        Measure(f"p99, {many} clients at a pace of {_PACE:.0%}", _OURS, "ms", tuple(found.paced_p99), Better.LESS),
        Measure("p50, hivefold's Python client", _OURS, "ms", tuple(found.python_p50), Better.LESS),
        *[
            Measure(
                f"convolutional network, requests of {_HEAVY_ROWS} images a second",
                who,
                "/s",
                tuple(values),
                Better.MORE,
            )
            for who, values in found.heavy.items()
        ],
    )
