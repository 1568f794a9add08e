"""What the results stream holds, as commands."""

from __future__ import annotations

import pytest

from coordinator.core.commands import OutcomeColumns
from coordinator.intake import commands, read_outcome
from hivefold.bus.port import ResultMessage
from hivefold.errors import Reason
from hivefold.v1 import error_pb2, work_pb2


def outcome(task: int, node: str = "n1") -> work_pb2.Outcome:
    message = work_pb2.Outcome(job_id="j", task=task, attempt=1, node_id=node, row_count=1)
    message.duration.nanos = 5000
    return message


def stored(sequence: int, task: int, data: bytes, node: str = "n1") -> ResultMessage:
    return ResultMessage(sequence, f"results.{node}.j.{task}.1", data)


def test_plain_successes_of_a_node_become_one_column() -> None:
    """The hot path: numbers side by side, in order."""
    batch = [stored(7 + task, task, outcome(task).SerializeToString()) for task in range(3)]

    [(command, _)] = commands(batch)

    assert command.node_id == "n1"
    assert command.columns == (
        OutcomeColumns(command.columns[0].job_id, (0, 1, 2), (1, 1, 1), (5, 5, 5), (1, 1, 1), (7, 8, 9)),
    )
    assert not command.reports


def test_outcomes_of_two_nodes_become_two_commands() -> None:
    """A command speaks for one node."""
    batch = [stored(1, 0, outcome(0).SerializeToString()), stored(2, 1, outcome(1, "n2").SerializeToString(), "n2")]

    assert [command.node_id for command, _ in commands(batch)] == ["n1", "n2"]


@pytest.mark.parametrize("data", [b"\xff\xff", outcome(5).SerializeToString(), outcome(0, "n2").SerializeToString()])
def test_a_spoiled_outcome_fails_the_attempt_whose_place_it_took(data: bytes) -> None:
    """Garbage, another task, another node: the attempt fails and may be tried again."""
    read = read_outcome(stored(1, 0, data))

    assert read is not None
    assert (read.node_id, read.job_id, read.task, read.attempt) == ("n1", "j", 0, 1)
    assert read.failure.retryable


@pytest.mark.parametrize("subject", ["results.n1.j.x.1", "results.n1", "results.n1.j.1.1.1"])
def test_a_subject_that_names_no_attempt_is_passed_over(subject: str) -> None:
    """Nothing waits for it."""
    assert read_outcome(ResultMessage(1, subject, b"")) is None


def test_a_failure_is_cut_to_what_a_record_can_hold() -> None:
    """A node's words are bounded, their reason kept."""
    long = outcome(0)
    long.failure.CopyFrom(error_pb2.Failure(reason=error_pb2.REASON_NAN_FOUND, message="x" * 10_000))

    [(command, _)] = commands([stored(1, 0, long.SerializeToString())])

    failure = command.reports[0].failure
    assert failure is not None
    assert failure.reason is Reason.NAN_FOUND
    assert len(failure.message) < 1000
