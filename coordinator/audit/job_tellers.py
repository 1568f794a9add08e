"""Stories of jobs and of their tasks: what was asked, each decision with its reason, every attempt, the end."""

from __future__ import annotations

from coordinator.audit import telling
from coordinator.audit.heard import Heard
from coordinator.audit.story import Line, Lines, Shares, Story, Tone
from coordinator.audit.subjects import JobSubject, Kind, TaskSubject
from coordinator.core import events as ev
from coordinator.core.model import JobState
from hivefold.ids import JobId


class _Reasons:
    """Placement reasons, each told once: most assignments of a job have the same."""

    def __init__(self) -> None:
        self._told: ev.PlacementReason | None = None
        self._sequence = 0

    def details(self, heard: Heard, reason: ev.PlacementReason) -> tuple[str, ...]:
        if reason == self._told:
            return () if heard.sequence == self._sequence else (f"candidates as in record {self._sequence}",)
        self._told, self._sequence = reason, heard.sequence
        return telling.placement(reason)


class JobTeller:
    """The story of a job."""

    def __init__(self, job_id: JobId, limit: int) -> None:
        self._job_id = job_id
        self._needle = job_id.encode()
        self._lines = Lines(limit)
        self._shares = Shares(limit)
        self._reasons = _Reasons()
        self._submitted: ev.JobSubmitted | None = None
        self._begin_us = self._end_us = 0
        self._state = JobState.PENDING

    def wants(self, data: bytes) -> bool:
        """Whether the bytes hold the job's id."""
        return self._needle in data

    def take(self, heard: Heard) -> None:
        """One record."""
        for event in heard.events:
            if isinstance(event, ev.TermStarted):
                if self._submitted and not self._state.final:
                    self._lines.add(_take_over(heard, event))
            elif isinstance(event, ev.KeysShredded) and self._job_id in event.job_ids:
                self._lines.add(heard.line("shredded", "the keys to its data, and its small outputs, are gone", event))
            elif isinstance(event, ev.JobEvent) and event.job_id == self._job_id:
                self._lines.add(self._told(heard, event))

    def story(self) -> Story | None:
        """The story, if the log names the job."""
        if not len(self._lines):
            return None
        asked = telling.job_facts(self._submitted) if self._submitted else ()
        took = telling.span(self._end_us - self._begin_us) if self._end_us else ""
        facts = (("state", self._state.lower()), *asked, ("took", took))
        return Story(
            Kind.JOB,
            str(JobSubject(self._job_id)),
            tuple((name, value) for name, value in facts if value),
            tuple(self._lines),
            self._lines.omitted,
            self._shares.sorted(),
        )

    def _told(self, heard: Heard, event: ev.JobEvent) -> Line:
        match event:
            case ev.JobSubmitted():
                self._submitted, self._begin_us = event, heard.time_us
                return heard.line("accepted", telling.asked(event.spec, event.model), event)
            case ev.TasksPlanned():
                return heard.line("planned", _planned(event), event)
            case ev.TasksAssigned():
                self._state = JobState.RUNNING
                self._shares.of(event.node_id).assigned += len(event.tasks)
                text = f"{telling.tasks(event.tasks, event.attempts)} to {event.node_id}"
                return heard.line("assigned", text, event, details=self._reasons.details(heard, event.reason))
            case ev.TasksSucceeded():
                self._shares.of(event.node_id).finish(event.durations_us, sum(event.row_counts))
                return heard.line("answered", _answered(event), event, tone=Tone.GOOD)
            case ev.AttemptFailed():
                self._shares.of(event.node_id).failed += 1
                return _failed(heard, event)
            case ev.AttemptsLost():
                self._shares.of(event.node_id).lost += len(event.tasks)
                return _lost(heard, event)
            case ev.JobSucceeded():
                return self._ended(heard, event, JobState.SUCCEEDED, "every task succeeded")
            case ev.JobFailed():
                return self._ended(heard, event, JobState.FAILED, telling.failure(event.failure))
            case ev.JobCancelled():
                return self._ended(heard, event, JobState.CANCELLED, event.note or "by request")
            case ev.JobErased():
                return heard.line("erased", "its data can never be read again", event)

    def _ended(self, heard: Heard, event: ev.Event, state: JobState, text: str) -> Line:
        self._state, self._end_us = state, heard.time_us
        tone = Tone.GOOD if state is JobState.SUCCEEDED else Tone.BAD
        return heard.line(state.lower(), text, event, tone=tone)


class TaskTeller:
    """The story of one task."""

    def __init__(self, job_id: JobId, task: int, limit: int) -> None:
        self._subject = TaskSubject(job_id, task)
        self._needle = job_id.encode()
        self._lines = Lines(limit)
        self._shares = Shares(limit)
        self._reasons = _Reasons()
        self._facts: list[tuple[str, str]] = []
        self._state = ""
        self._rows = 0

    def wants(self, data: bytes) -> bool:
        """Whether the bytes hold the job's id."""
        return self._needle in data

    def take(self, heard: Heard) -> None:
        """One record."""
        for event in heard.events:
            if not isinstance(event, ev.JobEvent) or event.job_id != self._subject.job_id:
                continue
            line = self._told(heard, event)
            if line is not None:
                self._lines.add(line)

    def story(self) -> Story | None:
        """The story, if the log names the task."""
        if not self._state:
            return None
        facts = (("state", self._state), *self._facts)
        return Story(
            Kind.TASK, str(self._subject), facts, tuple(self._lines), self._lines.omitted, self._shares.sorted()
        )

    def _told(self, heard: Heard, event: ev.JobEvent) -> Line | None:
        task = self._subject.task
        match event:
            case ev.JobSubmitted():
                self._facts.append(("asked", telling.asked(event.spec, event.model)))
                return heard.line("accepted", f"job {event.job_id}", event)
            case ev.TasksPlanned():
                return self._planned(heard, event)
            case ev.TasksAssigned() if task in event.tasks:
                self._state = "assigned"
                self._shares.of(event.node_id).assigned += 1
                text = f"attempt {event.attempts[event.tasks.index(task)]} to {event.node_id}"
                return heard.line("assigned", text, event, details=self._reasons.details(heard, event.reason))
            case ev.TasksSucceeded() if task in event.tasks:
                self._state = "succeeded"
                return self._succeeded(heard, event)
            case ev.AttemptFailed() if task == event.task:
                self._state = "waiting" if event.retry_time_us else "failed"
                self._shares.of(event.node_id).failed += 1
                return _failed(heard, event)
            case ev.AttemptsLost() if task in event.tasks:
                self._state = "waiting"
                self._shares.of(event.node_id).lost += 1
                return _lost(heard, event)
            case ev.JobFailed() | ev.JobCancelled() if self._state not in {"", "succeeded"}:
                self._state = "failed" if self._state == "failed" else "dropped"
                text = telling.failure(event.failure) if isinstance(event, ev.JobFailed) else event.note
                return heard.line("job ended", text, event, tone=Tone.BAD)
            case _:
                return None

    def _planned(self, heard: Heard, event: ev.TasksPlanned) -> Line | None:
        index = self._subject.task - event.first_task
        first, self._rows = self._rows, self._rows + sum(event.row_counts)
        if not 0 <= index < event.task_count:
            return None
        self._state = "waiting"
        if not event.row_counts:
            return heard.line("planned", "", event)
        begin = first + sum(event.row_counts[:index])
        rows = f"rows {begin:,} to {begin + event.row_counts[index] - 1:,}"
        self._facts.append(("input", rows))
        return heard.line("planned", rows, event)

    def _succeeded(self, heard: Heard, event: ev.TasksSucceeded) -> Line:
        index = event.tasks.index(self._subject.task)
        duration, rows = event.durations_us[index], event.row_counts[index]
        self._shares.of(event.node_id).finish((duration,), rows)
        position = event.result_sequences[index]
        details: tuple[str, ...] = (f"outcome {position} of the results stream" if position else "told by its node",)
        if event.outputs:
            output = event.outputs[index]
            self._facts.append(("output", f"{output.size_bytes:,} bytes, sha256 {output.digest}"))
            details = (f"output {output.size_bytes:,} bytes, sha256 {output.digest}", *details)
        text = f"{event.node_id}, attempt {event.attempts[index]}, in {telling.span(duration)}"
        return heard.line("answered", text, event, details=details, tone=Tone.GOOD)


def _take_over(heard: Heard, event: ev.TermStarted) -> Line:
    text = f"{event.coordinator_id} leads term {event.term} (version {event.code_version})"
    return heard.line("take-over", text, event, tone=Tone.WARNING)


def _planned(event: ev.TasksPlanned) -> str:
    rows = f", {telling.count(sum(event.row_counts), 'row')}" if event.row_counts else ""
    more = "" if event.last else ", more will follow"
    return f"{telling.tasks(range(event.first_task, event.first_task + event.task_count))}{rows}{more}"


def _answered(event: ev.TasksSucceeded) -> str:
    longest, total = max(event.durations_us, default=0), sum(event.durations_us)
    each = telling.span(longest) if len(event.tasks) == 1 else f"{telling.span(total / max(1, len(event.tasks)))} each"
    return f"{event.node_id}: {telling.tasks(event.tasks, event.attempts)} in {each}"


def _failed(heard: Heard, event: ev.AttemptFailed) -> Line:
    wait = telling.span(event.retry_time_us - heard.time_us)
    then = f"tried again after {wait}" if event.retry_time_us else "not tried again"
    text = f"{event.node_id}: {telling.tasks((event.task,))}, attempt {event.attempt}: {telling.failure(event.failure)}"
    return heard.line("failed", text, event, details=(then,), tone=Tone.BAD)


def _lost(heard: Heard, event: ev.AttemptsLost) -> Line:
    text = f"{event.node_id}: {telling.tasks(event.tasks, event.attempts)} ({event.reason}), tried again elsewhere"
    return heard.line("lost", text, event, tone=Tone.WARNING)
