"""Explains one subject from the log: a pass over all records that keeps only what concerns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.audit import telling
from coordinator.audit.fleet_tellers import ModelTeller, NodeTeller
from coordinator.audit.heard import Heard
from coordinator.audit.job_tellers import JobTeller, TaskTeller
from coordinator.audit.story import Story
from coordinator.audit.subjects import JobSubject, ModelSubject, NodeSubject, Subject, TaskSubject, kind_of, not_found
from coordinator.wire.events import event_from_proto
from coordinator.wire.times import micros
from hivefold.errors import InvalidRequestError, LogCorruptError
from hivefold.log.chain import record_hash
from hivefold.log.port import TERM_SUBJECT, ReadableLog, Stored
from hivefold.v1.record_pb2 import Record


class Teller(Protocol):
    """Collects what the log says of one subject."""

    def wants(self, data: bytes) -> bool:
        """Whether a record with these bytes may concern the subject: cheap, and never wrongly no."""
        ...

    def take(self, heard: Heard) -> None:
        """One record that was wanted, or that starts a term."""
        ...

    def story(self) -> Story | None:
        """The story; None when the log does not name the subject."""
        ...


def teller_of(subject: Subject, limit: int) -> Teller:
    """What collects a subject's story, with at most `limit` lines."""
    match subject:
        case JobSubject(job_id):
            return JobTeller(job_id, limit)
        case TaskSubject(job_id, task):
            return TaskTeller(job_id, task, limit)
        case NodeSubject(node_id):
            return NodeTeller(node_id, limit)
        case ModelSubject(name, version):
            return ModelTeller(name, version, limit)


@dataclass(slots=True)
class Links:
    """Follows the chain from the first record that is given; what comes before that is taken on trust."""

    _sequence: int = 0
    _hash: bytes = b""

    def take(self, stored: Stored) -> Record:
        """The next record. Raises LogCorruptError when it does not follow from the one before."""
        record = Record.FromString(stored.data)
        position = self._sequence + 1 if self._sequence else stored.sequence
        follows = not self._sequence or record.previous_hash == self._hash
        if stored.sequence != position or record.sequence != position or not follows:
            raise LogCorruptError(
                f"record {position} does not follow from record {position - 1}: one of them was altered",
                position=position,
            )
        self._sequence = position
        self._hash = record_hash(position, stored.subject, stored.data)
        return record


class Explainer:
    """Takes records in order, from any position on; tells the story of each subject in the end."""

    def __init__(self, subjects: Sequence[Subject], limit: int) -> None:
        self._tellers = [teller_of(subject, limit) for subject in subjects]
        self._links = Links()

    def take(self, page: Sequence[Stored]) -> None:
        """The next records. Raises LogCorruptError when one does not follow from the one before."""
        for stored in page:
            message = self._links.take(stored)
            wanting = [
                teller for teller in self._tellers if stored.subject == TERM_SUBJECT or teller.wants(stored.data)
            ]
            if not wanting:
                continue
            events = [event_from_proto(event, stored.sequence) for event in message.events]
            heard = Heard(
                stored.sequence,
                message.term,
                micros(message.record_time),
                telling.cause(message.cause),
                tuple(event for event in events if event is not None),
            )
            for teller in wanting:
                teller.take(heard)

    def stories(self) -> tuple[Story, ...]:
        """The stories of those subjects that the log names."""
        return tuple(story for teller in self._tellers if (story := teller.story()) is not None)


async def explain(
    log: ReadableLog,
    subjects: Sequence[Subject],
    *,
    up_to: int,
    after: int = 0,
    limit: int,
    progress: Callable[[int], None] | None = None,
) -> Story:
    """The story of the one subject of several that the log names, with at most `limit` lines.

    Raises NotFoundError when it names none, InvalidRequestError when it names several, LogCorruptError.
    """
    explainer = Explainer(subjects, limit)
    async for page in log.read(after=after, up_to=up_to):
        explainer.take(page)
        if progress is not None:
            progress(page[-1].sequence)
    stories = explainer.stories()
    if not stories:
        kinds = [kind_of(subject) for subject in subjects]
        raise not_found(str(subjects[0]), kinds[0] if len(kinds) == 1 else None)
    if len(stories) > 1:
        named = " and a ".join(story.kind for story in stories)
        raise InvalidRequestError(f"{subjects[0]} is a {named}: say which with --kind")
    return stories[0]
