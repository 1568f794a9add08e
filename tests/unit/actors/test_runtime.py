"""Actors: no reply is lost, no crash spreads, a full inbox can still be stopped. Races are staged, none is timed."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from actors.runtime import (
    ActorRef,
    ActorRestartingError,
    ActorStoppedError,
    Behavior,
    BehaviorFailedError,
    Failed,
    InboxFullError,
    spawn,
)
from actors.supervision import RestartPolicy
from hivefold.clock import ManualClock
from hivefold.errors import DataRefusedError, Reason

WAIT_S = 10.0


@dataclass
class Answer:
    """Collects one reply."""

    value: object = None
    error: BaseException | None = None
    count: int = 0
    came: threading.Event = field(default_factory=threading.Event)

    def __call__(self, value: object, error: BaseException | None) -> None:
        self.value, self.error = value, error
        self.count += 1
        self.came.set()

    def wait(self) -> Answer:
        assert self.came.wait(WAIT_S)
        return self


class Scripted:
    """Runs what it is sent."""

    def __init__(self) -> None:
        self.started = 0
        self.stopped = 0

    def start(self) -> None:
        self.started += 1

    def receive(self, message: Callable[[], object]) -> object:
        return message()

    def stop(self) -> None:
        self.stopped += 1


Script = ActorRef[Callable[[], object], object]


@dataclass
class Gate:
    """A message that holds its actor until it is opened."""

    entered: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> str:
        self.entered.set()
        assert self.opened.wait(WAIT_S)
        return "through"


def send(ref: Script, message: Callable[[], object]) -> Answer:
    answer = Answer()
    ref.ask(message, answer)
    return answer


def fail(error: BaseException) -> Callable[[], object]:
    def raising() -> object:
        raise error

    return raising


def ended(ref: Script) -> bool:
    ref.stop()
    return ref.join(WAIT_S)


def test_the_reply_is_what_the_behaviour_returned() -> None:
    """One question, one answer."""
    ref: Script = spawn(Scripted, name="a")
    assert send(ref, lambda: 42).wait().value == 42
    assert ended(ref)


def test_the_callers_context_travels_with_the_message() -> None:
    """Trace and log keys are context variables: the behaviour sees the sender's."""
    variable = contextvars.ContextVar("key", default="none")
    ref: Script = spawn(Scripted, name="a")
    variable.set("sender's")
    assert send(ref, variable.get).wait().value == "sender's"
    assert ended(ref)


def test_a_refusal_is_an_answer_and_the_behaviour_goes_on() -> None:
    """HivefoldError does not count as a failure."""
    made: list[Scripted] = []

    def factory() -> Scripted:
        made.append(Scripted())
        return made[-1]

    ref: Script = spawn(factory, name="a")
    refusal = DataRefusedError("no", reason=Reason.NAN_FOUND)
    assert send(ref, fail(refusal)).wait().error is refusal
    assert send(ref, lambda: 1).wait().value == 1
    assert ended(ref)
    assert [behavior.stopped for behavior in made] == [1]


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_one_actors_crash_leaves_the_others_running(error: BaseException) -> None:
    """Pykka stops every actor of the process on a BaseException; here it stays where it was raised."""
    bystander: Script = spawn(Scripted, name="bystander")
    failures: list[Failed] = []
    ref: Script = spawn(Scripted, name="a", watcher=failures.append)
    answer = send(ref, fail(error)).wait()
    assert isinstance(answer.error, BehaviorFailedError)
    assert type(error).__name__ in str(answer.error)
    assert "odd" not in str(answer.error), "what it says may hold values, and what is told is recorded"
    assert [failure.error for failure in failures] == [error]
    assert send(bystander, lambda: "here").wait().value == "here"
    assert ended(ref)
    assert ended(bystander)


def test_running_out_of_memory_is_told_as_such() -> None:
    """The coordinator places the task elsewhere for this reason."""
    ref: Script = spawn(Scripted, name="a")
    error = send(ref, fail(MemoryError())).wait().error
    assert isinstance(error, BehaviorFailedError)
    assert error.reason is Reason.OUT_OF_MEMORY
    assert ended(ref)


def test_a_failed_behaviour_is_replaced_after_the_wait_that_supervision_gives() -> None:
    """Messages before that are refused, not lost; the one after finds a new behaviour."""
    clock = ManualClock()
    made: list[Scripted] = []

    def factory() -> Scripted:
        made.append(Scripted())
        return made[-1]

    ref: Script = spawn(factory, name="a", clock=clock, policy=RestartPolicy(first_wait_ms=100))
    send(ref, fail(ValueError())).wait()
    assert isinstance(send(ref, lambda: 1).wait().error, ActorRestartingError)
    clock.advance_ms(100)
    assert send(ref, lambda: 1).wait().value == 1
    assert [(behavior.started, behavior.stopped) for behavior in made] == [(1, 1), (1, 0)]
    assert ended(ref)


def test_a_failing_start_reaches_supervision() -> None:
    """Pykka calls no hook for it; here the watcher is told and a later message starts it again."""
    clock = ManualClock()
    failures: list[Failed] = []
    told = threading.Event()
    broken = True

    class Starting(Scripted):
        def start(self) -> None:
            if broken:
                raise OSError("no device")

    def watch(failure: Failed) -> None:
        failures.append(failure)
        told.set()

    ref: Script = spawn(Starting, name="a", clock=clock, watcher=watch, policy=RestartPolicy(first_wait_ms=50))
    assert told.wait(WAIT_S)
    assert failures[0].restart_after_ms == 50
    broken = False
    clock.advance_ms(50)
    assert send(ref, lambda: "up").wait().value == "up"
    assert ended(ref)


def test_a_crash_loop_is_given_up_and_every_later_message_answered() -> None:
    """After the last failure the actor has ended: ActorStoppedError, at once."""
    clock = ManualClock()
    failures: list[Failed] = []
    policy = RestartPolicy(max_failures=1, first_wait_ms=0)
    ref: Script = spawn(Scripted, name="a", clock=clock, watcher=failures.append, policy=policy)
    send(ref, fail(ValueError())).wait()
    send(ref, fail(ValueError())).wait()
    assert ref.join(WAIT_S)
    assert [failure.restart_after_ms for failure in failures] == [0, None]
    assert isinstance(send(ref, lambda: 1).wait().error, ActorStoppedError)
    assert not ref.alive


def test_a_full_inbox_refuses_ours_and_can_still_be_stopped() -> None:
    """A stop into a full bounded queue is where Pykka would wait for ever."""
    ref: Script = spawn(Scripted, name="a", inbox_messages=2)
    gate = Gate()
    first = send(ref, gate)
    assert gate.entered.wait(WAIT_S)
    waiting = [send(ref, lambda: "waited") for _ in range(2)]
    with pytest.raises(InboxFullError):
        send(ref, lambda: "too many")
    ref.stop()
    gate.opened.set()
    assert ref.join(WAIT_S)
    assert [answer.wait().value for answer in (first, *waiting)] == ["through", "waited", "waited"]


def test_messages_behind_a_stop_are_answered_as_stopped() -> None:
    """What was sent before the stop is handled, what came after is refused: nothing stays silent."""
    ref: Script = spawn(Scripted, name="a")
    gate = Gate()
    send(ref, gate)
    assert gate.entered.wait(WAIT_S)
    before = send(ref, lambda: "before")
    ref.stop()
    after = send(ref, lambda: "after")
    gate.opened.set()
    assert before.wait().value == "before"
    assert isinstance(after.wait().error, ActorStoppedError)


def test_an_ask_that_races_the_end_is_answered() -> None:
    """Staged at the worst moment: the ask has seen a living actor, which then ends before the message is put."""
    ref: Script = spawn(Scripted, name="a")
    put = ref._ref.actor_inbox.put

    def put_late(envelope: object) -> None:
        ref._ref.actor_inbox.put = put  # type: ignore[method-assign]
        assert ended(ref)
        put(envelope)  # type: ignore[arg-type]

    ref._ref.actor_inbox.put = put_late  # type: ignore[method-assign]
    assert isinstance(send(ref, lambda: 1).wait().error, ActorStoppedError)


def test_every_ask_gets_exactly_one_reply_while_the_actor_stops() -> None:
    """Many threads ask while one stops it: each ask is answered once, by the behaviour or as stopped."""
    ref: Script = spawn(Scripted, name="a")
    answers = [Answer() for _ in range(400)]
    together = threading.Barrier(5)

    def asking(mine: list[Answer]) -> None:
        together.wait(WAIT_S)
        for answer in mine:
            ref.ask(lambda: "done", answer)

    threads = [threading.Thread(target=asking, args=(answers[index::4],)) for index in range(4)]
    for thread in threads:
        thread.start()
    together.wait(WAIT_S)
    ref.stop()
    for thread in threads:
        thread.join(WAIT_S)
    for answer in answers:
        answer.wait()
        assert answer.count == 1
        assert answer.value == "done" or isinstance(answer.error, ActorStoppedError)


def test_a_stop_that_fails_ends_the_actor_all_the_same() -> None:
    """The behaviour's own clean-up cannot keep the thread."""

    class Clinging(Scripted):
        def stop(self) -> None:
            raise RuntimeError("will not")

    behavior: Behavior[Callable[[], object], object] = Clinging()
    assert ended(spawn(lambda: behavior, name="a"))
