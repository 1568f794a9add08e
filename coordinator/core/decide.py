"""decide(state, command) -> events or a refusal. Never raises for bad input. Pure."""

from __future__ import annotations

from typing import Final, assert_never

from coordinator.core import commands as cmd
from coordinator.core import decide_jobs, decide_models, decide_nodes, decide_outcomes, decide_placement
from coordinator.core import events as ev
from coordinator.core.decide_inference import record_inferences
from coordinator.core.decide_replicas import place_replicas
from coordinator.core.draft import Decision, Draft
from coordinator.core.model import Rejected, State
from hivefold.errors import Reason

__all__ = ["Decision", "decide"]

_MAKES_WORK_OR_ROOM: Final = (
    cmd.SubmitJob,
    cmd.ReportOutcomes,
    cmd.JoinNode,
    cmd.UndrainNode,
    cmd.LeaveNode,
    cmd.ReportSilence,
    cmd.CancelJob,
    cmd.ExpireJobs,
)
"""After these, tasks are placed in the same record: one append less on the way of every task."""

_CHANGES_NODES_OR_WISHES: Final = (
    cmd.JoinNode,
    cmd.LeaveNode,
    cmd.ReportSilence,
    cmd.ObserveNode,
    cmd.DrainNode,
    cmd.UndrainNode,
    cmd.SetResidency,
    cmd.RemoveModel,
    cmd.ReportReplica,
)
"""After these, replicas of models are placed and released in the same record."""


def decide(state: State, command: cmd.Command) -> Decision | Rejected:
    """Decides one command upon the state before it.

    Returns the events, to be recorded together at `state.sequence + 1`, with the state they lead to;
    no events when nothing is to be recorded (a repeat); or Rejected, which changes nothing.
    """
    if state.term and not state.coordinator_id and not isinstance(command.body, cmd.StartTerm):
        return Rejected(Reason.NOT_LEADER, f"term {state.term} has ended; ask the coordinator that leads now")
    draft = Draft(state, command.time_us)
    rejected = _decide(draft, command.body)
    if rejected is not None:
        return rejected
    if draft.changed and isinstance(command.body, _MAKES_WORK_OR_ROOM):
        decide_placement.place_tasks(draft)
    if draft.changed and isinstance(command.body, _CHANGES_NODES_OR_WISHES):
        place_replicas(draft)
    return draft.decision()


def _decide(draft: Draft, body: cmd.CommandBody) -> Rejected | None:
    match body:
        case cmd.ReportOutcomes():
            return decide_outcomes.report_outcomes(draft, body)
        case cmd.PlaceTasks():
            return decide_placement.place_tasks(draft)
        case cmd.SubmitJob():
            return decide_jobs.submit_job(draft, body)
        case cmd.CancelJob():
            return decide_jobs.cancel_job(draft, body)
        case cmd.EraseJob() | cmd.ConfirmKeysShredded():
            return decide_jobs.erase(draft, body)
        case cmd.ExpireJobs():
            return decide_jobs.expire_jobs(draft)
        case cmd.JoinNode():
            return decide_nodes.join_node(draft, body)
        case cmd.ObserveNode():
            return decide_nodes.observe_node(draft, body)
        case cmd.ReportSilence():
            return decide_nodes.report_silence(draft, body)
        case cmd.LeaveNode():
            return decide_nodes.leave_node(draft, body)
        case cmd.DrainNode():
            return decide_nodes.drain_node(draft, body)
        case cmd.UndrainNode():
            return decide_nodes.undrain_node(draft, body)
        case (
            cmd.RegisterModel()
            | cmd.MoveAlias()
            | cmd.SetResidency()
            | cmd.RemoveModel()
            | cmd.ReportReplica()
            | cmd.PlaceReplicas()
            | cmd.ConfirmArtifactRemoved()
        ):
            return decide_models.change_models(draft, body)
        case cmd.StartTerm() | cmd.EndTerm() | cmd.CloseSegment() | cmd.OpenSegment():
            return _change_term_or_segment(draft, body)
        case cmd.ChangeSigningKey() | cmd.RecordInferences():
            return _change_key_or_note(draft, body)
        case _:
            assert_never(body)


def _change_key_or_note(draft: Draft, body: cmd.ChangeSigningKey | cmd.RecordInferences) -> Rejected | None:
    if isinstance(body, cmd.ChangeSigningKey):
        return _change_signing_key(draft, body)
    record_inferences(draft, body)
    return None


def _change_signing_key(draft: Draft, body: cmd.ChangeSigningKey) -> Rejected | None:
    """Whether the endorsement is genuine is looked at where the key comes in; here, that it follows the last key."""
    keys = draft.state.signing_keys
    if keys and (keys[-1].key_id == body.key_id or (body.request_id and keys[-1].request_id == body.request_id)):
        return None
    active = keys[-1].key_id if keys else ""
    if body.previous_key_id != active or bool(body.endorsement) != bool(keys):
        return Rejected(
            Reason.PROOF_FAILED,
            f"key {body.key_id} would follow key {body.previous_key_id or 'none'}, and {active or 'no key'} signs now: "
            "another rotation was faster; see it with: hivefold log verify; then ask again",
            (("active", active),),
        )
    draft.emit(
        ev.SigningKeyChanged(body.key_id, body.public_key, body.previous_key_id, body.endorsement, body.request_id)
    )
    return None


def _change_term_or_segment(
    draft: Draft, body: cmd.StartTerm | cmd.EndTerm | cmd.CloseSegment | cmd.OpenSegment
) -> Rejected | None:
    match body:
        case cmd.EndTerm(note):
            draft.emit(ev.TermEnded(draft.state.term, note))
        case cmd.CloseSegment(segment):
            draft.emit(ev.SegmentClosed(segment))
        case cmd.OpenSegment(segment):
            draft.emit(ev.SegmentOpened(segment))
        case cmd.StartTerm():
            return _start_term(draft, body)
    return None


def _start_term(draft: Draft, body: cmd.StartTerm) -> Rejected | None:
    if not body.coordinator_id:
        return Rejected(Reason.INVALID_ARGUMENT, "a term needs the id of who leads: set the coordinator's id")
    draft.emit(ev.TermStarted(draft.state.term + 1, body.coordinator_id, body.code_version))
    return None
