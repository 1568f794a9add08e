"""Stories of nodes and models."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.audit import telling
from coordinator.audit.heard import Heard
from coordinator.audit.inference_runs import Runs
from coordinator.audit.model_telling import model_change
from coordinator.audit.story import Line, Lines, Shares, Story, Tone
from coordinator.audit.subjects import Kind, ModelSubject
from coordinator.core import events as ev
from coordinator.core import model_events as mev
from coordinator.core.inference import InferenceBatch
from coordinator.core.model import Model
from hivefold.ids import Digest, JobId, ModelName, ModelRef, NodeId

_WorkEvent = ev.TasksAssigned | ev.TasksSucceeded | ev.AttemptFailed | ev.AttemptsLost


def _share(shares: Shares, name: str, event: _WorkEvent) -> None:
    """Counts work in."""
    work = shares.of(name)
    match event:
        case ev.TasksAssigned():
            work.assigned += len(event.tasks)
        case ev.TasksSucceeded():
            work.finish(event.durations_us, sum(event.row_counts))
        case ev.AttemptFailed():
            work.failed += 1
        case ev.AttemptsLost():
            work.lost += len(event.tasks)


class NodeTeller:
    """The story of a node: joins and boots, suspicion and loss, drains, and its work by job."""

    def __init__(self, node_id: NodeId, limit: int) -> None:
        self._node_id = node_id
        self._needle = node_id.encode()
        self._lines = Lines(limit)
        self._jobs = Shares(limit)
        self._state = ""
        self._spec = ""
        self._loaded: tuple[Digest, ...] = ()
        self._boots = self._observations = 0

    def wants(self, data: bytes) -> bool:
        """Whether the bytes hold the node's id."""
        return self._needle in data

    def take(self, heard: Heard) -> None:
        """One record."""
        for event in heard.events:
            match event:
                case ev.NodeJoined(spec) if spec.node_id == self._node_id:
                    self._state, self._spec, self._loaded = "online", telling.node_text(spec), ()
                    self._boots += 1
                    self._lines.add(heard.line("joined", self._spec, event, tone=Tone.GOOD))
                case ev.TasksAssigned() | ev.TasksSucceeded() | ev.AttemptFailed() | ev.AttemptsLost():
                    if event.node_id == self._node_id:
                        _share(self._jobs, event.job_id, event)
                        self._note_trouble(heard, event)
                case _:
                    if isinstance(event, ev.NodeChange) and event.node_id == self._node_id:
                        self._change(heard, event)

    def story(self) -> Story | None:
        """The story, if the log names the node."""
        if not self._state:
            return None
        facts = (
            ("state", self._state),
            ("node", self._spec),
            ("boots", str(self._boots)),
            ("heartbeats recorded", str(self._observations)),
        )
        return Story(Kind.NODE, self._node_id, facts, tuple(self._lines), self._lines.omitted, self._jobs.sorted())

    def _note_trouble(self, heard: Heard, event: _WorkEvent) -> None:
        """Failures and losses are told one by one; what goes well is only counted."""
        if isinstance(event, ev.AttemptFailed):
            text = f"job {event.job_id} {telling.tasks((event.task,))}: {telling.failure(event.failure)}"
            self._lines.add(heard.line("failed", text, event, tone=Tone.BAD))
        elif isinstance(event, ev.AttemptsLost):
            text = f"job {event.job_id} {telling.tasks(event.tasks)} ({event.reason})"
            self._lines.add(heard.line("lost work", text, event, tone=Tone.WARNING))

    def _change(self, heard: Heard, event: ev.NodeChange) -> None:
        match event:
            case ev.NodeObserved():
                self._observations += 1
                if event.loaded_models != self._loaded:
                    self._loaded = event.loaded_models
                    models = telling.joined(map(telling.short, event.loaded_models)) or "none"
                    self._add(heard, event, "", "models loaded", models)
            case ev.NodeSuspected():
                self._add(heard, event, "suspected", "suspected", _silent(event.silent_ms), tone=Tone.WARNING)
            case ev.NodeRecovered():
                self._add(heard, event, "online", "heard again", "", tone=Tone.GOOD)
            case ev.NodeLost():
                text = _silent(event.silent_ms) if event.silent_ms else "replaced by a new boot"
                self._add(heard, event, "lost", "given up", f"{text}, boot {event.boot_id}", tone=Tone.BAD)
            case ev.NodeLeaveStarted():
                self._add(heard, event, "leaving", "leaves", "finishes what runs, gets no new work")
            case ev.NodeLeft():
                self._add(heard, event, "left", "left", f"boot {event.boot_id}")
            case ev.NodeDrainStarted():
                self._add(heard, event, "", "drained", event.note or "by request", tone=Tone.WARNING)
            case ev.NodeDrainEnded():
                self._add(heard, event, "", "undrained", "gets work again", tone=Tone.GOOD)

    def _add(
        self, heard: Heard, event: ev.NodeChange, state: str, title: str, text: str, *, tone: Tone = Tone.PLAIN
    ) -> None:
        self._state = state or self._state or "unknown"
        self._lines.add(heard.line(title, text, event, tone=tone))


def _silent(silent_ms: int) -> str:
    return f"silent for {telling.span(silent_ms * 1000)}"


class ModelTeller:
    """The story of a model, one version or all: registration, jobs that used it, nodes where it ran."""

    def __init__(self, name: ModelName, version: int, limit: int) -> None:
        self._subject = ModelSubject(name, version)
        self._lines = Lines(limit)
        self._nodes = Shares(limit)
        self._models: dict[ModelRef, Model] = {}
        self._open: dict[JobId, str] = {}
        """Jobs that use it and have not ended."""
        self._loaded: set[tuple[NodeId, ModelRef]] = set()
        self._runs = Runs()
        self._jobs = 0

    def wants(self, data: bytes) -> bool:
        """Anything may concern one of its jobs; before it is registered, only what names it."""
        return bool(self._models) or self._subject.name.encode() in data

    def take(self, heard: Heard) -> None:
        """One record."""
        for event in heard.events:
            match event:
                case ev.ModelRegistered(model) if model.name == self._subject.name:
                    if self._subject.version in {0, model.version}:
                        self._models[model.ref] = model
                        details = (f"sha256 {model.digest}", f"stored as {model.artifact.root}")
                        text = telling.model_text(model)
                        self._tell(heard.line("registered", text, event, details=details, tone=Tone.GOOD))
                case ev.JobSubmitted() if event.model in self._models:
                    self._jobs += 1
                    self._open[event.job_id] = event.model
                    text = f"job {event.job_id}: {telling.asked(event.spec, event.model)}"
                    self._tell(heard.line("used", text, event))
                case ev.TasksAssigned() | ev.TasksSucceeded() | ev.AttemptFailed() | ev.AttemptsLost():
                    if event.job_id in self._open:
                        _share(self._nodes, event.node_id, event)
                case ev.NodeObserved():
                    self._note_loaded(heard, event)
                case ev.InferencesRecorded(batches):
                    self._note_inference(heard, batches)
                case ev.JobSucceeded() | ev.JobFailed() | ev.JobCancelled() if event.job_id in self._open:
                    del self._open[event.job_id]
                    self._tell(_ended(heard, event))
                case _ if isinstance(event, mev.ModelChange):
                    self._change(heard, event)
                case _:
                    pass

    def story(self) -> Story | None:
        """The story, if the log names the model."""
        if not self._models:
            return None
        for line in self._runs.end():
            self._lines.add(line)
        versions = sorted(self._models.values(), key=lambda model: model.version)
        facts = (
            *((model.ref, f"sha256 {model.digest}") for model in versions),
            ("jobs", f"{self._jobs:,} used it, {len(self._open):,} of them have not ended"),
            *((("requests", f"{self._runs.requests:,} recorded"),) if self._runs.requests else ()),
        )
        return Story(
            Kind.MODEL, str(self._subject), facts, tuple(self._lines), self._lines.omitted, self._nodes.sorted()
        )

    def _tell(self, line: Line) -> None:
        """Adds a line, after those of what was inferred before it."""
        for run in self._runs.end():
            self._lines.add(run)
        self._lines.add(line)

    def _note_inference(self, heard: Heard, batches: Sequence[InferenceBatch]) -> None:
        for batch in batches:
            for window in batch.windows:
                if window.model in self._models:
                    for line in self._runs.add(heard, batch.node_id, window):
                        self._lines.add(line)

    def _change(self, heard: Heard, event: mev.ModelChange) -> None:
        told = model_change(event)
        if told is not None and self._subject in {told.subject, ModelSubject(told.subject.name, 0)}:
            self._tell(heard.line(told.title, told.text, event))

    def _note_loaded(self, heard: Heard, event: ev.NodeObserved) -> None:
        for ref, model in self._models.items():
            if model.digest in event.loaded_models and (event.node_id, ref) not in self._loaded:
                self._loaded.add((event.node_id, ref))
                self._tell(heard.line("loaded", f"{ref} on {event.node_id}", event))


def _ended(heard: Heard, event: ev.JobSucceeded | ev.JobFailed | ev.JobCancelled) -> Line:
    if isinstance(event, ev.JobFailed):
        return heard.line("failed", f"job {event.job_id}: {telling.failure(event.failure)}", event, tone=Tone.BAD)
    if isinstance(event, ev.JobCancelled):
        return heard.line("cancelled", f"job {event.job_id}: {event.note or 'by request'}", event, tone=Tone.WARNING)
    return heard.line("succeeded", f"job {event.job_id}", event, tone=Tone.GOOD)
