"""`hivefold doctor`: what hivefold needs on this machine, each thing measured, with a verdict and what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import resource
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.address import Target
from cli.exits import Exit
from cli.local.ports import FIRST_PORT
from cli.output import show_many
from cli.words import count, size, span
from hivefold.errors import ConfigError, HivefoldError, UnavailableError
from hivefold.limits import STANDBY_STALE_MS
from hivefold.server.ports import is_free

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hivefold.v1 import log_service_pb2

_PACKAGES: Final = ("grpcio", "protobuf", "nats-py", "pykka", "numpy", "onnxruntime", "structlog", "opentelemetry-sdk")
_PYTHON: Final = (3, 11)
_FSYNC_S: Final = 0.5
_FSYNC_BYTES: Final = 4096
_SLOW_FSYNC_S: Final = 0.010
_UNREAL_FSYNC_S: Final = 0.000_02
_FREE_BYTES: Final = 2 * 1024**3
_FREE_MEMORY_BYTES: Final = 1024**3
_OPEN_FILES: Final = 1024


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    """Works, and could be better."""
    BAD = "bad"
    """hivefold will not work until this is changed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, the verdict, and what to do unless that is nothing."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def doctor(target: Target = Target()) -> int:  # noqa: B008 - frozen
    """Check what hivefold needs on this machine.

    Exits 1 when something has to be changed before hivefold can work here.
    """
    findings = asyncio.run(_examine(target))
    items: list[dict[str, Any]] = [asdict(finding) for finding in findings]
    show_many(target, "findings", items, lambda: _shown(findings))
    return Exit.FAILED if any(finding.verdict is Verdict.BAD for finding in findings) else Exit.OK


async def _examine(target: Target) -> list[Finding]:
    return [finding async for finding in _checks(target)]


async def _checks(target: Target) -> AsyncIterator[Finding]:
    yield python(sys.version_info[:2])
    yield packages(_PACKAGES)
    yield await _server()
    yield await _jetstream()
    coordinators = await fleet(target)
    for coordinator in coordinators:
        yield coordinator
    if not any(coordinator.verdict is Verdict.OK for coordinator in coordinators):
        yield ports("127.0.0.1", range(FIRST_PORT, FIRST_PORT + 4))
    yield await disk(_existing(target.directory))
    yield machine()
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield gpu()


def _existing(directory: Path) -> Path:
    return directory if directory.is_dir() else Path.cwd()


def python(version: tuple[int, int]) -> Finding:
    """Whether this Python is new enough."""
    found = f"{platform.python_version()} ({sys.executable})"
    if version < _PYTHON:
        return Finding("python", Verdict.BAD, found, "install Python 3.11 or newer")
    return Finding("python", Verdict.OK, found)


def packages(names: Sequence[str]) -> Finding:
    """Whether the packages are installed."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return Finding(
                "packages", Verdict.BAD, f"{name} is missing", "install hivefold again: pip install hivefold"
            )
    return Finding("packages", Verdict.OK, ", ".join(f"{name} {version}" for name, version in versions.items()))


async def _server() -> Finding:
    from hivefold.server.binary import find_server, version_text

    try:
        binary = await find_server()
    except ConfigError as error:
        return Finding("nats-server", Verdict.BAD, "none that is new enough", error.message)
    return Finding("nats-server", Verdict.OK, f"{version_text(binary.version)} ({binary.path})")


async def _jetstream() -> Finding:
    """Starts a server of our own, on a free port and in a temporary directory, and stops it again."""
    from hivefold.server.embedded import EmbeddedServer

    clock = asyncio.get_running_loop().time
    began = clock()
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = await EmbeddedServer(Path(folder) / "nats", port=0).start()
        except HivefoldError as error:
            return Finding("jetstream", Verdict.BAD, "an embedded server does not start", error.message)
        ready = clock() - began
        await server.stop()
    return Finding("jetstream", Verdict.OK, f"an embedded server serves after {span(ready)}")


async def fleet(target: Target) -> list[Finding]:
    """One finding for each coordinator; one that says so where there is no fleet. Raises InvalidRequestError."""
    try:
        addresses = target.coordinators()
    except UnavailableError:
        return [Finding("fleet", Verdict.NOTE, "none runs here", "start one with: hivefold up")]
    return await asyncio.gather(*(_coordinator(address) for address in addresses))


async def _coordinator(address: str) -> Finding:
    from hivefold.client import connect

    try:
        async with connect(address) as fleet:
            head = await fleet.log.head()
    except HivefoldError as error:
        return Finding("fleet", Verdict.BAD, f"{address} does not answer", error.message)
    return judged(address, head)


def judged(address: str, head: log_service_pb2.GetHeadResponse) -> Finding:
    """What a coordinator says of itself: whether it leads, else how closely it follows."""
    found = f"{address}, {count(head.sequence)} records, {head.durability}"
    if head.leading:
        return Finding("fleet", Verdict.OK, f"{found}, leads in term {head.term}")
    lag, stale_s = head.end_sequence - head.sequence, head.staleness.ToTimedelta().total_seconds()
    found += f", standby, {count(lag)} records behind {span(stale_s)} ago"
    if stale_s * 1000 > STANDBY_STALE_MS:
        return Finding("fleet", Verdict.NOTE, found, "it has lost touch with the log: look at its log and at NATS")
    if not head.leader_address:
        return Finding("fleet", Verdict.NOTE, found, "nobody leads: wait some seconds, then look at the logs")
    return Finding("fleet", Verdict.OK, found)


def ports(host: str, wanted: Sequence[int]) -> Finding:
    """Whether the usual ports are free; taken ones are no trouble, for the next free ones are used."""
    taken = [str(port) for port in wanted if not is_free(host, port)]
    if not taken:
        return Finding("ports", Verdict.OK, f"{wanted[0]} to {wanted[-1]} are free")
    return Finding("ports", Verdict.NOTE, f"taken: {', '.join(taken)}", "`hivefold up` takes the next free ones")


async def disk(directory: Path) -> Finding:
    """How long a durable write takes there, and how much space is left: each decision waits for one such write."""
    import psutil

    median, per_second = await asyncio.to_thread(_measure_fsync, directory, asyncio.get_running_loop())
    free = psutil.disk_usage(str(directory)).free
    found = f"fsync {span(median)} ({count(per_second)}/s), {size(free)} free in {directory.absolute()}"
    if free < _FREE_BYTES:
        return Finding("disk", Verdict.NOTE, found, "free some space: the log and the blobs grow")
    if median > _SLOW_FSYNC_S:
        return Finding("disk", Verdict.NOTE, found, "put --dir on an SSD: each decision waits for one fsync")
    if median < _UNREAL_FSYNC_S:
        return Finding("disk", Verdict.NOTE, found, "too fast to be a disk (a RAM disk?): data may not survive a crash")
    return Finding("disk", Verdict.OK, found)


def _measure_fsync(directory: Path, loop: asyncio.AbstractEventLoop) -> tuple[float, float]:
    """Median seconds of a small durable write, and how many a second."""
    taken: list[float] = []
    block = b"\0" * _FSYNC_BYTES
    with tempfile.TemporaryFile(dir=directory) as file:
        began = now = loop.time()
        while now - began < _FSYNC_S:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            then, now = now, loop.time()
            taken.append(now - then)
    return statistics.median(taken), len(taken) / (now - began)


def machine() -> Finding:
    """Cores and memory."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{os.cpu_count()} cores, {size(memory.available)} of {size(memory.total)} memory available"
    if memory.available < _FREE_MEMORY_BYTES:
        return Finding("machine", Verdict.NOTE, found, "few memory left: start fewer nodes (--nodes)")
    return Finding("machine", Verdict.OK, found)


def open_files(limit: int) -> Finding:
    """Whether a process may open enough files."""
    if 0 <= limit < _OPEN_FILES:
        return Finding("open files", Verdict.NOTE, str(limit), f"raise it: ulimit -n {_OPEN_FILES}")
    return Finding("open files", Verdict.OK, "unlimited" if limit < 0 else count(limit))


def gpu() -> Finding:
    """GPUs that NVML shows; none is no trouble."""
    try:
        import pynvml
    except ImportError:
        return Finding("gpu", Verdict.OK, "not looked for", "to see NVIDIA GPUs: pip install 'hivefold[gpu]'")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Finding("gpu", Verdict.OK, f"none ({error}); models run on the CPU")
    try:
        names = [_gpu_name(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    return Finding("gpu", Verdict.OK, ", ".join(names) or "none; models run on the CPU")


def _gpu_name(nvml: Any, index: int) -> str:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(device)
    text = name.decode() if isinstance(name, bytes) else str(name)
    return f"{text} ({size(nvml.nvmlDeviceGetMemoryInfo(device).total)})"


def _shown(findings: Sequence[Finding]) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    styles = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.BAD: "bold red"}
    made = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        verdict = f"[{styles[finding.verdict]}]{finding.verdict}[/]"
        made.add_row(verdict, finding.check, escape(finding.found))
        if finding.advice:
            made.add_row("", "", f"[dim]->[/] {escape(finding.advice)}")
    return made
