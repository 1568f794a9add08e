"""`hivefold node`: look at nodes, drain them, run one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cli.address import Target, listed
from cli.daemons import DaemonOptions
from cli.labels import parse_labels
from cli.output import show_many, show_one
from hivefold.errors import InvalidRequestError
from hivefold.imports import lean_imports

if TYPE_CHECKING:
    from hivefold.v1 import fleet_pb2

app = App(name="node", help="Look at nodes, drain them, run one.")


@app.command
def ls(
    *,
    all_nodes: Annotated[bool, Parameter(name=("--all", "-a"), negative=())] = False,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """List the nodes.

    Parameters
    ----------
    all_nodes
        Also those that left or were lost.
    """
    from cli.views.nodes import nodes_table

    nodes = target.ask(lambda fleet: listed(fleet.nodes.list(include_gone=all_nodes)))
    show_many(target, "nodes", nodes, lambda: nodes_table(nodes))


@app.command
def show(node_id: str, *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Show one node and what it measured last.

    Parameters
    ----------
    node_id
        The node.
    """
    _show(target, target.ask(lambda fleet: fleet.nodes.get(node_id)))


@app.command
def drain(node_id: str, *, note: str = "", target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Give a node no new work; what it has, it finishes.

    Parameters
    ----------
    node_id
        The node.
    note
        Why, for the record.
    """
    _show(target, target.ask(lambda fleet: fleet.nodes.drain(node_id, note)))


@app.command
def undrain(node_id: str, *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Give a node work again.

    Parameters
    ----------
    node_id
        The node.
    """
    _show(target, target.ask(lambda fleet: fleet.nodes.undrain(node_id)))


@app.command
def trust(
    data_dir: Path,
    *,
    reset: Annotated[bool, Parameter(negative=())] = False,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Show what a node has seen of the log, or have it trust the coordinator anew. Works on the node's machine.

    Parameters
    ----------
    data_dir
        The node's data directory; DIR/state/node-1 for a fleet of `hivefold up`.
    reset
        Forget what it has seen: after the log was restored from a copy on purpose. The node may run meanwhile.
    """
    from cli.views.nodes import trust_facts
    from hivefold.proof.extension import WITNESS_FILE, read_proven
    from node.identity import ID_FILE

    if not (data_dir / ID_FILE).is_file():
        raise InvalidRequestError(
            f"{data_dir} is no node's data directory: it is DIR/state/NODE of a local fleet, else the node's data_dir"
        )
    path = data_dir / WITNESS_FILE
    if reset:
        path.unlink(missing_ok=True)
    proven = None if reset else read_proven(path)
    plain = (
        {"records": "0"}
        if proven is None
        else {
            "records": str(proven.checkpoint.size),
            "term": str(proven.checkpoint.term),
            "root": proven.checkpoint.root.hex(),
            "chainId": proven.checkpoint.chain_id.hex(),
            "keyId": proven.key.key_id,
        }
    )
    show_one(target, plain, lambda: trust_facts(plain))


@app.command
def run(
    options: DaemonOptions = DaemonOptions(),  # noqa: B008 - frozen
    *,
    slots: NonNegativeInt | None = None,
    threads: NonNegativeInt | None = None,
    models: PositiveInt | None = None,
    model_memory: PositiveFloat | None = None,
    model_idle_s: NonNegativeFloat | None = None,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    drain_s: NonNegativeFloat | None = None,
) -> int:
    """Run one node until Ctrl-C or SIGTERM; then it finishes what runs and leaves.

    Parameters
    ----------
    slots
        Attempts at once; 0: one for each core.
    threads
        Threads that its models share; 0: one for each core.
    models
        Most models loaded at once.
    model_memory
        The part of the machine's memory that loaded models may take, e.g. 0.5.
    model_idle_s
        How long a loaded model may be unused before it is unloaded; 0: it stays.
    label
        NAME=VALUE, matched by what jobs need; may be repeated.
    drain_s
        How long it may take to finish what runs.
    """
    with lean_imports():
        from hivefold.config import load_node_config
        from node.app import run as run_node

    labels = parse_labels(label) if label else None
    flags = options.flags(
        slots=slots,
        threads=threads,
        models=models,
        model_memory=model_memory,
        model_idle_s=model_idle_s,
        labels=labels,
        drain_s=drain_s,
    )
    return run_node(load_node_config(flags, os.environ, options.config))


def _show(target: Target, node: fleet_pb2.Node) -> None:
    from cli.views.nodes import node_facts

    show_one(target, node, lambda: node_facts(node))
