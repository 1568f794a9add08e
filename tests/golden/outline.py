"""What a state says, whatever its classes look like in a later release."""

from __future__ import annotations

from typing import Any

from coordinator.core.model import State


def outline(state: State) -> dict[str, Any]:
    """Jobs, nodes and models in plain values: what an operator would say of them."""
    return {
        "term": state.term,
        "models": sorted(state.models),
        "nodes": {node_id: node.state.value for node_id, node in sorted(state.nodes.items())},
        "jobs": {
            job_id: {
                "state": job.state.value,
                "failure": job.failure.reason.value if job.failure else None,
                "tasks": job.planned,
                "done": {str(task): [done.number, done.node_id] for task, done in sorted(job.done.items())},
                "running": {str(task): [a.number, a.node_id] for task, a in sorted(job.running.items())},
                "attempts_failed": job.attempts_failed,
                "attempts_lost": job.attempts_lost,
            }
            for job_id, job in sorted(state.jobs.items())
        },
    }
