"""The one home of Hypothesis strategies: values, events and commands of the core."""

from __future__ import annotations

from hypothesis import strategies as st

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.core import model_events as mev
from coordinator.core.inference import InferenceBatch, InferenceWindow
from coordinator.core.model import (
    BlobRef,
    DataSet,
    Failure,
    Gpu,
    InferSpec,
    JobSpec,
    Model,
    NanPolicy,
    Needs,
    NodeSpec,
    Pairs,
    Priority,
    ProbeSpec,
    TaskOutput,
    TensorPart,
    TensorSpec,
)
from coordinator.core.registered import Provenance
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, JobId, ModelName, ModelRef, NodeId, RequestId, model_ref

U32 = 2**32 - 1
U63 = 2**63 - 1
TIME_MAX_US = 4_000_000_000_000_000
DURATION_MAX_US = 10**15
"""Ranges of the contract's number types and of times that protobuf's Timestamp can hold."""
DATA_TYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
)

texts = st.text(st.characters(codec="utf-8"), max_size=12)
octets = st.binary(max_size=12)
counts = st.integers(0, 100)
u32 = st.integers(0, U32)
u63 = st.integers(0, U63)
times_us = st.integers(0, TIME_MAX_US)
durations_us = st.integers(0, DURATION_MAX_US)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True)
node_ids = names.map(NodeId)
boot_ids = names.map(BootId)
job_ids = names.map(JobId)
model_names = names.map(ModelName)
aliases = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
request_ids = st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True).map(RequestId)
model_refs = st.builds(model_ref, names.map(ModelName), st.integers(1, 999_999_999))
reasons = st.sampled_from([reason for reason in Reason if reason is not Reason.UNSPECIFIED])


def _pairs(pairs: dict[str, str]) -> Pairs:
    return tuple(sorted(pairs.items()))


labels = st.dictionaries(texts, texts, max_size=3).map(_pairs)

failures = st.builds(Failure, reasons, texts, st.booleans(), labels)
blobs = st.builds(BlobRef, digests, u63)
shapes = st.lists(st.integers(-1, 1000), max_size=4).map(tuple)
sizes = st.lists(st.integers(0, 1000), max_size=4).map(tuple)
tensor_specs = st.builds(TensorSpec, texts, st.sampled_from(DATA_TYPES), shapes)
tensor_parts = st.builds(TensorPart, texts, st.sampled_from(DATA_TYPES), sizes)
outputs = st.builds(TaskOutput, st.lists(tensor_parts, max_size=2).map(tuple), st.none() | blobs, digests, u63)
gpus = st.builds(Gpu, texts, u63)
models = st.builds(
    Model,
    name=names.map(ModelName),
    version=u32,
    digest=digests,
    artifact=blobs,
    platform=st.just("onnx"),
    inputs=st.lists(tensor_specs, max_size=2).map(tuple),
    outputs=st.lists(tensor_specs, max_size=2).map(tuple),
    create_time_us=times_us,
    labels=labels,
    provenance=st.none() | st.builds(Provenance, texts, texts, texts, texts),
)
data_sets = st.builds(
    DataSet,
    content=blobs,
    path=st.just("") | names.map(lambda name: f"/data/{name}.npy"),
    data_type=st.sampled_from(DATA_TYPES),
    row_shape=sizes,
    row_count=u63,
    data_offset_bytes=u63,
    origin=texts,
)
infer_specs = st.builds(
    InferSpec,
    model=model_refs,
    data_set=data_sets,
    outputs=st.lists(texts, max_size=2).map(tuple),
    nan_policy=st.sampled_from(NanPolicy),
    target_task_us=durations_us,
    batch_rows=u32,
)
probe_specs = st.builds(ProbeSpec, u32, durations_us)
needs = st.builds(Needs, labels, u63, u32)
job_specs = st.builds(
    JobSpec,
    kind=infer_specs | probe_specs,
    source=texts,
    priority=st.sampled_from(Priority),
    labels=labels,
    response_subject=texts,
    timeout_us=durations_us,
    needs=needs,
    max_attempts=u32,
)
node_specs = st.builds(
    NodeSpec,
    node_id=node_ids,
    boot_id=boot_ids,
    slot_count=u32,
    labels=labels,
    cpu_count=u32,
    memory_bytes=u63,
    gpus=st.lists(gpus, max_size=2).map(tuple),
    grpc_address=texts,
    code_version=texts,
    host_name=texts,
    pid=u32,
)
loaded_models = st.lists(digests, max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
node_ranks = st.builds(ev.NodeRank, node_ids, st.booleans(), u32, u32, u63)
node_refusals = st.builds(ev.NodeRefusal, node_ids, st.sampled_from(ev.RefusalReason), texts)
placement_reasons = st.builds(
    ev.PlacementReason, st.lists(node_ranks, max_size=2).map(tuple), st.lists(node_refusals, max_size=2).map(tuple)
)

some_nodes = st.lists(node_ids, max_size=3).map(tuple)


@st.composite
def columns(draw: st.DrawFn, *kinds: st.SearchStrategy[int]) -> list[tuple[int, ...]]:
    """Tuples of equal length, one for each strategy: entries that belong together."""
    size = draw(st.integers(0, 4))
    return [tuple(draw(st.lists(kind, min_size=size, max_size=size))) for kind in kinds]


@st.composite
def tasks_assigned(draw: st.DrawFn) -> ev.TasksAssigned:
    tasks, attempts = draw(columns(u63, u32))
    return ev.TasksAssigned(draw(job_ids), draw(node_ids), draw(boot_ids), tasks, attempts, draw(placement_reasons))


@st.composite
def tasks_succeeded(draw: st.DrawFn) -> ev.TasksSucceeded:
    tasks, attempts, durations, rows, positions = draw(columns(u63, u32, u63, u63, u63))
    given = draw(st.just([]) | st.lists(outputs, min_size=len(tasks), max_size=len(tasks)))
    return ev.TasksSucceeded(draw(job_ids), draw(node_ids), tasks, attempts, durations, rows, positions, tuple(given))


@st.composite
def attempts_lost(draw: st.DrawFn) -> ev.AttemptsLost:
    tasks, attempts = draw(columns(u63, u32))
    reason = draw(st.sampled_from([Reason.NODE_LOST, Reason.RETURNED]))
    return ev.AttemptsLost(draw(job_ids), draw(node_ids), tasks, attempts, reason)


inference_windows = st.builds(
    InferenceWindow,
    model_refs,
    digests,
    times_us,
    u63,
    u63,
    u63,
    st.lists(st.tuples(st.sampled_from(Reason), u63), max_size=2).map(tuple),
    st.lists(st.tuples(u32, u63), max_size=3).map(tuple),
    st.lists(st.tuples(u32, u63), max_size=3).map(tuple),
    st.booleans(),
    u63,
)
inference_batches = st.lists(
    st.builds(
        InferenceBatch,
        node_ids,
        boot_ids,
        u63,
        u63,
        digests,
        u63,
        u63,
        st.lists(inference_windows, max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)
events: st.SearchStrategy[ev.Event] = st.one_of(
    st.builds(ev.TermStarted, u63, texts, texts),
    st.builds(ev.SigningKeyChanged, texts, octets, texts, octets, request_ids),
    st.builds(ev.TermEnded, u63, texts),
    st.builds(ev.SegmentClosed, u63),
    st.builds(ev.SegmentOpened, u63),
    st.builds(ev.ModelRegistered, models),
    st.builds(ev.NodeJoined, node_specs),
    st.builds(ev.NodeObserved, node_ids, loaded_models, u63, u32),
    st.builds(ev.NodeSuspected, node_ids, u63),
    st.builds(ev.NodeRecovered, node_ids),
    st.builds(ev.NodeLost, node_ids, boot_ids, u63),
    st.builds(ev.NodeLeaveStarted, node_ids, boot_ids),
    st.builds(ev.NodeLeft, node_ids, boot_ids),
    st.builds(ev.NodeDrainStarted, node_ids, texts),
    st.builds(ev.NodeDrainEnded, node_ids),
    st.builds(ev.JobSubmitted, job_ids, request_ids, job_specs, st.just(ModelRef("")) | model_refs, times_us, texts),
    st.builds(ev.TasksPlanned, job_ids, u63, u63, st.lists(u63, max_size=4).map(tuple), st.booleans()),
    tasks_assigned(),
    tasks_succeeded(),
    st.builds(ev.AttemptFailed, job_ids, u63, u32, node_ids, failures, times_us),
    attempts_lost(),
    st.builds(ev.JobSucceeded, job_ids),
    st.builds(ev.JobFailed, job_ids, failures),
    st.builds(ev.JobCancelled, job_ids, texts),
    st.builds(ev.JobErased, job_ids, st.lists(texts, max_size=3).map(tuple)),
    st.builds(ev.KeysShredded, st.lists(job_ids, max_size=3).map(tuple)),
    st.builds(ev.InferencesRecorded, inference_batches),
    st.builds(mev.AliasMoved, model_names, aliases, u32, u32, texts, request_ids),
    st.builds(mev.AliasRemoved, model_names, aliases, u32, texts, request_ids),
    st.builds(mev.ResidencySet, model_refs, u32, st.booleans(), needs, request_ids),
    st.builds(mev.ReplicasPlaced, model_refs, some_nodes, placement_reasons),
    st.builds(mev.ReplicasReleased, model_refs, some_nodes, st.sampled_from(mev.ReleaseCause)),
    st.builds(mev.ReplicaFailed, model_refs, node_ids, boot_ids, failures),
    st.builds(mev.ModelRemoved, model_refs, st.booleans(), texts, request_ids),
    st.builds(mev.ArtifactRemoved, digests),
)
"""Any event that the log can hold, whether or not it makes sense after another."""


@st.composite
def outcome_columns(draw: st.DrawFn) -> cmd.OutcomeColumns:
    return cmd.OutcomeColumns(draw(job_ids), *draw(columns(u63, u32, u63, u63, u63)))


outcome_reports = st.builds(
    cmd.OutcomeReport, job_ids, u63, u32, u63, u63, u63, st.none() | failures, st.none() | outputs
)
command_bodies: st.SearchStrategy[cmd.CommandBody] = st.one_of(
    st.builds(cmd.StartTerm, texts, texts),
    st.builds(cmd.ChangeSigningKey, texts, octets, texts, octets, request_ids),
    st.builds(cmd.EndTerm, texts),
    st.builds(cmd.CloseSegment, u63),
    st.builds(cmd.OpenSegment, u63),
    st.builds(cmd.RegisterModel, models),
    st.builds(cmd.SubmitJob, job_ids, request_ids, job_specs, texts),
    st.builds(cmd.CancelJob, job_ids, texts),
    st.builds(cmd.EraseJob, job_ids, st.lists(texts, max_size=3).map(tuple), texts, st.booleans()),
    st.builds(cmd.ConfirmKeysShredded, st.lists(job_ids, max_size=3).map(tuple)),
    st.builds(cmd.JoinNode, node_specs),
    st.builds(cmd.ObserveNode, node_ids, boot_ids, loaded_models, u63, u32),
    st.builds(cmd.ReportSilence, node_ids, boot_ids, u63, u63, u63),
    st.builds(cmd.LeaveNode, node_ids, boot_ids, st.booleans()),
    st.builds(cmd.DrainNode, node_ids, texts),
    st.builds(cmd.UndrainNode, node_ids),
    st.builds(
        cmd.ReportOutcomes,
        node_ids,
        st.lists(outcome_columns(), max_size=2).map(tuple),
        st.lists(outcome_reports, max_size=2).map(tuple),
    ),
    st.builds(cmd.RecordInferences, inference_batches),
    st.just(cmd.PlaceTasks()),
    st.just(cmd.ExpireJobs()),
    st.builds(cmd.MoveAlias, model_names, aliases, u32, st.none() | u32, texts, request_ids),
    st.builds(cmd.SetResidency, model_refs, st.none() | u32, st.none() | st.booleans(), st.none() | needs, request_ids),
    st.builds(cmd.RemoveModel, model_refs | names, st.booleans(), texts, request_ids),
    st.builds(cmd.ReportReplica, node_ids, boot_ids, digests, failures),
    st.just(cmd.PlaceReplicas()),
    st.builds(cmd.ConfirmArtifactRemoved, digests),
)
"""Any command that the contract can carry, sensible or not."""
commands = st.builds(cmd.Command, times_us, command_bodies)
