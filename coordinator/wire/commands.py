"""Commands to and from protobuf: the cause in each record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from coordinator.core import commands as cmd
from coordinator.wire import values as v
from coordinator.wire.inference import summary_from_proto, summary_to_proto
from coordinator.wire.model_commands import READERS as MODEL_READERS
from coordinator.wire.model_commands import ModelCommand, model_command_to_proto
from coordinator.wire.times import micros, timestamp
from hivefold.errors import LogCorruptError
from hivefold.ids import BootId, Digest, JobId, NodeId, RequestId
from hivefold.v1 import command_pb2 as pb


def command_to_proto(command: cmd.Command) -> pb.Command:
    """One command."""
    message = pb.Command(command_time=timestamp(command.time_us))
    body = command.body
    match body:
        case cmd.ReportOutcomes():
            message.report_outcomes.CopyFrom(_outcomes_to_proto(body))
        case cmd.RecordInferences(batches):
            message.record_inferences.batches.extend(map(summary_to_proto, batches))
        case cmd.PlaceTasks():
            message.place_tasks.SetInParent()
        case cmd.ExpireJobs():
            message.expire_jobs.SetInParent()
        case cmd.SubmitJob():
            message.submit_job.CopyFrom(
                pb.SubmitJob(
                    job_id=body.job_id,
                    request_id=body.request_id,
                    spec=v.job_spec_to_proto(body.spec),
                    traceparent=body.traceparent,
                )
            )
        case cmd.CancelJob(job_id, note):
            message.cancel_job.CopyFrom(pb.CancelJob(job_id=job_id, note=note))
        case cmd.EraseJob(job_id, key_ids, root, past):
            message.erase_job.CopyFrom(pb.EraseJob(job_id=job_id, key_ids=key_ids, input_root=root, past=past))
        case cmd.ConfirmKeysShredded(job_ids):
            message.confirm_keys_shredded.job_ids.extend(job_ids)
        case cmd.StartTerm(coordinator_id, version):
            message.start_term.CopyFrom(pb.StartTerm(coordinator_id=coordinator_id, code_version=version))
        case cmd.ChangeSigningKey():
            message.change_signing_key.CopyFrom(
                pb.ChangeSigningKey(
                    key_id=body.key_id,
                    public_key=body.public_key,
                    previous_key_id=body.previous_key_id,
                    endorsement=body.endorsement,
                    request_id=body.request_id,
                )
            )
        case cmd.CloseSegment(segment):
            message.close_segment.CopyFrom(pb.CloseSegment(segment=segment))
        case cmd.OpenSegment(segment):
            message.open_segment.CopyFrom(pb.OpenSegment(segment=segment))
        case cmd.EndTerm(note):
            message.end_term.CopyFrom(pb.EndTerm(note=note))
        case _:
            if isinstance(body, ModelCommand):
                model_command_to_proto(message, body)
            else:
                _node_command_to_proto(message, body)
    return message


def _node_command_to_proto(
    message: pb.Command,
    body: cmd.JoinNode | cmd.ObserveNode | cmd.ReportSilence | cmd.LeaveNode | cmd.DrainNode | cmd.UndrainNode,
) -> None:
    match body:
        case cmd.JoinNode(spec):
            message.join_node.CopyFrom(pb.JoinNode(spec=v.node_spec_to_proto(spec)))
        case cmd.ObserveNode():
            message.observe_node.CopyFrom(
                pb.ObserveNode(
                    node_id=body.node_id,
                    boot_id=body.boot_id,
                    loaded_models=body.loaded_models,
                    memory_available_bytes=body.memory_available_bytes,
                    cpu_utilization_percent=body.cpu_utilization_percent,
                )
            )
        case cmd.ReportSilence():
            message.report_silence.CopyFrom(
                pb.ReportSilence(
                    node_id=body.node_id,
                    boot_id=body.boot_id,
                    silent_ms=body.silent_ms,
                    suspect_after_ms=body.suspect_after_ms,
                    lost_after_ms=body.lost_after_ms,
                )
            )
        case cmd.LeaveNode(node_id, boot_id, gone):
            message.leave_node.CopyFrom(pb.LeaveNode(node_id=node_id, boot_id=boot_id, gone=gone))
        case cmd.DrainNode(node_id, note):
            message.drain_node.CopyFrom(pb.DrainNode(node_id=node_id, note=note))
        case cmd.UndrainNode(node_id):
            message.undrain_node.CopyFrom(pb.UndrainNode(node_id=node_id))
        case _:
            assert_never(body)


def command_from_proto(message: pb.Command, position: int) -> cmd.Command:
    """One command. Raises LogCorruptError with `position` for a body that this version does not know."""
    body = message.WhichOneof("body")
    read = _READERS.get(body) if body is not None else None
    if read is None:
        raise LogCorruptError(
            f"record {position} has a cause that this version does not know; upgrade hivefold", position=position
        )
    return cmd.Command(micros(message.command_time), read(message))


def _outcomes_to_proto(body: cmd.ReportOutcomes) -> pb.ReportOutcomes:
    return pb.ReportOutcomes(
        node_id=body.node_id,
        columns=[
            pb.OutcomeColumns(
                job_id=columns.job_id,
                tasks=columns.tasks,
                attempts=columns.attempts,
                durations_us=columns.durations_us,
                row_counts=columns.row_counts,
                result_sequences=columns.result_sequences,
            )
            for columns in body.columns
        ],
        reports=[
            pb.OutcomeReport(
                job_id=report.job_id,
                task=report.task,
                attempt=report.attempt,
                duration_us=report.duration_us,
                row_count=report.row_count,
                result_sequence=report.result_sequence,
                failure=v.failure_to_proto(report.failure) if report.failure else None,
                output=v.output_to_proto(report.output) if report.output else None,
            )
            for report in body.reports
        ],
    )


def _outcomes(message: pb.Command) -> cmd.CommandBody:
    body = message.report_outcomes
    columns = tuple(
        cmd.OutcomeColumns(
            JobId(c.job_id),
            tuple(c.tasks),
            tuple(c.attempts),
            tuple(c.durations_us),
            tuple(c.row_counts),
            tuple(c.result_sequences),
        )
        for c in body.columns
    )
    reports = tuple(
        cmd.OutcomeReport(
            JobId(r.job_id),
            r.task,
            r.attempt,
            r.duration_us,
            r.row_count,
            r.result_sequence,
            v.failure_from_proto(r.failure) if r.HasField("failure") else None,
            v.output_from_proto(r.output) if r.HasField("output") else None,
        )
        for r in body.reports
    )
    return cmd.ReportOutcomes(NodeId(body.node_id), columns, reports)


def _submit_job(message: pb.Command) -> cmd.CommandBody:
    body = message.submit_job
    spec = v.job_spec_from_proto(body.spec)
    return cmd.SubmitJob(JobId(body.job_id), RequestId(body.request_id), spec, body.traceparent)


def _observe_node(message: pb.Command) -> cmd.CommandBody:
    body = message.observe_node
    return cmd.ObserveNode(
        NodeId(body.node_id),
        BootId(body.boot_id),
        tuple(Digest(digest) for digest in body.loaded_models),
        body.memory_available_bytes,
        body.cpu_utilization_percent,
    )


def _report_silence(message: pb.Command) -> cmd.CommandBody:
    body = message.report_silence
    return cmd.ReportSilence(
        NodeId(body.node_id),
        BootId(body.boot_id),
        body.silent_ms,
        body.suspect_after_ms,
        body.lost_after_ms,
    )


def _erase_job(body: pb.EraseJob) -> cmd.EraseJob:
    return cmd.EraseJob(JobId(body.job_id), tuple(body.key_ids), body.input_root, body.past)


_READERS: Final[dict[str, Callable[[pb.Command], cmd.CommandBody]]] = {
    "report_outcomes": _outcomes,
    "record_inferences": lambda c: cmd.RecordInferences(tuple(map(summary_from_proto, c.record_inferences.batches))),
    "place_tasks": lambda _: cmd.PlaceTasks(),
    "expire_jobs": lambda _: cmd.ExpireJobs(),
    "submit_job": _submit_job,
    "erase_job": lambda c: _erase_job(c.erase_job),
    "confirm_keys_shredded": lambda c: cmd.ConfirmKeysShredded(tuple(map(JobId, c.confirm_keys_shredded.job_ids))),
    "cancel_job": lambda c: cmd.CancelJob(JobId(c.cancel_job.job_id), c.cancel_job.note),
    "start_term": lambda c: cmd.StartTerm(c.start_term.coordinator_id, c.start_term.code_version),
    "change_signing_key": lambda c: cmd.ChangeSigningKey(
        c.change_signing_key.key_id,
        c.change_signing_key.public_key,
        c.change_signing_key.previous_key_id,
        c.change_signing_key.endorsement,
        RequestId(c.change_signing_key.request_id),
    ),
    "close_segment": lambda c: cmd.CloseSegment(c.close_segment.segment),
    "open_segment": lambda c: cmd.OpenSegment(c.open_segment.segment),
    "end_term": lambda c: cmd.EndTerm(c.end_term.note),
    "join_node": lambda c: cmd.JoinNode(v.node_spec_from_proto(c.join_node.spec)),
    "observe_node": _observe_node,
    "report_silence": _report_silence,
    "leave_node": lambda c: cmd.LeaveNode(
        NodeId(c.leave_node.node_id), BootId(c.leave_node.boot_id), c.leave_node.gone
    ),
    "drain_node": lambda c: cmd.DrainNode(NodeId(c.drain_node.node_id), c.drain_node.note),
    "undrain_node": lambda c: cmd.UndrainNode(NodeId(c.undrain_node.node_id)),
    **MODEL_READERS,
}
