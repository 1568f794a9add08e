"""Decisions upon what nodes say they inferred. Pure."""

from __future__ import annotations

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core.draft import Draft
from coordinator.core.inference import InferenceBatch


def record_inferences(draft: Draft, body: cmd.RecordInferences) -> None:
    """Records batches by their position; what is recorded already, or out of order, is passed over."""
    fresh: list[InferenceBatch] = []
    position = draft.state.inference_position
    for batch in body.batches:
        if batch.position > position:
            position = batch.position
            fresh.append(batch)
    if fresh:
        draft.emit(ev.InferencesRecorded(tuple(fresh)))
