"""Where models are kept: what one gives up is another's at once."""

from __future__ import annotations

from coordinator.core import commands as cmd
from coordinator.core.decide import Decision, decide
from coordinator.core.model import Needs, State
from coordinator.core.model_events import ReplicasPlaced
from hivefold.ids import BootId, Digest, NodeId, RequestId
from tests import samples

N1 = NodeId("n1")


def after(*bodies: cmd.CommandBody) -> State:
    """The state once all this was decided."""
    state = State()
    for body in bodies:
        decided = decide(state, cmd.Command(samples.START_US, body))
        assert isinstance(decided, Decision)
        state = decided.state
    return state


def keep(model: str, replicas: int) -> cmd.SetResidency:
    """Six of the node's eight gigabytes for each."""
    needs = Needs(memory_bytes=6 * samples.GIB)
    return cmd.SetResidency(model, replicas, None, needs, RequestId(f"{model}-{replicas}"))


def test_room_that_one_model_gives_up_is_anothers_in_the_same_record() -> None:
    """Whichever comes first by name: no heartbeat will tell of memory that was only promised."""
    state = after(
        cmd.StartTerm("c", "0"),
        cmd.JoinNode(samples.node_spec("n1")),
        cmd.ObserveNode(N1, BootId("b1"), (), 8 * samples.GIB, 0),
        cmd.RegisterModel(samples.model("early", digest=Digest("a" * 64))),
        cmd.RegisterModel(samples.model("later", digest=Digest("b" * 64))),
        keep("later", 1),
        keep("early", 1),
    )
    assert {ref: residency.nodes for ref, residency in state.residencies.items()} == {"early@1": (), "later@1": (N1,)}

    decided = decide(state, cmd.Command(samples.START_US, keep("later", 0)))

    assert isinstance(decided, Decision)
    assert [(event.model, event.node_ids) for event in decided.events if isinstance(event, ReplicasPlaced)] == [
        ("early@1", (N1,))
    ]
