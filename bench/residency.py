"""python -m bench.residency: many models in one node. Writes bench/RESIDENCY.md.

A node's own parts in one process (its models, their actors, ONNX Runtime; no broker and no network): many loaded models
against one, and many clients that ask for more models than there is room for.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import structlog

from actors.backends.onnxruntime import OnnxRuntimeBackend
from actors.batching import BatchPolicy
from actors.model import ModelBehavior
from actors.session import Session
from actors.signature import Signature
from actors.tensors import Array
from actors.together import Feed, FeedTensor, InferBatch
from bench.contender import ROOT
from bench.environment import machine
from bench.statistics import percentile
from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.clock import SystemClock, stopwatch_ns
from hivefold.memory import keep_freed_memory
from hivefold.models import TensorFacts
from hivefold.oip.limits import BATCH_BYTES
from hivefold.oip.requests import InferRequest
from hivefold.oip.tensors import from_array
from hivefold.v1 import model_pb2
from node.content import Content
from node.lanes import Lanes
from node.models import ModelShelf, Place
from node.residency.policy import Rules
from node.serving.served import ServedModel
from node.serving.statistics import Statistics

_PAGE: Final = ROOT / "bench" / "RESIDENCY.md"
_WINDOW_S: Final = 0.1
_TOGETHER: Final = 8
_CALLERS: Final = (1, 2, _TOGETHER)
_REGISTERED, _ROOM, _CLIENTS = 20, 5, 8
_PROMISED: Final = 0.9


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of `layers` square layers, and the rows of a batch; not `steady`: nobody knows how long its runs take."""

    name: str
    width: int
    layers: int
    rows: int
    steady: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.layers} x {self.width} x {self.width}, {self.rows} rows"


_SHAPES: Final = (
    Shape("small", 64, 2, 32),
    Shape("small, in a lane", 64, 2, 32, steady=False),
    Shape("medium", 256, 6, 64),
    Shape("large", 1024, 4, 64),
)


class Rate(NamedTuple):
    """Requests a second, and a second of the process' own time: whatever else the machine does disturbs that less."""

    by_wall: float
    by_processor: float


Window: TypeAlias = Callable[[], Awaitable[Rate]]
"""Asks for _WINDOW_S as fast as it can."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.residency", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="windows of each kind (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of many clients (default %(default)s)")
    arguments = parser.parse_args()
    keep_freed_memory()  # as nodes do
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    page = asyncio.run(_measured(arguments.rounds, arguments.seconds))
    _PAGE.write_text(page, encoding="utf-8")
    print(page)
    return 0


async def _measured(rounds: int, seconds: float) -> str:
    began = datetime.now(UTC)
    lines = [
        "# Many models in one node",
        "",
        f"`python -m bench.residency --rounds {rounds} --seconds {seconds:g}`, {began:%Y-%m-%d}.",
        "; ".join(f"{name}: {value}" for name, value in machine().items()) + ".",
        "",
        "## Loaded together",
        "",
        f"Requests of one batch each, to one model and to {_TOGETHER} loaded ones, as a node serves them: its queue,",
        f"its choice between the loop and a lane, ONNX Runtime; no wire. One model is asked by 1, 2 or {_TOGETHER}",
        f"callers, or has all cores for each run, and the best counts; of {_TOGETHER} models each has a caller.",
        "The floor is the same with ONNX Runtime's sessions and no node: one session over and over, or all in",
        "rotation, in one thread and in one for each core, the better of both. What is lost there is the processor's:",
        f"its caches hold one model, but not {_TOGETHER}. Windows of {_WINDOW_S:g} s in turns, {rounds} of each after",
        "one to warm up; medians. Processor: the ratio by the process' own time.",
        f"Promised: a ratio of {_PROMISED}.",
        "",
        (
            "| model | sessions: one | in rotation | floor | node: best of one | together | ratio | promise "
            "| of the floor | processor |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as folder:
        for shape in _SHAPES:
            lines.append(await _together(Path(folder) / shape.name, shape, rounds))
            print(lines[-1], flush=True)
        lines += await _crowd(Path(folder) / "crowd", seconds)
    return "\n".join(lines) + "\n"


async def _together(folder: Path, shape: Shape, rounds: int) -> str:
    """A row of the table."""
    cores = len(os.sched_getaffinity(0))
    async with (
        _node(folder / "one", shape, _TOGETHER, threads=1, slots=cores) as (shelf, models),
        _node(folder / "wide", shape, 1, threads=cores, slots=1) as (wide, wide_models),
    ):
        served = [_served(shelf, model, shape, cores) for model in models]
        alone = _served(wide, wide_models[0], shape, 1)
        kinds: dict[str, Window] = {f"one x{callers}": _asked(served[:1] * callers, shape) for callers in _CALLERS}
        kinds |= {"wide": _asked([alone], shape), "together": _asked(served, shape)}
        sessions = _sessions(folder / "raw", shape)
        for threads in sorted({1, cores}):
            kinds[f"raw x{threads}"] = _raw(sessions[:1], threads, shape)
            kinds[f"rotation x{threads}"] = _raw(sessions, threads, shape)
        windows: dict[str, list[Rate]] = {kind: [] for kind in kinds}
        for turn in range(rounds + 1):
            for kind, window in kinds.items():
                rate = await window()
                if turn:  # the first is for warming up
                    windows[kind].append(rate)
    wall = {kind: median(rate.by_wall for rate in found) for kind, found in windows.items()}
    processor = {kind: median(rate.by_processor for rate in found) for kind, found in windows.items()}
    return _row(shape, wall, processor, cores)


def _row(shape: Shape, wall: Mapping[str, float], processor: Mapping[str, float], cores: int) -> str:
    raw = [wall[f"raw x{threads}"] for threads in (1, cores)]
    rotation = [wall[f"rotation x{threads}"] for threads in (1, cores)]
    floor = max(rotation) / max(raw)
    best, lean = (max(of[kind] for kind in of if kind.startswith(("one", "wide"))) for of in (wall, processor))
    ratio, thrift = wall["together"] / best, processor["together"] / lean
    return (
        f"| {shape} | {_rates(raw)} | {_rates(rotation)} | {floor:.2f} | {best:,.0f}/s | {wall['together']:,.0f}/s "
        f"| {ratio:.2f} | {'met' if ratio >= _PROMISED else 'missed'} | {ratio / floor:.2f} | {thrift:.2f} |"
    )


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:,.0f}/s" for rate in rates)


def _asked(models: Sequence[ServedModel], shape: Shape) -> Window:
    """A caller for each of `models`, one request after another."""
    request = InferRequest("m", "", "", (from_array("x", _rows(shape)),), ())

    async def window() -> Rate:
        count = 0
        began_ns, spent = stopwatch_ns(), time.process_time()
        until_ns = began_ns + int(_WINDOW_S * 1e9)

        async def keep_asking(model: ServedModel) -> None:
            nonlocal count
            while stopwatch_ns() < until_ns:
                await model.infer(request, 1 << 60)
                count += 1
                await asyncio.sleep(0)  # as requests of other callers would come in between

        await asyncio.gather(*(keep_asking(model) for model in models))
        return _rate(count, began_ns, spent)

    return window


def _raw(sessions: Sequence[Session], threads: int, shape: Shape) -> Window:
    """Threads that go through the sessions in rotation, each from another one on."""
    feeds = {"x": _rows(shape)}

    def keep_running(first: int) -> int:
        count = 0
        until_ns = stopwatch_ns() + int(_WINDOW_S * 1e9)
        while stopwatch_ns() < until_ns:
            sessions[(first + count) % len(sessions)].run(("y",), feeds)
            count += 1
        return count

    async def window() -> Rate:
        with ThreadPoolExecutor(threads) as pool:
            began_ns, spent = stopwatch_ns(), time.process_time()
            counts = list(pool.map(keep_running, range(0, _TOGETHER, -(-_TOGETHER // threads))))
            return _rate(sum(counts), began_ns, spent)

    return window


def _rate(count: int, began_ns: int, spent: float) -> Rate:
    return Rate(count * 1e9 / (stopwatch_ns() - began_ns), count / (time.process_time() - spent))


def _sessions(folder: Path, shape: Shape) -> list[Session]:
    folder.mkdir(parents=True)
    backend = OnnxRuntimeBackend(1)
    sessions: list[Session] = []
    for seed in range(_TOGETHER):
        path = folder / f"{seed}.onnx"
        path.write_bytes(_model(shape, seed))
        sessions.append(backend.open(path))
    return sessions


def _served(shelf: ModelShelf, model: model_pb2.Model, shape: Shape, lanes: int) -> ServedModel:
    """The model as a node serves it, but for one thing: a batch is full with one request, for one model or many."""
    facts = {name: (TensorFacts(name, "FP32", (-1, shape.width)),) for name in "xy"}
    return ServedModel(
        model,
        Signature(facts["x"], facts["y"]),
        shelf,
        policy=BatchPolicy(max_rows=shape.rows, max_bytes=BATCH_BYTES),
        tally=Statistics().of(model.name, model.version),
        clock=SystemClock(),
        lanes=lanes,
    )


def _rows(shape: Shape) -> Array:
    return np.ones((shape.rows, shape.width), "<f4")


async def _crowd(folder: Path, seconds: float) -> list[str]:
    """Clients that each ask for one model after another, of more than there is room for."""
    shape = Shape("crowd", 256, 2, 8)
    took_ms: list[list[float]] = [[] for _ in range(_CLIENTS)]
    failed = 0
    async with _node(folder, shape, _REGISTERED, threads=1, slots=2, rules=Rules(models=_ROOM)) as (shelf, models):
        until_ns = stopwatch_ns() + int(seconds * 1e9)
        most = 0

        async def keep_asking(client: int, run: Callable[[Place], Awaitable[None]]) -> None:
            nonlocal most
            while stopwatch_ns() < until_ns:
                began_ns = stopwatch_ns()
                place = await shelf.take(models[(client * 7 + len(took_ms[client]) * 3) % _REGISTERED])
                most = max(most, len(shelf.resident()))
                try:
                    await run(place)
                finally:
                    shelf.give(place)
                took_ms[client].append((stopwatch_ns() - began_ns) / 1e6)

        feed = Feed(shape.rows, (FeedTensor((shape.rows, shape.width), bytes(4 * shape.rows * shape.width)),))

        async def run(place: Place) -> None:
            await shelf.run(place, InferBatch((feed,), ("y",)), deadline_ms=60_000)

        ended = await asyncio.gather(*(keep_asking(n, run) for n in range(_CLIENTS)), return_exceptions=True)
        failed = sum(isinstance(each, BaseException) for each in ended)
    counts = [len(each) for each in took_ms]
    every = sorted(chain.from_iterable(took_ms))
    return [
        "",
        f"## {_REGISTERED} models, room for {_ROOM}, {_CLIENTS} clients",
        "",
        "Each client asks for one model after another, so that nearly every request has to load its model.",
        "",
        f"- {sum(counts) / seconds:,.0f} requests a second, the slowest after {every[-1]:.0f} ms.",
        f"- p50 {percentile(every, 50):.0f} ms, p99 {percentile(every, 99):.0f} ms.",
        f"- {failed} clients failed; at most {most} models were resident at once.",
        f"- Fairness: the slowest client had {min(counts) / (sum(counts) / _CLIENTS):.2f} of the mean (promised: 0.5).",
    ]


@asynccontextmanager
async def _node(
    folder: Path, shape: Shape, count: int, *, threads: int, slots: int, rules: Rules | None = None
) -> AsyncIterator[tuple[ModelShelf, list[model_pb2.Model]]]:
    folder.mkdir(parents=True)
    chunks = MemoryChunks()
    backend = OnnxRuntimeBackend(threads)
    shelf = ModelShelf(folder, Content(chunks), lambda: ModelBehavior(backend), lanes=Lanes(slots), rules=rules)
    models = []
    for seed in range(count):
        data = _model(shape, seed)
        model = model_pb2.Model(name=f"m{seed}", version=1, digest=hashlib.sha256(data).hexdigest())
        model.artifact.CopyFrom(await upload_bytes(chunks, data))
        models.append(model)
    try:
        yield shelf, models
    finally:
        for actor in shelf.stop():
            await asyncio.to_thread(actor.join, 10)


def _model(shape: Shape, seed: int) -> bytes:
    """An ONNX file: matrix products with ReLU between them."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for layer in range(shape.layers):
        matrix = random.standard_normal((shape.width, shape.width)).astype("<f4") / shape.width**0.5
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        after = "y" if layer + 1 == shape.layers else f"r{layer}"
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"p{layer}"]))
        nodes.append(helper.make_node("Relu", [f"p{layer}"], [after]))
        last = after
    if not shape.steady:  # an operator whose output may be as large as a value says; here it changes nothing
        weights.append(numpy_helper.from_array(np.ones(1, "<i8"), "same"))
        nodes[-1].output[0] = "last"
        nodes.append(helper.make_node("Expand", ["last", "same"], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, shape.width]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, f"m{seed}", ends[:1], ends[1:], weights)
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return data


if __name__ == "__main__":
    raise SystemExit(main())
