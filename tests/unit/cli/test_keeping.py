"""What is said of a model that is to be kept loaded."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cli.address import Target
from cli.keeping import load, tell
from cli.output import as_plain
from hivefold.v1 import model_service_pb2 as pb
from hivefold.v1.event_pb2 import NodeRefusal
from hivefold.v1.job_pb2 import Needs


@pytest.mark.parametrize(
    ("nodes", "refused", "why"),
    [
        (["node-1"], "", "there is no other node"),
        (["node-1"], "node-2", "see why above"),
        (["node-1", "node-2"], "node-2", "see why above"),
    ],
    ids=["no node was refused", "a node was refused", "a node that keeps it is not to stay"],
)
def test_missing_replicas_are_explained(
    nodes: list[str], refused: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The note points at reasons where some are told, and asks for nodes where all have the model.

    A node that keeps the model without what is needed, until there is another one, is no replica that was asked for.
    """
    refusals = [NodeRefusal(node_id=refused, detail="too small")] if refused else []
    tell(Target(), pb.Residency(model="digits@1", replica_count=2, node_ids=nodes, refusals=refusals))

    out, err = capsys.readouterr()
    assert "1 of 2" in out
    assert (f"{refused}: too small" in out) is bool(refused)
    assert ("not to stay" in out) is (refused in nodes)
    assert f"1 of 2 replicas have no node yet: {why}" in err


class Telling(Target):
    """A fleet that says what nodes are told to have."""

    def ask(self, question: Any) -> Any:
        async def keep(model: str, *, needs: Needs | None, **_: Any) -> pb.Residency:
            print("told", needs is not None and as_plain(needs))
            return pb.Residency(model=model)

        return asyncio.run(question(SimpleNamespace(models=SimpleNamespace(keep=keep))))


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({}, None),
        ({"gpus": 0}, Needs()),
        ({"memory": 0}, Needs()),
        ({"gpus": 2}, Needs(gpu_count=2)),
        ({"label": ["zone=a"]}, Needs(node_labels={"zone": "a"})),
    ],
)
def test_what_nodes_must_have_is_left_alone_or_said_as_a_whole(
    given: dict[str, Any], needs: Needs | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing said leaves it as it was; none of something is said too, and so takes back what was asked for."""
    load("digits", target=Telling(), **given)
    assert f"told {needs is not None and as_plain(needs)}\n" in capsys.readouterr().out
