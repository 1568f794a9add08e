"""Signing keys in the core: each follows the one before it."""

from __future__ import annotations

from coordinator.core import commands as cmd
from coordinator.core.decide import Decision, decide
from coordinator.core.digest import state_digest
from coordinator.core.model import Rejected, State
from hivefold.errors import Reason
from hivefold.ids import RequestId
from hivefold.limits import SIGNING_KEYS_KEPT


def _change(state: State, key_id: str, previous: str, request_id: str = "") -> Decision | Rejected:
    endorsement = b"e" * 64 if previous else b""
    return decide(
        state, cmd.Command(1, cmd.ChangeSigningKey(key_id, b"k" * 32, previous, endorsement, RequestId(request_id)))
    )


def _changed(state: State, key_id: str, previous: str, request_id: str = "") -> State:
    decision = _change(state, key_id, previous, request_id)
    assert isinstance(decision, Decision)
    assert decision.events
    return decision.state


def test_keys_follow_each_other() -> None:
    """The last one signs; only so many are kept."""
    state = State()
    for n in range(SIGNING_KEYS_KEPT + 2):
        state = _changed(state, f"k{n}", f"k{n - 1}" if n else "", f"r{n}")
    assert [key.key_id for key in state.signing_keys] == [f"k{n}" for n in range(2, SIGNING_KEYS_KEPT + 2)]


def test_a_key_that_does_not_follow_the_last_is_refused() -> None:
    """Of two rotations at once, the slower one is told."""
    state = _changed(_changed(State(), "k0", ""), "k1", "k0", "r1")
    late = _change(state, "k2", "k0", "r2")
    assert isinstance(late, Rejected)
    assert (late.reason, late.metadata) == (Reason.PROOF_FAILED, (("active", "k1"),))
    assert isinstance(_change(state, "k2", ""), Rejected)


def test_a_repeated_request_records_nothing() -> None:
    """The key that the first one made stays."""
    state = _changed(_changed(State(), "k0", ""), "k1", "k0", "r1")
    repeat = _change(state, "k2", "k1", "r1")
    assert isinstance(repeat, Decision)
    assert not repeat.events


def test_the_key_is_part_of_the_digest() -> None:
    """A state with a key has another digest than one without."""
    state = _changed(State(), "k0", "")
    assert state_digest(state) != state_digest(state._replace(signing_keys=()))
