"""What `top` shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from cli.top import Glance, headline, plain, screen, silent
from hivefold.v1 import fleet_pb2, job_pb2, log_service_pb2


def glance(time_ms: int = 1000, done: int = 0, jobs: int = 0) -> Glance:
    node = fleet_pb2.Node(
        spec=fleet_pb2.NodeSpec(node_id="node-1", slot_count=2),
        state=fleet_pb2.NODE_STATE_ONLINE,
        attempts_outstanding=3,
        tasks_succeeded=done,
    )
    suspected = fleet_pb2.Node(spec=fleet_pb2.NodeSpec(node_id="node-2"), state=fleet_pb2.NODE_STATE_SUSPECTED)
    running = [job_pb2.Job(job_id=f"j-{index}", state=job_pb2.JOB_STATE_RUNNING) for index in range(jobs)]
    head = log_service_pb2.GetHeadResponse(sequence=41, term=2, durability="fsync-always")
    return Glance(time_ms, head, [node, suspected], running)


def printed(view: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(view)
    return out.getvalue()


def test_the_headline_sums_the_fleet_up() -> None:
    """Nodes, attempts, log, durability; a rate needs two looks."""
    first = headline(None, glance())
    for part in ("1 of 2 nodes online", "3 attempts on 2 slots", "record 41, term 2", "fsync-always"):
        assert part in first
    assert "tasks/s" not in first

    assert "50 tasks/s" in headline(glance(1000, done=10), glance(3000, done=110))


def test_a_count_that_fell_is_no_negative_rate() -> None:
    """A node that left takes its count with it."""
    assert "0.0 tasks/s" in headline(glance(1000, done=10), glance(2000, done=0))


@pytest.mark.parametrize(("jobs", "text"), [(0, "no jobs yet"), (3, "j-2")])
def test_nodes_and_jobs_are_listed(jobs: int, text: str) -> None:
    """Both tables are there; a fleet without jobs says so."""
    shown = printed(screen(None, glance(jobs=jobs)))

    assert "node-2" in shown
    assert text in shown


def test_a_silent_coordinator_is_told_with_what_was_known() -> None:
    """The screen says how old it is."""
    shown = printed(silent(glance()))

    assert "has not answered for" in shown
    assert "node-1" in shown


def test_programs_get_everything() -> None:
    """Head, nodes and jobs in protobuf's mapping."""
    assert set(plain(glance())) == {"head", "nodes", "jobs"}
