"""Where models are kept: what one gives up is another's at once."""

from __future__ import annotations

from coordinator.core import commands as cmd
from coordinator.core.decide import Decision, decide
from coordinator.core.model import Needs, Rejected, State
from coordinator.core.model_events import ReplicasPlaced
from coordinator.core.plan import owed_keeps
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, NodeId, RequestId
from tests import samples

N1 = NodeId("n1")


def after(*bodies: cmd.CommandBody) -> State:
    """The state once all this was decided."""
    return after_all(State(), *bodies)


def after_all(state: State, *bodies: cmd.CommandBody) -> State:
    """The state once all this was decided, too."""
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


def test_a_repeat_is_known_when_its_version_is_gone() -> None:
    """The name stands for another version now, or for none: what was asked for was done, and is not done again."""
    asked = cmd.SetResidency("digits", 1, None, None, RequestId("k"))
    state = after(
        cmd.StartTerm("c", "0"),
        cmd.RegisterModel(samples.model("digits", digest=Digest("a" * 64))),
        cmd.RegisterModel(samples.model("digits", digest=Digest("b" * 64))),
        asked,
        cmd.RemoveModel("digits@2", True, "", RequestId("r2")),
    )
    left = after_all(state, cmd.RemoveModel("digits@1", True, "", RequestId("r1")))

    assert decide(state, cmd.Command(samples.START_US, asked)) == Decision((), state)
    assert decide(left, cmd.Command(samples.START_US, asked)) == Decision((), left)


def test_a_request_about_another_model_is_no_repeat() -> None:
    """Though it asks for the same of it."""
    state = after(
        cmd.StartTerm("c", "0"),
        cmd.RegisterModel(samples.model("digits", digest=Digest("a" * 64))),
        cmd.RegisterModel(samples.model("other", digest=Digest("b" * 64))),
        cmd.SetResidency("digits", 1, None, None, RequestId("k")),
    )
    decided = decide(state, cmd.Command(samples.START_US, cmd.SetResidency("other", 1, None, None, RequestId("k"))))

    assert isinstance(decided, Rejected)
    assert decided.reason is Reason.REQUEST_ID_REUSED


def test_a_boot_that_comes_back_after_it_was_given_up_is_told_to_let_go() -> None:
    """It has what it kept still, and another may keep that now; no order goes to it while it is away."""
    kept = after(
        cmd.StartTerm("c", "0"),
        cmd.JoinNode(samples.node_spec("n1")),
        cmd.ObserveNode(N1, BootId("b1"), (), 8 * samples.GIB, 0),
        cmd.RegisterModel(samples.model("digits", digest=Digest("a" * 64))),
        keep("digits", 1),
    )
    (order,) = owed_keeps(kept, (N1,))
    lost = after_all(kept, cmd.ReportSilence(N1, BootId("b1"), 6000, 3000, 6000), keep("digits", 0))

    (later,) = owed_keeps(after_all(lost, cmd.JoinNode(samples.node_spec("n1"))), (N1,))

    assert [keep.model for keep in order.keeps] == ["digits@1"]
    assert owed_keeps(lost, (N1,)) == ()
    assert later.keeps == ()
    assert later.sequence > order.sequence
