"""Makes the history of a busy fleet by driving the coordinator's own core: what it decides is what is stored."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.decide import decide
from coordinator.core.model import JobSpec, NodeSpec, ProbeSpec, Rejected, State
from coordinator.wire.records import GENESIS_HASH, NewRecord, record_hash
from hivefold.entropy import Entropy
from hivefold.ids import BootId, JobId, NodeId, RequestId
from hivefold.log.port import Entry

_NODES: Final = ("n1", "n2", "n3")
_TASK_US: Final = 1000
_START_US: Final = 1_700_000_000_000_000


class History:
    """A fleet of three nodes that works through one job after another, its outcomes recorded `at_once` at a time."""

    def __init__(
        self, entropy: Entropy, *, job_tasks: int, at_once: int, first_key: cmd.ChangeSigningKey | None = None
    ) -> None:
        """`first_key` names the key that signs the log, where it is to be signed."""
        self._state = State()
        self._hash = GENESIS_HASH
        self._entropy = entropy
        self._job_tasks = job_tasks
        self._at_once = at_once
        self._first_key = first_key
        self._time_us = _START_US
        self._jobs = count(1)
        self._results = count(1)
        self._held: dict[NodeId, deque[tuple[int, int]]] = defaultdict(deque)

    def entries(self, transitions: int) -> Iterator[tuple[Entry, int]]:
        """Records, and how many task transitions (placed, succeeded) each has.

        The first starts the term. Ends after the first record that makes it `transitions` or more.
        """
        yield from self._decide(cmd.StartTerm("bench", "0"))
        if self._first_key is not None:
            yield from self._decide(self._first_key)
        for node in _NODES:
            spec = NodeSpec(NodeId(node), BootId(f"{node}-boot"), slot_count=2, cpu_count=2, memory_bytes=1 << 34)
            yield from self._decide(cmd.JoinNode(spec))
        made = 0
        for record, moved in self._work():
            yield record, moved
            made += moved
            if made >= transitions:
                return

    def _work(self) -> Iterator[tuple[Entry, int]]:
        """One job after another: placed, reported by one node after another, what makes room placed again."""
        while True:
            job_id = JobId(f"job-{next(self._jobs):06d}")
            spec = JobSpec(ProbeSpec(self._job_tasks), source="bench")
            yield from self._decide(cmd.SubmitJob(job_id, RequestId(job_id), spec))
            yield from self._decide(cmd.PlaceTasks())
            while job_id in self._state.open_jobs:
                for node in _NODES:
                    yield from self._report(job_id, NodeId(node))
                    yield from self._decide(cmd.PlaceTasks())

    def _report(self, job_id: JobId, node_id: NodeId) -> Iterator[tuple[Entry, int]]:
        held = self._held[node_id]
        each = min(self._at_once, len(held))
        if not each:
            return
        tasks, attempts = zip(*(held.popleft() for _ in range(each)), strict=True)
        positions = tuple(next(self._results) for _ in range(each))
        columns = cmd.OutcomeColumns(job_id, tasks, attempts, (_TASK_US,) * each, (1,) * each, positions)
        yield from self._decide(cmd.ReportOutcomes(node_id, columns=(columns,)))

    def _decide(self, body: cmd.CommandBody) -> Iterator[tuple[Entry, int]]:
        self._time_us += 100
        command = cmd.Command(self._time_us, body)
        decision = decide(self._state, command)
        assert not isinstance(decision, Rejected), "a plausible history is not refused"
        if not decision.events:
            return
        self._state = decision.state
        for event in decision.events:
            if isinstance(event, ev.TasksAssigned):
                self._held[event.node_id].extend(zip(event.tasks, event.attempts, strict=True))
        record = NewRecord(
            sequence=decision.state.sequence,
            term=decision.state.term,
            record_id=self._entropy.draw(16),
            command=command,
            events=decision.events,
            previous_hash=self._hash,
        )
        entry = record.entry()
        self._hash = record_hash(decision.state.sequence, entry.subject, entry.data)
        yield entry, _transitions(decision.events)


def _transitions(events: Sequence[ev.Event]) -> int:
    return sum(len(event.tasks) for event in events if isinstance(event, ev.TasksAssigned | ev.TasksSucceeded))
