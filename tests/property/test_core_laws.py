"""The laws of the core, over random histories of a small samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar, assert_never

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.decide import Decision, decide
from coordinator.core.digest import state_digest
from coordinator.core.evolve import begin_record, evolve_all
from coordinator.core.invariants import violations
from coordinator.core.model import Failure, Job, Needs, Priority, ProbeSpec, Rejected, State
from coordinator.core.plan import follow_up, plan
from coordinator.replay import Replayed, Replayer
from coordinator.wire.records import GENESIS_HASH, NewRecord, record_hash
from coordinator.wire.snapshot import StateDecoder, encode_state
from hivefold import limits
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, JobId, NodeId
from hivefold.log.port import Stored
from tests import samples, strategies

pytestmark = pytest.mark.timeout(600)  # shrinking a failure takes a while
ROUNDS = 2000
"""Bound of every loop that must come to rest."""
FAILURES = [
    Failure(Reason.RUNTIME_FAILED, "it broke", retryable=True, metadata=(("row", "3"),)),
    Failure(Reason.NAN_FOUND, "row 3 holds NaN", retryable=False),
    Failure(Reason.RETURNED, "leaving", retryable=True),
]
nodes = st.sampled_from([NodeId(f"n{i}") for i in range(1, 5)])
jobs = st.sampled_from([JobId(f"j{i}") for i in range(1, 7)])
some_needs = st.sampled_from(
    [Needs(), Needs(), Needs((("zone", "a"),)), Needs(gpu_count=1), Needs(memory_bytes=1 << 40)]
)
kinds = st.builds(ProbeSpec, st.integers(0, 40), st.sampled_from([0, 1000])) | st.integers(0, 5000).map(samples.infer)


class Fleet(RuleBasedStateMachine):
    """A coordinator's core with a log, and a world that answers, fails, falls silent and repeats itself."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.now_us = samples.START_US
        self.log: list[Stored] = []
        self.head_hash = GENESIS_HASH
        self.boots: Counter[str] = Counter()
        self.sent: list[tuple[NodeId, JobId, int, int]] = []
        self.submits: dict[str, cmd.SubmitJob] = {}
        self.attempts: dict[tuple[JobId, int], int] = {}
        self.succeeded: set[tuple[JobId, int]] = set()
        self.ended: set[JobId] = set()
        self.seen: dict[JobId, Job] = {}

    def do(self, body: cmd.CommandBody) -> Decision | Rejected:
        """Decides and records a command, and checks what must hold of every decision."""
        before = self.state
        command = cmd.Command(self.now_us, body)
        decided = decide(before, command)

        assert decide(before, command) == decided, "the same command upon the same state decides the same"
        match decided:
            case Rejected():
                assert decided.message
                assert decided.reason is not Reason.UNSPECIFIED
            case Decision(()):
                assert decided.state == before, "nothing recorded, nothing changed"
            case Decision(events, state):
                assert state == evolve_all(before, before.sequence + 1, self.now_us, events)
                assert violations(state) == []
                self.state = state
                self.seen.update(state.jobs)
                self.record(command, events)
                for event in events:
                    self.follow(event)
                work, _ = follow_up(events, state)
                self.sent += [
                    (w.node_id, w.job_id, *pair) for w in work for pair in zip(w.tasks, w.attempts, strict=True)
                ]
            case _:
                assert_never(decided)
        return decided

    def record(self, command: cmd.Command, events: tuple[ev.Event, ...]) -> None:
        """Stores the decision as the writer would."""
        sequence = self.state.sequence
        entry = NewRecord(sequence, self.state.term, bytes(16), command, events, self.head_hash).entry()
        self.head_hash = record_hash(sequence, entry.subject, entry.data)
        self.log.append(Stored(sequence, entry.subject, entry.data))

    def follow(self, event: ev.Event) -> None:
        """Checks one event against all before: attempts count up, tasks end once, jobs end once."""
        match event:
            case ev.TasksAssigned():
                for task, number in zip(event.tasks, event.attempts, strict=True):
                    assert (event.job_id, task) not in self.succeeded
                    assert number == self.attempts.get((event.job_id, task), 0) + 1
                    self.attempts[event.job_id, task] = number
                assert event.job_id not in self.ended
            case ev.TasksSucceeded():
                for task, number in zip(event.tasks, event.attempts, strict=True):
                    assert (event.job_id, task) not in self.succeeded, "a task is counted once"
                    assert number == self.attempts[event.job_id, task], "only the current attempt counts"
                    self.succeeded.add((event.job_id, task))
                assert event.job_id not in self.ended
            case ev.JobSucceeded(job_id) | ev.JobFailed(job_id, _) | ev.JobCancelled(job_id, _):
                assert job_id not in self.ended, "a job ends once"
                self.ended.add(job_id)
            case _:
                pass

    @initialize()
    def begin(self) -> None:
        self.do(cmd.StartTerm("c1", "0.1.0"))
        self.do(cmd.RegisterModel(samples.model()))

    @rule(
        name=nodes,
        reboot=st.booleans(),
        slots=st.integers(0, 4),
        zone=st.sampled_from(["", "a"]),
        gpus=st.integers(0, 1),
    )
    def node_joins(self, name: NodeId, reboot: bool, slots: int, zone: str, gpus: int) -> None:
        self.boots[name] += reboot or not self.boots[name]
        labels = (("zone", zone),) if zone else ()
        spec = samples.node_spec(name, boot=f"b{self.boots[name]}", slots=slots, labels=labels, gpus=gpus)
        self.do(cmd.JoinNode(spec))

    @rule(
        job=jobs, kind=kinds, priority=st.sampled_from(Priority), needs=some_needs, timeout=st.sampled_from([0, 0, 30])
    )
    def client_submits(self, job: JobId, kind: ProbeSpec, priority: Priority, needs: Needs, timeout: int) -> None:
        job = self.drawn(job)
        body = samples.submit(job, kind, priority=priority, needs=needs, timeout_us=timeout * 1_000_000)
        known = body.request_id in self.state.requests
        decided = self.do(body)
        if not known and isinstance(decided, Decision):
            self.submits[body.request_id] = body

    @precondition(lambda self: self.submits)
    @rule(data=st.data())
    def client_repeats_a_submit(self, data: st.DataObject) -> None:
        """A repeated request records nothing, whatever has become of the job, even under a new job id."""
        body = self.submits[data.draw(st.sampled_from(sorted(self.submits)))]
        if body.request_id not in self.state.requests and body.request_id not in self.state.past_requests:
            assert self.state.past_total > limits.REQUESTS_KEPT, "nothing is forgotten early"
            return
        again = cmd.SubmitJob(JobId("another"), body.request_id, body.spec)
        other = cmd.SubmitJob(JobId("another"), body.request_id, replace(body.spec, source="another"))

        assert self.do(again) == Decision((), self.state)
        assert isinstance(self.do(other), Rejected)

    @rule(job=jobs)
    def two_submits_get_one_id(self, job: JobId) -> None:
        """An id drawn twice never replaces a job."""
        job = self.drawn(job)
        body = samples.submit(job, ProbeSpec(1), request=f"other-{job}")
        known = self.state.jobs.get(job)
        self.do(body)

        assert known is None or self.state.jobs[job].request_id == known.request_id

    def drawn(self, job: JobId) -> JobId:
        """An id that no job has had that is gone: ids are drawn from so many that none comes twice."""
        there = begin_record(self.state, self.state.sequence + 1, self.now_us).jobs  # what goes, goes before deciding
        return job if job in there or job not in self.seen else JobId(f"{job}-{len(self.seen)}")

    @rule(job=jobs)
    def client_cancels(self, job: JobId) -> None:
        self.do(cmd.CancelJob(job, "not needed"))

    @rule()
    def tasks_are_placed(self) -> None:
        self.do(cmd.PlaceTasks())

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), failure=st.sampled_from([None, None, *FAILURES]), keep=st.booleans())
    def node_answers(self, data: st.DataObject, failure: Failure | None, keep: bool) -> None:
        """A node answers some of what it was ever sent: in time, too late, or for the second time."""
        node_id, job_id, *_ = data.draw(st.sampled_from(self.sent))
        own = [sent for sent in self.sent if sent[:2] == (node_id, job_id)]
        chosen = data.draw(st.lists(st.sampled_from(own), min_size=1, max_size=12))
        tasks = [(task, number) for _, _, task, number in chosen]
        self.do(samples.answers(node_id, self.seen[job_id], tasks, failure=failure))
        if not keep:
            self.sent = [sent for sent in self.sent if sent not in chosen]

    @precondition(lambda self: any(self.state.jobs[job_id].running for job_id in self.state.open_jobs))
    @rule(data=st.data(), failure=st.sampled_from(FAILURES))
    def a_running_task_fails_until_it_is_given_up(self, data: st.DataObject, failure: Failure) -> None:
        """Tried again and again, a task that always fails ends its job; that it is returned ends nothing."""
        job_id = data.draw(st.sampled_from(sorted(j for j in self.state.open_jobs if self.state.jobs[j].running)))
        task = data.draw(st.sampled_from(sorted(self.state.jobs[job_id].running)))
        for _ in range(limits.DEFAULT_MAX_ATTEMPTS):
            attempt = self.state.jobs[job_id].running.get(task)
            if attempt is not None:
                job = self.state.jobs[job_id]
                self.do(samples.answers(attempt.node_id, job, [(task, attempt.number)], failure=failure))
                self.now_us += limits.RETRY_BACKOFF_MAX_MS * 1000
                self.do(cmd.PlaceTasks())

    @rule(name=nodes, silent_ms=st.sampled_from([0, limits.SUSPECT_AFTER_MS, limits.LOST_AFTER_MS]))
    def node_falls_silent(self, name: NodeId, silent_ms: int) -> None:
        boot = BootId(f"b{self.boots[name]}")
        self.do(cmd.ReportSilence(name, boot, silent_ms, limits.SUSPECT_AFTER_MS, limits.LOST_AFTER_MS))

    @rule(name=nodes, loaded=st.booleans(), memory=st.integers(0, 8), cpu=st.integers(0, 100))
    def node_is_observed(self, name: NodeId, loaded: bool, memory: int, cpu: int) -> None:
        digests: tuple[Digest, ...] = (samples.DIGEST,) if loaded else ()
        self.do(cmd.ObserveNode(name, BootId(f"b{self.boots[name]}"), digests, memory * samples.GIB, cpu))

    @rule(name=nodes, gone=st.booleans())
    def node_leaves(self, name: NodeId, gone: bool) -> None:
        self.do(cmd.LeaveNode(name, BootId(f"b{self.boots[name]}"), gone))

    @rule(name=nodes, drain=st.booleans())
    def operator_drains(self, name: NodeId, drain: bool) -> None:
        self.do(cmd.DrainNode(name, "repair") if drain else cmd.UndrainNode(name))

    @rule(seconds=st.sampled_from([0, 1, 20]))
    def time_passes(self, seconds: int) -> None:
        self.now_us += seconds * 1_000_000
        self.do(cmd.ExpireJobs())

    @rule()
    def another_term_starts(self) -> None:
        self.do(cmd.StartTerm("c2", "0.1.0"))

    @rule(body=strategies.command_bodies)
    def nonsense_arrives(self, body: cmd.CommandBody) -> None:
        """Any command that the contract can carry is decided or refused, never a crash."""
        if not isinstance(body, cmd.JoinNode):
            self.do(body)
        if isinstance(body, cmd.EndTerm):
            self.do(cmd.StartTerm("c3", "0.1.0"))

    @invariant()
    def owed_work_is_what_runs(self) -> None:
        """A restart would send exactly the attempts that are running."""
        owed = Counter(
            (work.job_id, task, number)
            for work in plan(self.state, self.now_us).work
            for task, number in zip(work.tasks, work.attempts, strict=True)
        )
        running = Counter(
            (job_id, task, attempt.number)
            for job_id in self.state.open_jobs
            for task, attempt in self.state.jobs[job_id].running.items()
        )

        assert owed == running
        assert all(count == 1 for count in owed.values()), "one live attempt for each task"

    @invariant()
    def what_has_ended_is_bounded(self) -> None:
        """At the latest with the next record the oldest go; only cancels that are owed may hold them, up to twice."""
        settled = begin_record(self.state, self.state.sequence + 1, self.now_us)
        gone = [node for node in settled.nodes.values() if node.state.gone]

        assert len(settled.ended) <= 2 * limits.RECENT_JOBS
        assert settled.ended_tasks <= 2 * limits.RECENT_TASKS
        assert len(settled.past_requests) <= limits.REQUESTS_KEPT
        assert len(gone) <= limits.GONE_NODES
        assert len(settled.rates) <= limits.RATES_KEPT

    def teardown(self) -> None:
        self.replay_gives_the_same_state()
        self.placement_comes_to_rest()
        self.a_healed_fleet_finishes_every_job()
        self.replay_gives_the_same_state()

    def replay_gives_the_same_state(self) -> None:
        """Replayed at once or from a snapshot anywhere, the stored bytes give the live state; all is decided again."""
        replayer, before = Replayer(), State()
        for stored in self.log:
            record, after = replayer.step(stored)
            again = decide(before, record.command)
            assert isinstance(again, Decision)
            assert again.events == record.events
            before = after
        replayed = replayer.result()
        for at in {len(self.log) // 3, len(self.log) // 2, len(self.log) - 1}:
            part = Replayer()
            part.feed(self.log[:at])
            resumed = Replayer(through_snapshot(part.result()))
            resumed.feed(self.log[at:])
            assert resumed.result() == replayed
        assert replayed.state == self.state
        assert replayed.head_hash == self.head_hash
        assert replayed.digest() == state_digest(self.state)

    def placement_comes_to_rest(self) -> None:
        """Placing again and again at one moment soon records nothing more."""
        for _ in range(ROUNDS):
            decided = self.do(cmd.PlaceTasks())
            assert isinstance(decided, Decision)
            if not decided.events:
                return
        raise AssertionError("placement goes on for ever")

    def a_healed_fleet_finishes_every_job(self) -> None:
        """Once nodes that can do everything are there and answer, doing what the plan says ends every job."""
        for name in ("healer-1", "healer-2"):
            self.do(
                cmd.JoinNode(
                    samples.node_spec(
                        name, slots=4, labels=(("zone", "a"),), gpus=1024, memory_bytes=limits.BLOB_BYTES << 8
                    )
                )
            )
        for name, node in self.state.nodes.items():
            if name not in {"healer-1", "healer-2"} and not node.state.gone:
                self.do(cmd.LeaveNode(name, node.spec.boot_id, gone=True))
        for _ in range(ROUNDS):
            if not self.state.open_jobs:
                break
            self.now_us += 1_000_000
            todo = plan(self.state, self.now_us)
            assert todo.work or todo.commands or self.retries_wait(), "open jobs, and nothing is owed"
            for body in todo.commands:
                self.do(body)
            for work in plan(self.state, self.now_us).work:
                tasks = list(zip(work.tasks, work.attempts, strict=True))
                if not self.state.jobs[work.job_id].state.final:
                    self.do(samples.answers(work.node_id, self.state.jobs[work.job_id], tasks))

        assert [job for job in self.state.open_jobs if not self.hopeless(job)] == []

    def retries_wait(self) -> bool:
        return any(self.state.jobs[job_id].waiting for job_id in self.state.open_jobs)

    def hopeless(self, job_id: JobId) -> bool:
        """Whether a job carries needs that not even the healers meet: made of nonsense."""
        return self.state.jobs[job_id].spec.needs not in {Needs(), Needs((("zone", "a"),)), Needs(gpu_count=1)}


def through_snapshot(folded: Replayed) -> Replayed:
    """What a start reads back of a snapshot, cut into pieces anywhere."""
    data, decoder = b"".join(encode_state(folded.state)), StateDecoder()
    for at in range(0, len(data), 1000):
        decoder.feed(data[at : at + 1000])
    return replace(folded, state=decoder.state())


class ForgetfulFleet(Fleet):
    """The same laws where next to nothing of what has ended is kept."""

    BOUNDS: ClassVar = {"RECENT_JOBS": 1, "RECENT_TASKS": 25, "REQUESTS_KEPT": 2, "GONE_NODES": 1, "RATES_KEPT": 1}

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, bound in self.BOUNDS.items():
            self.patch.setattr(limits, name, bound)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.patch.undo()


Fleet.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
ForgetfulFleet.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_core_laws = Fleet.TestCase
test_core_laws_with_little_memory = ForgetfulFleet.TestCase
