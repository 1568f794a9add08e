"""Nodes as people see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from cli import words
from cli.output import facts, table
from cli.views import times
from hivefold.v1 import fleet_pb2, telemetry_pb2

if TYPE_CHECKING:
    from rich.console import RenderableType

_STATE_STYLES: Final = {
    fleet_pb2.NODE_STATE_ONLINE: "green",
    fleet_pb2.NODE_STATE_SUSPECTED: "yellow",
    fleet_pb2.NODE_STATE_LOST: "bold red",
    fleet_pb2.NODE_STATE_LEFT: "dim",
    fleet_pb2.NODE_STATE_LEAVING: "yellow",
}


def state(node: fleet_pb2.Node) -> str:
    """Where the node stands, in words."""
    name = fleet_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_").lower()
    name = f"{name}, draining" if node.draining else name
    return f"{name}, refuses" if node.refusal else name


def styled_state(node: fleet_pb2.Node) -> str:
    """The same as markup."""
    style = "bold red" if node.refusal else "yellow" if node.draining else _STATE_STYLES.get(node.state)
    return f"[{style}]{state(node)}[/]" if style else state(node)


def nodes_table(nodes: Iterable[fleet_pb2.Node]) -> RenderableType:
    """A line for each node."""
    return table(
        ("node", "state", "slots", "busy", "tasks", "models", "cpu", "memory free", "gpu", "grpc", "heard"),
        [_row(node) for node in nodes],
        right=("slots", "busy", "tasks", "models", "cpu", "memory free", "heard"),
    )


def _row(node: fleet_pb2.Node) -> Sequence[str]:
    read = node.HasField("reading")
    return (
        node.spec.node_id,
        styled_state(node),
        str(node.spec.slot_count),
        str(node.attempts_outstanding),
        words.count(node.tasks_succeeded),
        str(len(node.loaded_models)),
        words.percent(node.reading.cpu_utilization_ratio) if read else "",
        words.size(node.reading.memory_available_bytes) if read else "",
        escape(gpus(node)),
        node.spec.grpc_address,
        times.ago(node.heartbeat_time),
    )


def gpus(node: fleet_pb2.Node) -> str:
    """The node's GPUs in a line."""
    if node.reading.gpus:
        return ", ".join(f"{gpu.product} {words.percent(gpu.utilization_ratio)}" for gpu in node.reading.gpus)
    return ", ".join(gpu.product for gpu in node.spec.gpus)


def node_facts(node: fleet_pb2.Node) -> RenderableType:
    """All about one node."""
    spec = node.spec
    return facts(
        [
            ("node", f"[bold]{spec.node_id}[/]"),
            ("state", styled_state(node)),
            *([("refuses", escape(node.refusal))] if node.refusal else ()),
            ("host", escape(f"{spec.host_name} (process {spec.pid})")),
            ("grpc", spec.grpc_address),
            ("machine", f"{spec.cpu_count} cores, {words.size(spec.memory_bytes)} memory"),
            ("gpus", escape(", ".join(f"{gpu.product} ({words.size(gpu.memory_bytes)})" for gpu in spec.gpus))),
            ("slots", f"{spec.slot_count}, {node.attempts_outstanding} attempts with it"),
            ("tasks done", words.count(node.tasks_succeeded)),
            ("models loaded", "\n".join(digest[:16] for digest in node.loaded_models)),
            ("labels", escape(words.pairs(spec.labels))),
            ("joined", f"{times.exact(node.join_time)} ({times.ago(node.join_time)})"),
            ("heard", times.ago(node.heartbeat_time)),
            ("version", spec.code_version),
            ("record", words.count(node.sequence)),
            *(_reading_facts(node.reading) if node.HasField("reading") else ()),
        ]
    )


def _reading_facts(reading: telemetry_pb2.Reading) -> list[tuple[str, str]]:
    memory = f"{words.size(reading.memory_available_bytes)} of {words.size(reading.memory_total_bytes)} available"
    return [
        ("cpu", f"{words.percent(reading.cpu_utilization_ratio)}, load {reading.load_average_1m:.2f}"),
        ("memory", memory),
        ("disks", "\n".join(_disk(disk) for disk in reading.disks)),
        ("network", f"{words.size(reading.network_received_bytes)} in, {words.size(reading.network_sent_bytes)} out"),
        ("temperature", ", ".join(f"{escape(t.sensor)} {t.celsius:.0f} C" for t in reading.temperatures)),
        ("processes", "\n".join(_process(process) for process in reading.processes)),
        ("gpu", "\n".join(_gpu(gpu) for gpu in reading.gpus)),
        ("measured", times.ago(reading.read_time)),
    ]


def _disk(disk: telemetry_pb2.DiskReading) -> str:
    return escape(f"{disk.mount}: {words.size(disk.used_bytes)} of {words.size(disk.total_bytes)} used")


def _process(process: telemetry_pb2.ProcessReading) -> str:
    return escape(
        f"{process.role} ({process.pid}): {words.size(process.resident_bytes)}, {process.cpu_cores:.2f} cores, "
        f"{process.thread_count} threads, {process.open_files} files"
    )


def _gpu(gpu: telemetry_pb2.GpuReading) -> str:
    memory = f"{words.size(gpu.memory_used_bytes)} of {words.size(gpu.memory_total_bytes)}"
    own = f" ({words.size(gpu.memory_own_bytes)} ours)" if gpu.memory_own_bytes else ""
    busy, power, heat = (
        words.percent(gpu.utilization_ratio),
        f"{gpu.power_watts:.0f} W",
        f"{gpu.temperature_celsius:.0f} C",
    )
    return escape(f"{gpu.index} {gpu.product}: {busy}, {memory}{own}, {power}, {heat}")


def trust_facts(plain: Mapping[str, str]) -> RenderableType:
    """What a node has seen of the log."""
    if plain["records"] == "0":
        return facts([("seen", "nothing: it trusts the first checkpoint that it sees")])
    names = (("seen", "records"), ("term", "term"), ("root", "root"), ("log", "chainId"), ("key", "keyId"))
    return facts([(label, plain[name]) for label, name in names])
