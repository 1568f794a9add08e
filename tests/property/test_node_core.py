"""Laws of the life of attempts on a node, under any order of deliveries, repeats, cancels, fences and leaving."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hivefold.errors import Reason
from node.core import Abort, Acknowledge, Answer, Attempt, Batch, Effect, GiveBack, NodeCore, Start

BOOT = "boot-1"
PLACES = 2
Key = tuple[str, int, int]
"""Job, task, attempt number."""


@dataclass
class Ledger:
    """What an honest node may do, written down independently of the core."""

    batches: dict[int, Batch] = field(default_factory=dict)
    running: dict[int, Start] = field(default_factory=dict)
    unstored: list[tuple[int, tuple[Attempt, ...]]] = field(default_factory=list)
    taken: list[Key] = field(default_factory=list)
    """Attempts that were run or answered."""
    ended: dict[int, str] = field(default_factory=dict)


class NodeMachine(RuleBasedStateMachine):
    """Drives the core as an agent would, at random."""

    def __init__(self) -> None:
        super().__init__()
        self.core = NodeCore(BOOT, PLACES)
        self.ledger = Ledger()
        self.now_us = 1
        self.deliveries = 0

    def apply(self, effects: list[Effect]) -> None:
        ledger = self.ledger
        for effect in effects:
            match effect:
                case Start():
                    assert not self.core.fenced
                    assert not self.core.leaving
                    assert len(ledger.running) < PLACES
                    assert effect.attempts
                    self.take(effect.delivery, effect.attempts)
                    ledger.running[effect.run] = effect
                case Answer():
                    assert effect.attempts
                    self.take(effect.delivery, effect.attempts)
                    ledger.unstored.append((effect.delivery, effect.attempts))
                case Abort():
                    assert effect.run in ledger.running
                case Acknowledge():
                    self.end(effect.delivery, "acknowledged")
                case GiveBack():
                    self.end(effect.delivery, "given back")

    def take(self, delivery: int, attempts: tuple[Attempt, ...]) -> None:
        job_id = self.ledger.batches[delivery].job_id
        for attempt in attempts:
            key = (job_id, attempt.task, attempt.number)
            assert key not in self.ledger.taken, "no attempt is run or answered twice"
            assert attempt in self.ledger.batches[delivery].attempts
            self.ledger.taken.append(key)

    def end(self, delivery: int, how: str) -> None:
        assert delivery not in self.ledger.ended, "a delivery ends once"
        self.ledger.ended[delivery] = how
        open_here = [start for start in self.ledger.running.values() if start.delivery == delivery]
        assert not open_here, "a delivery ends after its runs"
        assert delivery not in [held for held, _ in self.ledger.unstored], "and after its outcomes are stored"

    @rule(
        job=st.sampled_from(["a", "b"]),
        attempts=st.lists(
            st.builds(Attempt, st.integers(0, 4), st.integers(1, 3)), max_size=4, unique_by=lambda a: a[0]
        ),
        term=st.integers(1, 3),
        boot=st.sampled_from([BOOT, BOOT, BOOT, "boot-0"]),
        priority=st.integers(0, 2),
        group=st.integers(1, 3),
        deadline_in=st.sampled_from([0, 0, 2, 50]),
    )
    def deliver(
        self, job: str, attempts: list[Attempt], term: int, boot: str, priority: int, group: int, deadline_in: int
    ) -> None:
        self.deliveries += 1
        batch = Batch(
            delivery=self.deliveries,
            term=term,
            boot_id=boot,
            job_id=job,
            attempts=tuple(attempts),
            priority=priority,
            deadline_us=self.now_us + deadline_in if deadline_in else 0,
            group=group,
        )
        self.ledger.batches[batch.delivery] = batch
        before = len(self.ledger.taken)
        old = term < self.core.term or boot != BOOT
        self.apply(self.core.accept(batch, self.now_us))
        if old:
            assert self.ledger.ended[batch.delivery] == "acknowledged"
            assert len(self.ledger.taken) == before, "old terms and other boots run nothing"

    @precondition(lambda self: self.ledger.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.ledger.running)))
        start = self.ledger.running.pop(run)
        self.ledger.unstored.append((start.delivery, start.attempts))
        self.apply(self.core.finished(run, self.now_us))

    @precondition(lambda self: self.ledger.unstored)
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.ledger.unstored) - 1))
        delivery, attempts = self.ledger.unstored.pop(index)
        self.apply(self.core.stored(delivery, attempts))

    @rule(job=st.sampled_from(["a", "b"]), term=st.integers(1, 3))
    def cancel(self, job: str, term: int) -> None:
        old = term < self.core.term
        effects = self.core.cancel(job, term, self.now_us)
        assert not (old and effects), "a deposed coordinator cancels nothing"
        for effect in effects:
            if isinstance(effect, Abort):
                start = self.ledger.running[effect.run]
                assert self.ledger.batches[start.delivery].job_id == job
        self.apply(effects)

    @rule()
    def fence(self) -> None:
        effects = self.core.fence()
        assert not any(isinstance(effect, Start | Answer) for effect in effects)
        self.apply(effects)

    @rule()
    def unfence(self) -> None:
        self.core.unfence()

    @rule(by=st.integers(1, 10))
    def time_passes(self, by: int) -> None:
        self.now_us += by

    @rule()
    def leave(self) -> None:
        effects = self.core.leave()
        assert all(isinstance(effect, Answer) and effect.reason is Reason.RETURNED for effect in effects)
        self.apply(effects)

    @invariant()
    def counts_agree(self) -> None:
        running = sum(len(start.attempts) for start in self.ledger.running.values())
        assert self.core.running == running
        assert self.core.outstanding >= running

    def teardown(self) -> None:
        """Whatever happened: once all runs finish and all outcomes are stored, every delivery has ended."""
        self.core.unfence()
        for _ in range(1000):
            if self.ledger.running:
                run = min(self.ledger.running)
                start = self.ledger.running.pop(run)
                self.ledger.unstored.append((start.delivery, start.attempts))
                self.apply(self.core.finished(run, self.now_us))
            elif self.ledger.unstored:
                self.apply(self.core.stored(*self.ledger.unstored.pop(0)))
            else:
                # Nothing is under way: what waits can only wait for a start, which any report brings.
                self.apply(self.core.finished(0, self.now_us))
                if not self.ledger.running and not self.ledger.unstored:
                    break
        assert self.core.idle
        assert set(self.ledger.ended) == set(self.ledger.batches)


TestNodeMachine = NodeMachine.TestCase
TestNodeMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_attempts_start_in_order_of_priority_then_of_arrival(priorities: list[int]) -> None:
    """With one place taken, what waits leaves sorted by priority; equals keep their order."""
    core = NodeCore(BOOT, 1)
    (first,) = core.accept(Batch(0, 1, BOOT, "busy", (Attempt(0, 1),)), 1)
    assert isinstance(first, Start)
    for index, priority in enumerate(priorities):
        assert core.accept(Batch(index + 1, 1, BOOT, f"job-{index}", (Attempt(0, 1),), priority), 1) == []
    order: list[int] = []
    run = first.run
    while starts := [effect for effect in core.finished(run, 1) if isinstance(effect, Start)]:
        (start,) = starts
        order.append(start.delivery)
        run = start.run
    assert order == sorted(range(1, len(priorities) + 1), key=lambda delivery: priorities[delivery - 1])
