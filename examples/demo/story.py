"""The demo, step by step."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coordinator.replay import Replayer
from examples.demo.fleet import DemoError, Fleet
from examples.demo.ledger import Ledger, read
from examples.demo.screen import Bar, Screen
from examples.demo.summary import THE_JOB, Findings
from examples.digits import load, make_rows, train
from examples.digits.training import export
from hivefold.client import Fleet as Client
from hivefold.client import InferOptions, connect
from hivefold.errors import UnavailableError
from hivefold.log.port import Stored
from hivefold.v1.feed_pb2 import JOB_EVENT_TYPE_TASKS_ASSIGNED, JOB_EVENT_TYPE_TASKS_SUCCEEDED
from hivefold.v1.job_pb2 import JOB_STATE_CANCELLED, JOB_STATE_FAILED
from hivefold.v1.record_pb2 import StoredRecord

NODES = 3
KILL_NODE_AT = 0.2
KILL_COORDINATOR_AT = 0.5
TASK_S = 0.05
"""Short tasks: more to see."""
JOB_S = 120.0


@dataclass
class Kills:
    """What was killed, and when: shares are of the job's rows."""

    node: str = ""
    node_share: float = 0.0
    coordinator_share: float = 0.0
    coordinator_away_s: float = 0.0


async def tell(screen: Screen, directory: Path, rows: int) -> Findings:
    """Plays the whole demo on a fleet of its own. Raises DemoError, HivefoldError."""
    fleet = Fleet(directory, NODES)
    data = directory / "data"
    try:
        fleet.start()
        data.mkdir()
        with screen.step("training a digits classifier with scikit-learn", "train the model") as step:
            trained = await asyncio.to_thread(train, load())
            export(trained, data / "digits.onnx")
            step.result = f"trained a digits classifier: {trained.held_out_accuracy:.1%} of the held-out digits"
        with screen.step(f"making {rows:,} rows from the held-out digits", "make rows") as step:
            await asyncio.to_thread(make_rows, rows, 1, data / "rows.npy", data / "labels.npy")
            megabytes = (data / "rows.npy").stat().st_size / 1e6
            step.result = f"made {rows:,} rows of held-out digits, moved and noisy ({megabytes:.0f} MB)"
        with screen.step("waiting for the fleet", "wait for the fleet") as step:
            await asyncio.to_thread(fleet.wait_until_ready)
            step.result = f"a fleet runs: nats-server, a coordinator, {NODES} nodes"
        async with connect(directory=directory) as client:
            return await _work(screen, fleet, client, rows)
    finally:
        await asyncio.to_thread(fleet.stop)


async def _work(screen: Screen, fleet: Fleet, client: Client, rows: int) -> Findings:
    data = fleet.directory / "data"
    with screen.step("registering the model", "register the model") as step:
        model = await client.models.add(data / "digits.onnx", "digits")
        step.result = f"registered {model.name}@{model.version}, {model.digest[:16]}"
    with screen.step("submitting the job", "submit the job") as step:
        options = InferOptions(by_reference=True, target_task_s=TASK_S)
        job = await client.jobs.submit_infer(f"{model.name}@{model.version}", data / "rows.npy", infer=options)
        step.result = f"submitted {job.job_id}"
    kills = Kills()
    with screen.job(f"{NODES} nodes work on {rows:,} rows", THE_JOB, rows) as bar:
        async with asyncio.timeout(JOB_S):
            await _follow(fleet, client, job.job_id, bar, kills)
    with screen.step("fetching the output", "fetch the output") as step:
        await client.jobs.download_output(job.job_id, data / "output.npz")
        accuracy = await asyncio.to_thread(_accuracy, data)
        step.result = f"fetched the output, rows in input order: {accuracy:.2%} right"
    with screen.step("reading the log from record 1", "replay the log") as step:
        ledger, live, replayed, seconds = await _replay(client, job.job_id)
        step.result = f"replayed {ledger.records:,} records from zero: {'the same state' if live == replayed else live}"
    return Findings(
        ledger=ledger,
        accuracy=accuracy,
        live_digest=live,
        replayed_digest=replayed,
        replay_s=seconds,
        killed_node=kills.node,
        killed_node_share=kills.node_share,
        killed_coordinator_share=kills.coordinator_share,
        coordinator_away_s=kills.coordinator_away_s,
        directory=fleet.directory,
        steps=screen.steps,
    )


async def _follow(fleet: Fleet, client: Client, job_id: str, bar: Bar, kills: Kills) -> None:
    """Follows the job to its end; kills a node with work on it, later the coordinator, and starts that again."""
    with_nodes: Counter[str] = Counter()
    async for event in client.jobs.watch(job_id):
        fleet.check()
        progress = event.job.progress
        bar.advance_to(progress.rows_done)
        share = progress.rows_done / max(progress.rows_total, 1)
        if event.job.state in {JOB_STATE_FAILED, JOB_STATE_CANCELLED}:
            raise DemoError(f"the job did not succeed: {event.job.failure.message}")
        if event.type in {JOB_EVENT_TYPE_TASKS_ASSIGNED, JOB_EVENT_TYPE_TASKS_SUCCEEDED}:
            given = event.type == JOB_EVENT_TYPE_TASKS_ASSIGNED
            with_nodes[event.node_id] += len(event.tasks) if given else -len(event.tasks)
        if not kills.node and share >= KILL_NODE_AT:
            # The node with the most work: that goes down with it.
            kills.node, kills.node_share = with_nodes.most_common(1)[0][0], share
            pid = await asyncio.to_thread(fleet.kill, kills.node)
            bar.say(f"[red]✗ {kills.node} killed[/] at {share:.0%} [dim](kill -9 {pid})[/]")
        elif kills.node and not kills.coordinator_share and share >= KILL_COORDINATOR_AT:
            kills.coordinator_share = share
            pid = await asyncio.to_thread(fleet.kill, "coordinator")
            bar.say(f"[red]✗ the coordinator killed[/] at {share:.0%} [dim](kill -9 {pid})[/]")
            kills.coordinator_away_s = await _lead_again(fleet, client)
            bar.say(f"[green]✓ a coordinator leads again[/] after {kills.coordinator_away_s:.1f} s, from the log")
    if not kills.coordinator_share:
        raise DemoError("the job was over before both kills: give more --rows")


async def _lead_again(fleet: Fleet, client: Client) -> float:
    """Starts a coordinator; how long it took until it answered, in seconds."""
    began = time.monotonic()
    await asyncio.sleep(1.0)  # long enough for the nodes to work on without one
    fleet.start_coordinator()
    while True:
        fleet.check()
        try:
            await client.log.head()
            return time.monotonic() - began
        except UnavailableError:
            await asyncio.sleep(0.05)


def _accuracy(data: Path) -> float:
    with np.load(data / "output.npz") as output:
        labels = np.load(data / "labels.npy")
        if output["label"].shape != labels.shape:
            raise DemoError(f"the output has {len(output['label'])} rows, the input {len(labels)}")
        return float(np.mean(output["label"] == labels))


async def _replay(client: Client, job_id: str) -> tuple[Ledger, str, str, float]:
    """What the log says of the job, the live state's digest, the replayed one's at the same position, seconds."""
    head = await client.log.head(with_state_digest=True)
    stored: list[StoredRecord] = [record async for record in client.log.read(up_to=head.sequence)]
    began = time.monotonic()
    replayer = Replayer()
    replayer.feed([Stored(record.sequence, record.subject, record.data) for record in stored])
    replayed = replayer.result().digest()
    seconds = time.monotonic() - began
    return read(job_id, stored), head.state_digest, replayed, seconds
