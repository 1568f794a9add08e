"""What must hold, checked apart from the world that makes the faults: on stored bytes, answers and acknowledgements.

The checker folds the log by itself, record by record, in the moment in which the store takes it; everything
that a client is told, a node does or a process acknowledges is held against that fold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from coordinator.batch import Accepted
from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.decide import decide
from coordinator.core.draft import Decision
from coordinator.core.evolve import begin_record, evolve
from coordinator.core.invariants import violations
from coordinator.core.model import Job, JobState, Rejected, State
from coordinator.followers import Committed
from coordinator.replay import Replayer
from coordinator.wire.records import LogRecord
from hivefold.bus.port import ResultMessage
from hivefold.errors import HivefoldError, Reason
from hivefold.ids import JobId, RequestId
from hivefold.log.port import Stored
from hivefold.v1 import work_pb2
from node.core import Attempt, Batch
from tests.simulation.proofs import Proofs
from tests.simulation.registry import Book, Change, calls_by_name

TaskKey = tuple[str, int]


class ViolationError(AssertionError):
    """A promise was broken."""


def job_of(state: State, request_id: str) -> str | None:
    """The job that a request became, however long ago."""
    known = state.requests.get(RequestId(request_id))
    past = state.past_requests.get(RequestId(request_id))
    return known or (past.job_id if past is not None else None)


def _as_ended(before: State, record: LogRecord, job_id: JobId) -> Job:
    """A job right after its last event."""
    state = begin_record(before, record.sequence, record.time_us)
    for event in record.events:
        state = evolve(state, event)
        if isinstance(event, ev.JobSucceeded | ev.JobFailed | ev.JobCancelled) and event.job_id == job_id:
            break
    return state.jobs[job_id]


class Checker:
    """Holds one run against the promises. Raises ViolationError at the first that is broken."""

    def __init__(self, trace: Callable[[str], None]) -> None:
        self._trace = trace
        self.broken = ""
        """The promise that was broken: whoever catches ViolationError inside the fleet does not hide it."""
        self._replayer = Replayer()
        self.states = [State()]
        """The state after each record, folded from the stored bytes."""
        self.ended: dict[str, Job] = {}
        """Each job as it was when it ended: states let go of those that ended long ago."""
        self.proofs = Proofs(self._hold, self.states)
        self.registry = Book(self._hold)
        self._followed: dict[str, int] = {}
        self._causes: list[cmd.CommandBody] = [cmd.PlaceTasks()]
        self._leaders: dict[int, str] = {}
        self._assigned: dict[TaskKey, tuple[int, str]] = {}
        self._ever_assigned: set[tuple[str, int, int, str]] = set()
        self._succeeded: set[TaskKey] = set()
        self.job_facts: list[tuple[int, str]] = []
        """Every record that concerns a job, and the job."""
        self._outcome_of: dict[str, str] = {}
        self._specs: dict[str, object] = {}
        self._cancelled: set[str] = set()
        self._job_of: dict[str, str] = {}
        self._results: dict[int, str] = {}
        self._told: set[str] = set()
        self._subjects: set[str] = set()
        self._unacknowledged: dict[int, str] = {}
        self._terms: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._started: defaultdict[tuple[str, str], set[tuple[str, int, int]]] = defaultdict(set)

    @property
    def state(self) -> State:
        """The state after the last stored record."""
        return self.states[-1]

    @property
    def acknowledged_jobs(self) -> dict[str, str]:
        """The job that each acknowledged request got."""
        return dict(self._outcome_of)

    # -- the log -----------------------------------------------------------------

    def stored(self, records: Sequence[Stored]) -> None:
        """The log's store took these records."""
        for stored in records:
            before = self.state
            try:
                record, state = self._replayer.step(stored)
            except HivefoldError as error:
                self.fail(f"the log does not replay: {error}")
                raise
            command = record.command
            self.states.append(state)
            self._causes.append(command.body)
            names = " ".join(type(event).__name__ for event in record.events)
            self._trace(f"#{stored.sequence} term {record.term} {type(command.body).__name__}: {names}")
            self.proofs.recorded(stored, record)
            self._check_record(record, before, state)

    def _check_record(self, record: LogRecord, before: State, state: State) -> None:
        broken = violations(state, before)
        self._hold(not broken, f"record {record.sequence} breaks an invariant: {broken[:1]}")
        self._hold(state.time_us >= before.time_us, f"recorded time went back at {record.sequence}")
        again = decide(before, record.command)
        same = isinstance(again, Decision) and tuple(again.events) == record.events
        self._hold(same, f"record {record.sequence} is not what its cause decides")
        for event in record.events:
            self._check_event(event)
            self.registry.recorded(event, state)
            if isinstance(event, ev.JobSucceeded | ev.JobFailed | ev.JobCancelled):
                self._hold(event.job_id not in self.ended, f"{event.job_id} ended twice")
                self.ended[event.job_id] = _as_ended(before, record, event.job_id)
            if isinstance(event, ev.JobEvent):
                self.job_facts.append((record.sequence, event.job_id))

    def _check_event(self, event: ev.Event) -> None:
        match event:
            case ev.JobSubmitted(job_id=job_id, request_id=request_id):
                first = self._job_of.setdefault(request_id, job_id)
                self._hold(first == job_id, f"request {request_id} became two jobs: {first} and {job_id}")
            case ev.TasksAssigned():
                for task, number in zip(event.tasks, event.attempts, strict=True):
                    last = self._assigned.get((event.job_id, task), (0, ""))
                    self._hold(number == last[0] + 1, f"{event.job_id}/{task}: attempt {number} after {last}")
                    self._assigned[event.job_id, task] = (number, event.node_id)
                    self._ever_assigned.add((event.job_id, task, number, event.node_id))
            case ev.TasksSucceeded():
                for task, number in zip(event.tasks, event.attempts, strict=True):
                    key = (event.job_id, task)
                    last = self._assigned.get(key, (0, ""))
                    self._hold(last == (number, event.node_id), f"{key}: attempt {number} succeeded, current is {last}")
                    self._hold(key not in self._succeeded, f"{key} succeeded twice")
                    self._succeeded.add(key)
                for task, number, sequence in zip(event.tasks, event.attempts, event.result_sequences, strict=True):
                    own = f"results.{event.node_id}.{event.job_id}.{task}.{number}"
                    stored = self._results.get(sequence) if sequence else next(iter({own} & self._told), None)
                    self._hold(stored == own, f"{own} is recorded with the outcome of {stored}")
            case _:
                pass

    def log_ends_at(self, sequence: int) -> None:
        """The log's store has lost what came later."""
        kept = self.states[sequence]
        for request_id, job_id in self._outcome_of.items():
            self._hold(
                job_of(kept, request_id) == job_id, f"acknowledged request {request_id} is lost with the log's tail"
            )
        self._hold(
            sequence == len(self.states) - 1, f"records after {sequence} are lost, and some may have acted upon them"
        )

    # -- the coordinator -----------------------------------------------------------

    def committed(self, incarnation: str, commits: Sequence[Committed]) -> None:
        """A coordinator holds these for durable."""
        for commit in commits:
            self._hold(commit.sequence < len(self.states), f"#{commit.sequence} is acted upon and not stored")
            self._hold(commit.state == self.states[commit.sequence], f"#{commit.sequence}: live state is not the fold")
            leader = self._leaders.setdefault(commit.term, incarnation)
            self._hold(leader == incarnation, f"coordinators {leader} and {incarnation} both lead term {commit.term}")

    def followed(self, name: str, state: State) -> None:
        """A standby has followed the log to here."""
        if self._followed.get(name) != state.sequence:
            self._followed[name] = state.sequence
            alike = state.sequence < len(self.states) and state == self.states[state.sequence]
            self._hold(alike, f"{name} follows with another state at #{state.sequence}")

    def answered(self, body: cmd.CommandBody, answer: Accepted | Rejected, *, again: bool) -> None:
        """A client got this answer; `again` is as for Book.answered."""
        if isinstance(body, Change):
            self.registry.answered(body, answer, again=again)
        if isinstance(answer, Rejected):
            self._check_refusal(body, answer)
            return
        if answer.sequence:
            durable = answer.sequence < len(self._causes) and self._causes[answer.sequence] == body
            self._hold(durable, f"acknowledged and not stored: {type(body).__name__} as #{answer.sequence}")
        match body:
            case cmd.SubmitJob(request_id=request_id):
                job_id = job_of(self.state, request_id)
                self._hold(job_id is not None, f"request {request_id} was acknowledged and is not stored")
                told = job_of(answer.state, request_id) or ""
                first = self._outcome_of.setdefault(request_id, told)
                self._hold(first == told == job_id, f"request {request_id} became {first}, then {told}")
                self._specs[request_id] = body.spec
            case cmd.CancelJob(job_id=cancelled):
                self._cancelled.add(cancelled)
            case _:
                pass

    def _check_refusal(self, body: cmd.CommandBody, answer: Rejected) -> None:
        known = set(self._outcome_of.values())
        if isinstance(body, cmd.CancelJob) and answer.reason is Reason.JOB_NOT_FOUND:
            lost = body.job_id in known and body.job_id not in self.ended
            self._hold(not lost, f"{body.job_id} was acknowledged and is unknown")
        if isinstance(body, cmd.SubmitJob):
            foreign = answer.reason is Reason.REQUEST_ID_REUSED and self._specs.get(body.request_id) != body.spec
            nameless = answer.reason is Reason.MODEL_NOT_FOUND and body.request_id not in self._outcome_of
            self._hold(
                foreign or (nameless and calls_by_name(body.spec)),
                f"request {body.request_id} was refused: {answer.message}",
            )

    def result_stored(self, result: ResultMessage) -> None:
        """The results stream took an outcome."""
        self._subjects.add(result.subject)
        self._results[result.sequence] = self._unacknowledged[result.sequence] = result.subject

    def outcome_told(self, subject: str) -> None:
        """A node told an outcome as a signal, too."""
        self._told.add(subject)

    def results_acknowledged(self, up_to: int) -> None:
        """The coordinator lets the results stream forget up to here."""
        for sequence in [known for known in self._unacknowledged if known <= up_to]:
            _, node_id, job_id, task, number = self._unacknowledged.pop(sequence).split(".")
            job = self.state.jobs.get(job_id)  # type: ignore[call-overload]  # a JobId is a str
            attempt = job.running.get(int(task)) if job is not None else None
            open_still = attempt is not None and (attempt.number, attempt.node_id) == (int(number), node_id)
            self._hold(not open_still, f"outcome of {job_id}/{task}/{number} acknowledged before it is recorded")

    # -- nodes ---------------------------------------------------------------------

    def started(self, node_id: str, batch: Batch, attempts: Sequence[Attempt]) -> None:
        """A node runs these attempts."""
        mine = self._started[node_id, batch.boot_id]
        for attempt in attempts:
            key = (batch.job_id, attempt.task, attempt.number)
            self._hold((*key, node_id) in self._ever_assigned, f"{node_id} runs {key}, which no record assigns to it")
            self._hold(key not in mine, f"{node_id} runs {key} twice in one boot")
            mine.add(key)

    def heard_term(self, node_id: str, boot_id: str, term: int) -> None:
        """A node heard of a term."""
        self._terms[node_id, boot_id] = max(self._terms[node_id, boot_id], term)

    def accepted(self, node_id: str, batch: Batch) -> None:
        """A node takes work."""
        highest = self._terms[node_id, batch.boot_id]
        self._hold(batch.term >= highest, f"{node_id} takes work of term {batch.term} after it heard of {highest}")

    def work_acknowledged(self, node_id: str, boot_id: str, work: work_pb2.WorkBatch) -> None:
        """A node lets the work stream forget a message.

        One of an old term it refuses: the new leader sends anew. One of a term that was never proven to it, too, even
        where it repeats an attempt that runs: that one has come in a message of its own. And an attempt whose outcome
        was recorded by its signal may have a successor before the stream has that outcome: its work, when it comes
        only then, is of no use to anybody.
        """
        if work.term != self._terms[node_id, boot_id]:
            return
        mine = self._started[node_id, boot_id]
        for item in work.items:
            ran = (work.job_id, item.task, item.attempt) in mine
            subject = f"results.{node_id}.{work.job_id}.{item.task}.{item.attempt}"
            over = self._assigned.get((work.job_id, item.task), (0, ""))[0] > item.attempt
            kept = subject in self._subjects
            self._hold(not ran or over or kept, f"{subject} is acknowledged before its outcome is stored")

    # -- the end -------------------------------------------------------------------

    def open_work(self) -> list[str]:
        """What keeps the fleet from being converged."""
        state = self.state
        jobs = [f"job {job_id} is {state.jobs[job_id].state}" for job_id in sorted(state.open_jobs)]
        outstanding = [
            f"{node_id} owes {node.outstanding}" for node_id, node in state.nodes.items() if node.outstanding
        ]
        return [*jobs, *outstanding, *self.registry.unsettled(state)]

    def converged(self) -> None:
        """The faults are over and the fleet had its time."""
        state = self.state
        still = self.open_work()
        self._hold(not still, f"did not converge: {still[:5]}")
        self.registry.check_reasons(state)
        for request_id, job_id in self._outcome_of.items():
            self._hold(job_of(state, request_id) == job_id, f"acknowledged request {request_id} is lost")
        self._hold(set(self.ended) >= set(state.jobs), "a job has no end")
        for job_id, job in self.ended.items():
            if job_id in self._cancelled:
                self._hold(job.state is JobState.CANCELLED, f"the acknowledged cancel of {job_id} is lost")
            if job.state is JobState.SUCCEEDED:
                done = sum(key[0] == job_id for key in self._succeeded)
                self._hold(done == job.planned, f"{job_id} succeeded with {done} of {job.planned} tasks")

    def fail(self, message: str) -> None:
        """Something else is wrong."""
        self._hold(False, message)

    def _hold(self, promise: bool, otherwise: str) -> None:
        if not promise:
            self.broken = self.broken or otherwise
            self._trace(f"VIOLATION {otherwise}")
            raise ViolationError(otherwise)
