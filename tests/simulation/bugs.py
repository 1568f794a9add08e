"""Bugs to plant, each a patch of production code while a `with` statement lasts. The simulation must find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from immutables import Map

from coordinator import dispatch
from coordinator import writer as writing
from coordinator.archiver import Archiver
from coordinator.checkpoints import Checkpointer
from coordinator.core import commands as cmd
from coordinator.core import decide_jobs, decide_outcomes
from coordinator.core.draft import Draft
from coordinator.core.model import Rejected, State
from coordinator.intake import Intake
from coordinator.replay import Replayer
from coordinator.standby import Standby
from coordinator.wire.snapshot import encode_state
from coordinator.writer import Writer
from hivefold.bus.memory_ends import MemoryEventSender
from hivefold.errors import HivefoldError
from hivefold.log.file_writer import LogFileWriter
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import CLOSE_SUBJECT, Stored
from hivefold.proof.extension import first_seen
from hivefold.proof.merkle import CompactRange, RangeBuilder
from node.agent import Agent
from node.core import NodeCore
from node.witness import Witness
from tests.simulation.log import LogStore
from tests.simulation.registry_bugs import REGISTRY_BUGS


@contextmanager
def reply_before_durable() -> Iterator[None]:
    """Clients get their answer when it is decided, not when it is stored."""
    decide_waiting = Writer._decide_waiting

    def hasty(self: Writer, batch: Any) -> Any:
        answers = decide_waiting(self, batch)
        writing._answer(answers, None)
        return answers

    with patch.object(Writer, "_decide_waiting", hasty):
        yield


@contextmanager
def act_before_append() -> Iterator[None]:
    """Work is sent while its record is on the way to the log."""
    append = Writer._append

    async def hasty(self: Writer, batch: Any) -> None:
        acts, self._acts = self._acts, []
        for act in acts:
            act(batch.records)
        try:
            await append(self, batch)
        finally:
            self._acts = acts

    with patch.object(Writer, "_append", hasty):
        yield


@contextmanager
def attempt_number_not_checked() -> Iterator[None]:
    """The outcome of an attempt that was given up counts for the one that runs now."""
    report = decide_outcomes.report_outcomes

    def careless(draft: Draft, body: cmd.ReportOutcomes) -> Rejected | None:
        columns = tuple(_with_current_numbers(draft, column) for column in body.columns)
        return report(draft, replace(body, columns=columns))

    with patch.object(decide_outcomes, "report_outcomes", careless):
        yield


def _with_current_numbers(draft: Draft, column: cmd.OutcomeColumns) -> cmd.OutcomeColumns:
    job = draft.state.jobs.get(column.job_id)
    if job is None:
        return column
    current = zip(column.tasks, column.attempts, strict=True)
    return replace(
        column, attempts=tuple(job.running[task].number if task in job.running else old for task, old in current)
    )


@contextmanager
def outcome_acknowledged_before_recorded() -> Iterator[None]:
    """The results stream may forget what is not in the log yet."""

    async def hasty(self: Intake) -> None:
        async for batch in self._results.batches():
            if batch:
                await self._results.acknowledge(batch[-1].sequence)
                await self._record(batch)

    with patch.object(Intake, "run", hasty):
        yield


@contextmanager
def term_not_checked_by_the_node() -> Iterator[None]:
    """A node takes work from a coordinator that leads no more."""
    take = NodeCore.accept

    def careless(self: NodeCore, batch: Any, now_us: int) -> Any:
        term, self.term = self.term, 0
        effects = take(self, batch, now_us)
        self.term = max(term, self.term)
        return effects

    with patch.object(NodeCore, "accept", careless):
        yield


@contextmanager
def work_acknowledged_before_its_outcome_is_stored() -> Iterator[None]:
    """A node lets go of work when it begins with it."""
    accept = Agent._accept

    def hasty(self: Agent, delivery: Any, message: Any) -> None:
        accept(self, delivery, message)
        self._spawn(delivery.acknowledge())

    with patch.object(Agent, "_accept", hasty):
        yield


@contextmanager
def repeats_not_known_by_the_node() -> Iterator[None]:
    """A node runs an attempt again when its message comes again."""
    with patch.object(NodeCore, "_note", lambda self, key, number: None):
        yield


@contextmanager
def request_id_forgotten() -> Iterator[None]:
    """A repeated request becomes a second job."""
    submit = decide_jobs.submit_job

    def forgetful(draft: Draft, body: cmd.SubmitJob) -> Rejected | None:
        known = draft.state.requests
        draft.state = draft.state._replace(requests=Map())
        answer = submit(draft, body)
        draft.state = draft.state._replace(requests=known.update(draft.state.requests))
        return answer

    with patch.object(decide_jobs, "submit_job", forgetful):
        yield


@contextmanager
def log_not_fenced() -> Iterator[None]:
    """The broker lets a deposed leader write."""
    with patch.object(MemoryEventLog, "_check_fence", lambda *_: None):
        yield


@contextmanager
def deposed_leader_lets_outcomes_go() -> Iterator[None]:
    """Found by the simulation: a leader that records nothing does not ask whether it still leads."""

    async def trusting(_self: Writer) -> None:
        return

    with patch.object(Writer, "_confirm", trusting):
        yield


@contextmanager
def waits_stand_still() -> Iterator[None]:
    """Found by the simulation: a wall clock that is set back stops all retries until it has caught up."""
    with patch.object(Writer, "_now_us", lambda self: self._clock.now_us()):
        yield


@contextmanager
def log_not_synced() -> Iterator[None]:
    """The broker acknowledges what is not on its disk yet, as JetStream does by default."""
    with patch.object(LogStore, "sync_always", False):
        yield


@contextmanager
def old_requests_forgotten() -> Iterator[None]:
    """A repeated request becomes a second job once the first has left the state."""
    submit = decide_jobs.submit_job

    def forgetful(draft: Draft, body: cmd.SubmitJob) -> Rejected | None:
        known = draft.state.past_requests
        draft.state = draft.state._replace(past_requests=Map())
        answer = submit(draft, body)
        draft.state = draft.state._replace(past_requests=known)
        return answer

    with patch.object(decide_jobs, "submit_job", forgetful):
        yield


@contextmanager
def signal_taken_for_recorded() -> Iterator[None]:
    """An outcome that came as a signal counts as recorded, whether the log took it or not."""

    async def hasty(_express: Any) -> bool:
        return True

    with patch("coordinator.intake._recorded", hasty):
        yield


@contextmanager
def feed_begins_with_its_term() -> Iterator[None]:
    """After a take-over the public events begin with the new term, whatever the last leader had not told yet."""

    async def now(_self: MemoryEventSender) -> int:
        return 1 << 60

    with patch.object(MemoryEventSender, "last_sequence", now):
        yield


@contextmanager
def outputs_dropped_with_their_job() -> Iterator[None]:
    """The results of a job that succeeded are cleared away before anybody has read them."""
    with patch.object(dispatch, "_has_output", lambda job: False):
        yield


@contextmanager
def snapshot_off_by_one() -> Iterator[None]:
    """A snapshot holds the state before its last job was submitted."""

    def early(state: State) -> Iterator[bytes]:
        last = max(state.open_jobs, key=state.open_jobs.__getitem__, default=None)
        if last is not None:
            requests = state.requests.delete(state.jobs[last].request_id)
            jobs, open_jobs = state.jobs.delete(last), state.open_jobs.delete(last)
            state = state._replace(jobs=jobs, open_jobs=open_jobs, requests=requests)
        return iter(encode_state(state))

    with patch("coordinator.snapshots.encode_state", early):
        yield


@contextmanager
def standby_passes_over_a_record() -> Iterator[None]:
    """A standby takes the state before its last record for the state after it."""
    fold = Standby._fold

    def hasty(self: Standby, stored: Any) -> None:
        before = self._state
        fold(self, stored)
        if stored.sequence % 7 == 0:
            self._state = before._replace(sequence=stored.sequence)
            self._replayer = Replayer(replace(self._replayer.folded(), state=self._state))

    with patch.object(Standby, "_fold", hasty):
        yield


@contextmanager
def segment_opened_without_closing_record() -> Iterator[None]:
    """A full segment is left behind without a word that it ends."""
    record = Writer.record

    async def silent(self: Writer, body: cmd.CommandBody) -> None:
        if not isinstance(body, cmd.CloseSegment):
            await record(self, body)

    with patch.object(Writer, "record", silent):
        yield


@contextmanager
def segment_removed_before_it_is_archived() -> Iterator[None]:
    """Closed segments leave the broker whether their file is there or not."""

    async def trusting(_self: Archiver, _segment: Any) -> None:
        return

    with patch.object(Archiver, "_secure", trusting):
        yield


@contextmanager
def archive_ends_early() -> Iterator[None]:
    """The file of a segment lacks its last record, and nobody reads it back."""
    with (
        patch("coordinator.archiver._check", lambda *_: None),
        patch.object(LogFileWriter, "records", _all_but_closing),
    ):
        yield


def _all_but_closing(self: LogFileWriter, page: Iterable[Stored]) -> None:
    for stored in page:
        if stored.subject != CLOSE_SUBJECT:
            self.record(stored)


@contextmanager
def checkpoint_signed_before_durable() -> Iterator[None]:
    """A checkpoint covers records that are on their way to the log."""
    append = Writer._append

    async def hasty(self: Writer, batch: Any) -> None:
        owners = [getattr(act, "__self__", None) for act in self._acts]
        sealers = [owner for owner in owners if isinstance(owner, Checkpointer)]
        before = self._state, self._head_hash
        for sealer in sealers:
            sealer._add(batch.records)
            self._acts.remove(sealer._add)
            self._state, self._head_hash = batch.state, batch.head_hash
            if sealer._signer is not None:
                with suppress(HivefoldError):
                    await sealer.seal()
        self._state, self._head_hash = before
        try:
            await append(self, batch)
        finally:
            self._acts.extend(sealer._add for sealer in sealers)

    with patch.object(Writer, "_append", hasty):
        yield


@contextmanager
def unanswered_checkpoint_forgotten() -> Iterator[None]:
    """A checkpoint whose answer was lost is signed anew, as if it had not been stored."""
    seal = Checkpointer.seal

    async def forgetful(self: Checkpointer) -> None:
        if self._pending is not None:
            since = self._pending.tree
            self._pending, self._since = None, RangeBuilder(CompactRange(since.end, since.end))
        await seal(self)

    with patch.object(Checkpointer, "seal", forgetful):
        yield


@contextmanager
def witness_trusts_anew() -> Iterator[None]:
    """A node takes every checkpoint as if it were the first that it sees."""
    with patch.object(Witness, "_judged", lambda _self, signed: first_seen(signed)):
        yield


@contextmanager
def witness_forgets_when_it_restarts() -> Iterator[None]:
    """What a node has seen of the log does not outlive it."""
    with patch("node.witness.read_proven", lambda _path: None):
        yield


BUGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    bug.__name__.replace("_", "-"): bug
    for bug in (
        reply_before_durable,
        act_before_append,
        attempt_number_not_checked,
        outcome_acknowledged_before_recorded,
        signal_taken_for_recorded,
        term_not_checked_by_the_node,
        work_acknowledged_before_its_outcome_is_stored,
        repeats_not_known_by_the_node,
        request_id_forgotten,
        log_not_fenced,
        deposed_leader_lets_outcomes_go,
        waits_stand_still,
        log_not_synced,
        old_requests_forgotten,
        feed_begins_with_its_term,
        outputs_dropped_with_their_job,
        standby_passes_over_a_record,
        snapshot_off_by_one,
        segment_opened_without_closing_record,
        segment_removed_before_it_is_archived,
        archive_ends_early,
        checkpoint_signed_before_durable,
        unanswered_checkpoint_forgotten,
        witness_trusts_anew,
        witness_forgets_when_it_restarts,
        *REGISTRY_BUGS,
    )
}
