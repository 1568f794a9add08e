"""Performs what the plan owes nodes: work, and word that a job's attempts are to be given up.

Actions are performed in the order of the records that caused them. When anything was or may have been
lost (a send failed, the broker came back, a node says that it has nothing), the whole plan is performed
again: attempts carry their number and term, so repeats are harmless.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import structlog

from coordinator.core.erased import erased_us
from coordinator.core.events import JobCancelled, JobFailed, JobSucceeded
from coordinator.core.model import InferSpec, Job, JobState, State
from coordinator.core.plan import (
    SendCancel,
    SendKeeps,
    SendWork,
    follow_up,
    keeps_changed,
    oldest_first,
    owed_keeps,
    owed_work,
    plan,
)
from coordinator.followers import Committed
from coordinator.job_keys import JobKeys, WorkKeys
from coordinator.wire.times import timestamp
from coordinator.wire.values import job_model_to_proto, job_spec_to_proto
from coordinator.writer import Writer
from hivefold import limits, observe
from hivefold.blobs.sealing import job_key_id
from hivefold.bus.port import Message, ResultReceiver, Signals, WorkSender
from hivefold.clock import Clock
from hivefold.errors import HivefoldError
from hivefold.ids import JobId, NodeId
from hivefold.v1 import work_pb2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Work that went out as a signal a while ago: what is still owed of it."""

    work: SendWork


_Action: TypeAlias = SendWork | _Copy | SendCancel | SendKeeps


class Dispatcher:
    """Carries actions from commits to nodes."""

    def __init__(
        self,
        writer: Writer,
        sender: WorkSender,
        signals: Signals,
        results: ResultReceiver,
        *,
        job_keys: JobKeys,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._sender = sender
        self._signals = signals
        self._results = results
        self._job_keys = job_keys
        self._work_keys: dict[JobId, WorkKeys] = {}
        """Of open jobs."""
        self._clock = clock
        self._queue: deque[_Action] = deque()
        self._signalled: deque[tuple[float, SendWork]] = deque()
        """Work that went out as a signal, oldest first: what is owed of it still at that time goes to the stream."""
        self._timer: asyncio.TimerHandle | None = None
        self._ready: tuple[SendWork, State, bytes] | None = None
        """Work as it will go out once the state that owes it is durable."""
        self._ended: deque[JobId] = deque(maxlen=limits.DISPATCH_QUEUE)
        self._worked = False
        self._resync = True
        self._forget_due = False
        self._wake = asyncio.Event()
        self._wake.set()
        writer.on_commit(self._on_commit, self._prepare)
        signals.on_reconnect(self.resync)

    def resync(self) -> None:
        """Performs the whole plan again, soon."""
        self._resync = True
        self._wake.set()

    def resend(self, node_id: NodeId) -> None:
        """Sends a node again all that it is owed."""
        state = self._writer.state
        for job_id in oldest_first(state):
            self._queue.extend(owed_work(state.jobs[job_id], node_id))
        self._wake.set()

    def resend_keeps(self, node_id: NodeId) -> None:
        """Tells a node again what it is to keep loaded."""
        self._queue.extend(owed_keeps(self._writer.state, (node_id,)))
        self._wake.set()

    async def run(self) -> None:
        """Performs actions until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_performing())
                group.create_task(self._keep_clearing())
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _keep_performing(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._perform_waiting()
            except HivefoldError as error:
                # Whatever the broker objects to, the work stays owed, and the coordinator stays up.
                _log.warning("work not sent, trying again", reason=error.reason, error=str(error))
                await asyncio.sleep(limits.RESEND_DELAY_S)
                self.resync()

    async def _keep_clearing(self) -> None:
        """Drops the outcomes of ended jobs when nothing runs or has just run, or too many wait.

        Work must not wait for that: each drop is a write with fsync on the server.
        """
        while True:
            self._worked = False
            await asyncio.sleep(limits.CLEAR_INTERVAL_MS / 1000)
            await self._forget_former()
            while self._ended and (self._resting or len(self._ended) > limits.CLEAR_BACKLOG):
                job_id = self._ended.popleft()
                try:
                    await self._results.purge_job(job_id)
                except HivefoldError as error:
                    _log.warning("outcomes not dropped, trying again", reason=error.reason, error=str(error))
                    self._ended.append(job_id)
                    break

    async def _forget_former(self) -> None:
        """Drops what waits for nodes that are gone. Beside all else: there may be many, and nobody waits for it."""
        if not self._forget_due:
            return
        self._forget_due = False
        for node_id in sorted(self._writer.state.nodes):
            # Looked at afresh each time: meanwhile nodes join.
            node = self._writer.state.nodes.get(node_id)
            if node is not None and node.state.gone:
                try:
                    await self._sender.forget(node_id)
                except HivefoldError as error:
                    _log.warning("queue of a former node not dropped", node=node_id, error=str(error))

    @property
    def _resting(self) -> bool:
        """Whether no job is open and none was sent to nodes for CLEAR_INTERVAL_MS."""
        return not self._worked and not self._writer.state.open_jobs

    def _on_commit(self, commits: Sequence[Committed]) -> None:
        alone = not self._queue and not self._resync
        for committed in commits:
            work, cancels = follow_up(committed.events, committed.state)
            self._queue.extend(work)
            self._queue.extend(cancels)
            self._queue.extend(keeps_changed(committed.events, committed.state))
            self._worked = self._worked or bool(work)
            for event in committed.events:
                match event:
                    case JobSucceeded(job_id) | JobFailed(job_id) | JobCancelled(job_id):
                        self._work_keys.pop(job_id, None)
                        if not _has_output(committed.state.jobs[job_id]):
                            self._ended.append(job_id)
                    case _:
                        pass
        if len(self._queue) > limits.DISPATCH_QUEUE:
            self._queue.clear()
            self._resync = True
        if alone and len(self._queue) == 1 and self._signal_at_once(self._queue[0], commits[-1].state):
            self._queue.clear()
        self._ready = None
        if self._queue or self._resync:
            self._wake.set()

    def _prepare(self, commits: Sequence[Committed]) -> None:
        """Makes the one signal that these commits will owe, while the log stores them."""
        if len(commits) > 1 or self._queue or self._resync or observe.tracing():
            return
        state = commits[0].state
        work, _ = follow_up(commits[0].events, state)
        if len(work) == 1 and self._may_signal(work[0]):
            keys = self._keys_at_hand(work[0], state)
            batch = self._batch(work[0], keys, state) if keys is not None else None
            if batch is not None:
                self._ready = work[0], state, batch.SerializeToString()

    def _signal_at_once(self, action: _Action, state: State) -> bool:
        """Whether this was work for which nothing has to be waited for, and is on its way before anything else runs."""
        if not isinstance(action, SendWork) or not self._may_signal(action):
            return False
        if self._ready is not None and self._ready[0] == action and self._ready[1] is state:
            self._publish(action, self._ready[2])
            return True
        keys = self._keys_at_hand(action, state)
        if keys is None:
            return False
        self._signal(action, keys)
        return True

    def _keys_at_hand(self, action: SendWork, state: State) -> WorkKeys | None:
        """The keys of a job's work; None where they have to be looked up."""
        job = state.jobs.get(action.job_id)
        if job is None or not isinstance(job.spec.kind, InferSpec):
            return WorkKeys()
        return self._work_keys.get(action.job_id)

    def _may_signal(self, action: SendWork) -> bool:
        return len(action.tasks) <= limits.EXPRESS_ITEMS and len(self._signalled) < limits.EXPRESS_WAITING

    def _queue_copies(self) -> None:
        """Most of what went out as a signal is done by now; `_batch` leaves that out."""
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        while self._signalled and self._signalled[0][0] <= now_s:
            self._queue.append(_Copy(self._signalled.popleft()[1]))
            self._wake.set()
        self._copy_later()

    def _copy_later(self) -> None:
        if self._signalled and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._signalled[0][0], self._queue_copies)

    async def _perform_waiting(self) -> None:
        if self._resync:
            self._resync = False
            await self._perform_plan()
        while self._queue:
            if len(self._queue) == 1:
                # Without a task of its own it is on its way before the client has its answer.
                await self._perform(self._queue.popleft(), alone=True)
                continue
            actions = [self._queue.popleft() for _ in range(min(len(self._queue), limits.DISPATCH_WINDOW))]
            await asyncio.gather(*(self._perform(action) for action in actions))

    async def _perform_plan(self) -> None:
        nodes = self._writer.state.nodes
        for node_id in sorted(node_id for node_id, node in nodes.items() if not node.state.gone):
            await self._sender.prepare(node_id)
        self._forget_due = True
        state = self._writer.state
        owed = plan(state, self._clock.now_us())
        for work in owed.work:
            await self._perform(work)
        for cancel in owed.cancels:
            await self._perform(cancel)
        for keeps in owed.keeps:
            await self._perform(keeps)

    async def _perform(self, action: _Action, *, alone: bool = False) -> None:
        match action:
            case SendWork():
                await self._send_work(action, express=alone and self._may_signal(action))
            case _Copy(work):
                await self._send_work(work, express=False)
            case SendCancel(node_id, job_id):
                cancel = work_pb2.CancelWork(term=self._writer.state.term, job_id=job_id)
                self._signals.publish(Message(f"control.{node_id}", cancel.SerializeToString()))
            case SendKeeps():
                await self._send_keeps(action)
            case other:
                assert_never(other)

    async def _send_keeps(self, action: SendKeeps) -> None:
        """Tells a node what it is to keep, unless a later order has taken this one's place."""
        state = self._writer.state
        if state.kept.get(action.node_id) != action.sequence:
            return
        order = work_pb2.KeepModels(term=state.term, boot_id=action.boot_id, sequence=action.sequence)
        for keep in action.keeps:
            order.models.add(model=keep.model, digest=keep.digest, pinned=keep.pinned)
        self._signals.publish(Message(f"control.{action.node_id}", order.SerializeToString()))

    async def _send_work(self, action: SendWork, *, express: bool) -> None:
        """Sends the attempts that are still current; `express` as a signal, which is there sooner, and soon again."""
        keys = await self._keys_for(action.job_id)
        if keys is None:
            return
        if express:
            self._signal(action, keys)
            return
        batch = self._batch(action, keys, self._writer.state)
        if batch is not None:
            with _span(batch):
                headers = {"traceparent": batch.traceparent} if batch.traceparent else None
                await self._sender.send(action.node_id, batch.SerializeToString(), headers)

    def _signal(self, action: SendWork, keys: WorkKeys) -> None:
        batch = self._batch(action, keys, self._writer.state)
        if batch is not None:
            with _span(batch):
                self._publish(action, batch.SerializeToString())

    def _publish(self, action: SendWork, data: bytes) -> None:
        self._signals.publish(Message(f"express.work.{action.node_id}", data))
        copy_s = asyncio.get_running_loop().time() + limits.EXPRESS_COPY_MS / 1000
        self._signalled.append((copy_s, action))
        self._copy_later()

    def _batch(self, action: SendWork, keys: WorkKeys, state: State) -> work_pb2.WorkBatch | None:
        """The attempts that are current in a state; None where there are none."""
        job = state.jobs.get(action.job_id)
        if job is None:
            return None
        batch = work_pb2.WorkBatch(
            term=state.term,
            node_id=action.node_id,
            boot_id=action.boot_id,
            job_id=job.job_id,
            spec=job_spec_to_proto(job.spec),
            model=job_model_to_proto(job.model) if job.model else None,
            deadline_time=timestamp(job.deadline_time_us),
            traceparent=job.traceparent,
            job_key=keys.job_key,
            data_key=keys.data_key,
        )
        for task, number in zip(action.tasks, action.attempts, strict=True):
            attempt = job.running.get(task)
            if attempt is None or attempt.number != number or attempt.node_id != action.node_id:
                continue
            item = batch.items.add(task=task, attempt=number)
            if isinstance(job.spec.kind, InferSpec):
                rows = job.rows[task]
                item.spec.infer.first_row, item.spec.infer.row_count = rows
            else:
                item.spec.probe.SetInParent()
        return batch if batch.items else None

    async def _keys_for(self, job_id: JobId) -> WorkKeys | None:
        """The keys of an open job; None once it has ended."""
        job = self._writer.state.jobs.get(job_id)
        keys = self._work_keys.get(job_id)
        if job is None or job.state.final:
            return None
        if keys is None:
            keys = await self._job_keys.for_work(job)
            if job_id in self._writer.state.open_jobs:
                self._work_keys[job_id] = keys
            elif erased_us(self._writer.state, job_id):
                # Ended and erased meanwhile: what was just made again must go again.
                await self._job_keys.store.shred(job_key_id(job_id))
        return keys


def _has_output(job: Job) -> bool:
    return job.state is JobState.SUCCEEDED and isinstance(job.spec.kind, InferSpec)


def _span(batch: work_pb2.WorkBatch) -> observe.ActiveSpan:
    """The span of a send, which the batch names as its cause."""
    attributes = {"hivefold.job.id": batch.job_id, "hivefold.node.id": batch.node_id}
    span = observe.span("send work", kind="producer", parent=batch.traceparent, attributes=attributes)
    batch.traceparent = span.traceparent or batch.traceparent
    return span
