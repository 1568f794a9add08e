"""The story of test_partitions, told inside a network namespace: `python -m tests.integration.partitions DIR`.

Two coordinators and two nodes, each on a machine of its own, and a NATS server in the middle. Prints what it
found as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from coordinator.core.events import NodeLost, TasksSucceeded
from coordinator.replay import Replayer
from hivefold.log.file import LogFileReader
from tests.integration.daemons import FSYNC_ALWAYS, nats
from tests.integration.fleets import environment
from tests.integration.namespaces import Machine, run

PORT = 7400
WAIT_S = 60
"""A start of Python on a loaded machine takes seconds."""
COORDINATORS = ("c1", "c2")
TASKS = 60


class Fleet:
    """Who runs where, and the command line on each machine."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self.machines = {name: Machine(number) for number, name in enumerate((*COORDINATORS, "n1", "n2"), 1)}
        for machine in self.machines.values():
            stack.callback(machine.end)
        run("ip", "link", "set", "lo", "up")
        url, self._monitor = stack.enter_context(nats(directory / "nats", FSYNC_ALWAYS, host="0.0.0.0"))
        self._server_port = url.rpartition(":")[2]
        for name in self.machines:
            self._start(name, stack)

    def _start(self, name: str, stack: ExitStack) -> None:
        machine = self.machines[name]
        kind = "coordinator" if name in COORDINATORS else "node"
        command = (sys.executable, "-c", "from cli.main import main; main()", kind, "run", "--id", name)
        server = ("--nats-servers", f"nats://{machine.near}:{self._server_port}")
        places = ("--port", str(PORT), "--data-dir", str(self._directory / name))
        durable = ("--durability", "unknown") if kind == "coordinator" else ("--slots", "2")
        shared = {"HIVEFOLD_COORDINATOR_KEY_FILE": str(self._directory / "signing.key")}
        with (self._directory / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                machine.inside(*command, *server, *places, *durable), stdout=log, stderr=log, env=environment(**shared)
            )
        stack.callback(process.wait)
        stack.callback(process.kill)

    def ask(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """One command, given on that machine to the coordinator there."""
        command = (sys.executable, "-c", "from cli.main import main; main()", *arguments)
        return subprocess.run(
            self.machines[name].inside(*command),
            capture_output=True,
            text=True,
            timeout=90,
            env=environment(HIVEFOLD_ADDRESS=f"127.0.0.1:{PORT}"),
            check=False,
        )

    def submit(self, request: str, *, among: tuple[str, ...] = COORDINATORS) -> tuple[str, str]:
        """Submits a job wherever it is taken; the coordinator that took it, and the job."""
        until = time.monotonic() + WAIT_S
        said = ""
        while time.monotonic() < until:
            for name in among:
                options = ("--tasks", str(TASKS), "--task-duration", "0.05", "--request-id", request)
                done = self.ask(name, "job", "submit", "probe", *options)
                if done.returncode == 0:
                    return name, done.stdout.strip()
                said = done.stderr
        raise AssertionError(f"nobody took {request}: {said}")

    def ended(self, name: str, job_id: str) -> Any:
        """The job once it has ended, as that coordinator says."""
        done = self.ask(name, "job", "wait", job_id, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def tell(directory: Path) -> dict[str, Any]:
    """Cuts one after the other, and says what became of the work."""
    with ExitStack() as stack:
        fleet = Fleet(directory, stack)
        leader, first = fleet.submit("before")
        other = next(name for name in COORDINATORS if name != leader)

        fleet.machines[leader].cut()
        successor, second = fleet.submit("leader-cut", among=(other,))
        refused = fleet.ask(leader, "job", "submit", "probe", "--request-id", "on-the-wrong-side")
        fleet.machines[leader].heal()

        fleet.machines["n1"].deafen()
        _, third = fleet.submit("node-deaf", among=(other,))
        deaf = fleet.ended(other, third)
        fleet.machines["n1"].heal()

        fleet.machines["n2"].silence()
        _, fourth = fleet.submit("node-mute", among=(other,))
        mute = fleet.ended(other, fourth)
        fleet.machines["n2"].heal()

        fleet.machines[other].slow_down()
        taken_by, fifth = fleet.submit("leader-slow")
        jobs = [fleet.ended(taken_by, job) for job in (first, second, third, fourth, fifth)]
        exported = fleet.ask(leader, "log", "export", directory / "log.hfl")
        assert exported.returncode == 0, exported.stderr
        replayed = fleet.ask(taken_by, "log", "replay", "-o", "json")
        assert replayed.returncode == 0, replayed.stderr
        return {
            "leader": leader,
            "successor": successor,
            "refused": refused.returncode,
            "states": sorted({job["state"] for job in (*jobs, deaf, mute)}),
            "equal": json.loads(replayed.stdout)["equal"],
            **_in_log(directory / "log.hfl"),
        }


def _in_log(path: Path) -> dict[str, Any]:
    """How often tasks succeeded, and which nodes were given up."""
    successes, lost, requests = Counter[tuple[str, int]](), set[str](), Counter[str]()
    replayer = Replayer()
    with LogFileReader(path) as file:
        for stored in file.records():
            record, _ = replayer.step(stored)
            for event in record.events:
                if isinstance(event, TasksSucceeded):
                    successes.update((event.job_id, task) for task in event.tasks)
                if isinstance(event, NodeLost):
                    lost.add(event.node_id)
                requests.update([event.request_id] if hasattr(event, "request_id") else [])
    return {
        "tasks": len(successes),
        "twice": sum(count > 1 for count in (*successes.values(), *requests.values())),
        "lost": sorted(lost),
        "requests": sorted(requests),
    }


if __name__ == "__main__":
    print(json.dumps(tell(Path(sys.argv[1]))))
