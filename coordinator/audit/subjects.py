"""What `explain` is asked about: a job, a task, a node or a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from hivefold.errors import InvalidRequestError, NotFoundError, Reason
from hivefold.ids import JobId, ModelName, NodeId, is_name, parse_model


class Kind(StrEnum):
    """The kinds of subject."""

    JOB = "job"
    TASK = "task"
    NODE = "node"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class JobSubject:
    """A job."""

    job_id: JobId

    def __str__(self) -> str:
        return self.job_id


@dataclass(frozen=True, slots=True)
class TaskSubject:
    """A task of a job, from 0."""

    job_id: JobId
    task: int

    def __str__(self) -> str:
        return f"{self.job_id}/{self.task}"


@dataclass(frozen=True, slots=True)
class NodeSubject:
    """A node."""

    node_id: NodeId

    def __str__(self) -> str:
        return self.node_id


@dataclass(frozen=True, slots=True)
class ModelSubject:
    """A model version; version 0 stands for all."""

    name: ModelName
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


Subject: TypeAlias = JobSubject | TaskSubject | NodeSubject | ModelSubject


def parse_subject(text: str, kind: Kind | None = None) -> tuple[Subject, ...]:
    """What a text may stand for: "job/7" is a task, "name@3" a model; a plain name may be job, node or model.

    Raises InvalidRequestError.
    """
    job, slash, task = text.partition("/")
    found: list[Subject] = []
    if slash:
        if is_name(job) and task.isdecimal():
            found.append(TaskSubject(JobId(job), int(task)))
    elif is_name(text):
        found += [JobSubject(JobId(text)), NodeSubject(NodeId(text))]
    if (model := parse_model(text)) is not None:
        found.append(ModelSubject(*model))
    found = [subject for subject in found if kind is None or kind_of(subject) is kind]
    if not found:
        raise InvalidRequestError(
            f"{text!r} names no {kind or 'job, task, node or model'}: give a job or node, job/7 for a task, name@3"
        )
    return tuple(found)


def kind_of(subject: Subject) -> Kind:
    """The kind of a subject."""
    match subject:
        case JobSubject():
            return Kind.JOB
        case TaskSubject():
            return Kind.TASK
        case NodeSubject():
            return Kind.NODE
        case ModelSubject():
            return Kind.MODEL


def not_found(text: str, kind: Kind | None) -> NotFoundError:
    """The error for a subject that the log does not name."""
    reason = {Kind.NODE: Reason.NODE_NOT_FOUND, Kind.MODEL: Reason.MODEL_NOT_FOUND}.get(
        kind or Kind.JOB, Reason.JOB_NOT_FOUND
    )
    what = kind or "job, task, node or model"
    return NotFoundError(
        f"no record of this log names a {what} {text!r}; what was refused leaves no record", reason=reason
    )
