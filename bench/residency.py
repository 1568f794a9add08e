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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from actors.backends.onnxruntime import OnnxRuntimeBackend
from actors.backends.shared import SharedBackend
from actors.bridge import ask
from actors.model import ModelBehavior
from actors.together import Feed, FeedTensor, InferBatch
from bench.contender import ROOT
from bench.environment import machine
from bench.statistics import percentile
from hivefold.blobs.content import upload_bytes
from hivefold.blobs.memory import MemoryChunks
from hivefold.clock import stopwatch_ns
from hivefold.memory import keep_freed_memory
from hivefold.v1 import model_pb2
from node.content import Content
from node.models import ModelShelf, Place
from node.residency.policy import Rules

_PAGE: Final = ROOT / "bench" / "RESIDENCY.md"
_WINDOW_S: Final = 0.25
_TOGETHER: Final = 8
_REGISTERED, _ROOM, _CLIENTS = 20, 5, 8
_TARGET: Final = 0.9


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of `layers` square layers, and the rows of a batch."""

    name: str
    width: int
    layers: int
    rows: int


_SHAPES: Final = (Shape("small", 64, 2, 32), Shape("medium", 256, 6, 64), Shape("large", 1024, 4, 64))


@dataclass(slots=True)
class Windows:
    """What came of windows of one kind: batches a second, and a second of the process' own time."""

    by_wall: list[float] = field(default_factory=list)
    by_processor: list[float] = field(default_factory=list)


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
        f"Batches of one model against those of {_TOGETHER} loaded models at once, as the node runs them: one thread",
        "a run, a slot for each core. The best of one model is that of one or two of its actors with one thread each,",
        f"or of one that uses all cores. Windows of {_WINDOW_S:g} s in turns, {rounds} of each; the quickest counts,",
        "for whatever else runs on the machine only takes away. By processor time: batches for each second that the",
        "process computed.",
        "",
        "| model | best of one | together | ratio | by processor time | target |",
        "|---|---|---|---|---|---|",
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
        places = [await shelf.take(model) for model in models]
        alone = await wide.take(wide_models[0])
        kinds: dict[str, tuple[ModelShelf, Sequence[Place]]] = {
            "one": (shelf, places[:1]),
            "two": (shelf, places[:1] * 2),
            "wide": (wide, (alone,)),
            "together": (shelf, places),
        }
        windows = {kind: Windows() for kind in kinds}
        for _ in range(rounds + 1):
            for kind, (of, who) in kinds.items():
                await _window(of, who, shape, windows[kind])
    best = max(max(windows[kind].by_wall[1:]) for kind in ("one", "two", "wide"))
    lean = max(max(windows[kind].by_processor[1:]) for kind in ("one", "two", "wide"))
    wall, processor = max(windows["together"].by_wall[1:]), max(windows["together"].by_processor[1:])
    return (
        f"| {shape.name}: {shape.layers} x {shape.width} x {shape.width}, {shape.rows} rows | {best:,.0f}/s "
        f"| {wall:,.0f}/s | {wall / best:.2f} | {processor / lean:.2f} | {_TARGET} |"
    )


async def _window(shelf: ModelShelf, places: Sequence[Place], shape: Shape, into: Windows) -> None:
    rows = np.ones((shape.rows, shape.width), "<f4").tobytes()
    feed = Feed(shape.rows, (FeedTensor((shape.rows, shape.width), rows),))
    count = 0
    began_ns, spent = stopwatch_ns(), time.process_time()
    until_ns = began_ns + int(_WINDOW_S * 1e9)

    async def keep_asking(place: Place) -> None:
        nonlocal count
        while stopwatch_ns() < until_ns:
            async with shelf.lane(place) as actor:
                await ask(actor, InferBatch((feed,), ("y",)), deadline_ms=60_000)
            count += 1

    await asyncio.gather(*(keep_asking(place) for place in places))
    into.by_wall.append(count * 1e9 / (stopwatch_ns() - began_ns))
    into.by_processor.append(count / (time.process_time() - spent))


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
            async with shelf.lane(place) as actor:
                await ask(actor, InferBatch((feed,), ("y",)), deadline_ms=60_000)

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
    backend = SharedBackend(OnnxRuntimeBackend(threads))
    shelf = ModelShelf(folder, Content(chunks), lambda: ModelBehavior(backend), slots=slots, rules=rules)
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
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, shape.width]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, f"m{seed}", ends[:1], ends[1:], weights)
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return data


if __name__ == "__main__":
    raise SystemExit(main())
