"""Jobs, nodes, models and records as people and programs see them."""

from __future__ import annotations

import io
import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType

from cli.output import Shown, show_many, show_one
from cli.views import jobs, models, nodes, records
from hivefold.v1 import (
    command_pb2,
    error_pb2,
    event_pb2,
    feed_pb2,
    fleet_pb2,
    job_pb2,
    model_pb2,
    record_pb2,
    telemetry_pb2,
)

NOON = Timestamp(seconds=1_700_000_000, nanos=123_000_000)
LATER = Timestamp(seconds=1_700_000_010, nanos=123_000_000)
DIGITS = model_pb2.Model(
    name="digits",
    version=3,
    digest="ab" * 32,
    platform="onnx",
    inputs=[model_pb2.TensorSpec(name="x", data_type=model_pb2.DATA_TYPE_FP32, shape=[-1, 64])],
    outputs=[model_pb2.TensorSpec(name="label", data_type=model_pb2.DATA_TYPE_INT64, shape=[-1])],
    create_time=NOON,
)
JOB = job_pb2.Job(
    job_id="j-1",
    request_id="r-1",
    spec=job_pb2.JobSpec(
        infer=job_pb2.InferSpec(
            model="digits",
            data_set=job_pb2.DataSet(
                row_count=200_000, row_shape=[64], data_type=model_pb2.DATA_TYPE_FP32, origin="[rows].npy"
            ),
        ),
        labels={"team": "a"},
        priority=job_pb2.PRIORITY_BATCH,
    ),
    state=job_pb2.JOB_STATE_SUCCEEDED,
    create_time=NOON,
    end_time=LATER,
    progress=job_pb2.JobProgress(
        tasks_planned=20, tasks_succeeded=20, rows_done=200_000, rows_total=200_000, attempts_lost=2
    ),
    model=DIGITS,
    outputs=[model_pb2.TensorSpec(name="label", data_type=model_pb2.DATA_TYPE_INT64)],
)
NODE = fleet_pb2.Node(
    spec=fleet_pb2.NodeSpec(node_id="node-1", slot_count=2, grpc_address="127.0.0.1:7401", host_name="here", pid=7),
    state=fleet_pb2.NODE_STATE_ONLINE,
    tasks_succeeded=1_234,
    reading=telemetry_pb2.Reading(
        cpu_utilization_ratio=0.42,
        memory_available_bytes=2**31,
        gpus=[telemetry_pb2.GpuReading(product="H200", utilization_ratio=0.9, memory_used_bytes=2**30)],
    ),
)


def printed(view: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=1000).print(view)
    return out.getvalue()


def test_a_job_is_told_in_one_line() -> None:
    """The list names what people look for; text of users is never taken for markup."""
    line = printed(jobs.jobs_table([JOB])).splitlines()[1].split()

    assert line[:5] == ["j-1", "infer", "digits@3", "succeeded", "100"]


def test_all_about_a_job() -> None:
    """Model, input, output, counts and rate of a finished job."""
    text = printed(jobs.job_facts(JOB))

    for part in (
        "200,000 rows of FP32[64], stored in the fleet, from [rows].npy",
        "label INT64[]",
        "20 planned, 20 succeeded, 2 attempts lost",
        "20,000 rows/s",
        "team=a",
        "2023-11-14 22:13:20Z",
    ):
        assert part in text


def test_a_failure_is_told_with_its_reason() -> None:
    """A failed job says why in the first lines."""
    failed = job_pb2.Job(
        job_id="j-2",
        spec=job_pb2.JobSpec(probe=job_pb2.ProbeSpec(task_count=10)),
        state=job_pb2.JOB_STATE_FAILED,
        failure=error_pb2.Failure(reason=error_pb2.REASON_NAN_FOUND, message="row 7 holds NaN"),
    )

    assert "NAN_FOUND: row 7 holds NaN" in printed(jobs.job_facts(failed))
    assert "10 tasks" in printed(jobs.jobs_table([failed]))


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ([4], "task 4"),
        ([0, 1, 2, 7], "4 tasks (0-2, 7)"),
        (list(range(0, 40, 2)), "20 tasks (0, 2, 4, 6, 8, 10, 12, 14, ...)"),
    ],
)
def test_many_tasks_stay_one_line(tasks: list[int], text: str) -> None:
    """Runs of tasks are abbreviated."""
    event = feed_pb2.JobEvent(
        sequence=9, event_time=NOON, type=feed_pb2.JOB_EVENT_TYPE_TASKS_SUCCEEDED, tasks=tasks, node_id="node-1"
    )

    assert jobs.event_line(event).split("  ")[0] == "22:13:20.123"
    assert f"{text}  on node-1" in jobs.event_line(event)


def test_a_node_is_told_with_what_it_measured() -> None:
    """List and details show state, load, memory and GPUs."""
    line = printed(nodes.nodes_table([NODE]))
    for part in ("node-1", "online", "42 %", "2.0 GiB", "H200 90 %", "1,234"):
        assert part in line

    assert "here (process 7)" in printed(nodes.node_facts(NODE))


def test_a_draining_node_says_so() -> None:
    """Draining is beside the state, for it can be both."""
    assert nodes.state(fleet_pb2.Node(state=fleet_pb2.NODE_STATE_ONLINE, draining=True)) == "online, draining"


def test_a_model_is_told_with_its_tensors() -> None:
    """Open dimensions are shown as question marks."""
    for view in (models.models_table([DIGITS]), models.model_facts(DIGITS)):
        assert "x FP32[?, 64]" in printed(view)
        assert "label INT64[?]" in printed(view)


def test_a_record_is_told_in_one_line() -> None:
    """Position, time, term, cause and each event with what it is about."""
    record = record_pb2.Record(
        sequence=5,
        term=2,
        record_time=NOON,
        cause=command_pb2.Command(place_tasks=command_pb2.PlaceTasks()),
        events=[
            event_pb2.Event(tasks_assigned=event_pb2.TasksAssigned(job_id="j-1", node_id="node-1", tasks=[1, 2])),
            event_pb2.Event(node_joined=event_pb2.NodeJoined(spec=NODE.spec)),
            event_pb2.Event(model_registered=event_pb2.ModelRegistered(model=DIGITS)),
        ],
    )
    stored = record_pb2.StoredRecord(
        sequence=5, subject="log.placement", data=record.SerializeToString(), hash=b"\x01" * 32
    )

    assert " ".join(records.line(stored).split()) == (
        "5 22:13:20.123 t2 PlaceTasks TasksAssigned j-1 node-1 2 tasks, NodeJoined node-1, ModelRegistered digits@3"
    )
    assert records.plain(stored)["hash"] == "01" * 32
    assert records.plain(stored)["term"] == "2"


def test_json_follows_protobufs_mapping_with_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Names in camel case, 64-bit numbers as texts, enums by name, zeros and empty lists included."""
    show_one(Shown("json"), JOB, lambda: "")

    told = json.loads(capsys.readouterr().out)
    assert (told["jobId"], told["state"], told["sequence"]) == ("j-1", "JOB_STATE_SUCCEEDED", "0")
    assert told["progress"]["rowsDone"] == "200000"


def test_lists_are_one_document_or_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """json gives an object with the list in it, jsonl an object a line."""
    show_many(Shown("json"), "nodes", [NODE, NODE], lambda: "")
    assert len(json.loads(capsys.readouterr().out)["nodes"]) == 2

    show_many(Shown("jsonl"), "nodes", [NODE, NODE], lambda: "")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["spec"]["nodeId"] for line in lines] == ["node-1", "node-1"]


def test_text_for_a_program_is_neither_cut_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard output is no terminal, lines are as long as they have to be and plain."""
    show_many(Shown("text"), "jobs", [JOB], lambda: jobs.jobs_table([JOB]))

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2
