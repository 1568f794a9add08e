"""What is said of a model that is to be kept loaded."""

from __future__ import annotations

import pytest

from cli.address import Target
from cli.keeping import tell
from hivefold.v1 import model_service_pb2 as pb
from hivefold.v1.event_pb2 import NodeRefusal


@pytest.mark.parametrize(
    ("refusals", "why"),
    [([], "there is no other node"), ([NodeRefusal(node_id="node-2", detail="too small")], "see why above")],
    ids=["no node was refused", "a node was refused"],
)
def test_missing_replicas_are_explained(
    refusals: list[NodeRefusal], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The note points at reasons where some are told, and asks for nodes where all have the model."""
    tell(Target(), pb.Residency(model="digits@1", replica_count=2, node_ids=["node-1"], refusals=refusals))

    out, err = capsys.readouterr()
    assert "1 of 2" in out
    assert ("too small" in out) is bool(refusals)
    assert f"1 of 2 replicas have no node yet: {why}" in err
