"""Runs transcripts: `command`, `----`, then the events that it records and the actions that follow.

One command a line, several lines to a block; `#` begins a comment. Time moves by `wait` alone.

    node NAME [slots=2] [boot=b1] [zone=a] [gpus=0] [memory_gib=8]   the node joins
    observe NAME [loaded=yes|MODEL,...] [memory_gib=8] [cpu=0]                 its heartbeat says so
    silent NAME MS | leave NAME [gone=yes] | drain NAME | undrain NAME
    model NAME [DIGIT]                                               registers the next version
    probe JOB TASKS [options] | infer JOB ROWS [model=digits] [options]
          options: request= priority= zone= gpus= memory_gib= timeout_s= attempts=
    cancel JOB
    alias NAME ALIAS VERSION [expect=N] [request=R]                  version 0 removes it
    keep MODEL [replicas=N] [pinned=yes|no] [zone=a] [gpus=N] [request=R]
    broken NODE MODEL                                                the node could not load what it is to keep
    rm MODEL [force=yes] | discard                                   discard: what may go is gone
    place | expire | wait MS | term NAME
    ok NODE JOB TASK#ATTEMPT... | fail NODE JOB REASON TASK#ATTEMPT...   answers; a failure with ! is final
    empty NODE JOB TASK#ATTEMPT...                                   success without the output that is due
    owed                                                             what a restart would send and decide
    jobs                                                             where each job stands
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from coordinator.core import commands as cmd
from coordinator.core.decide import Decision, decide
from coordinator.core.invariants import violations
from coordinator.core.model import Failure, InferSpec, Needs, Pairs, Priority, ProbeSpec, Rejected, State
from coordinator.core.plan import follow_up, keeps_changed, owed_discards, plan
from hivefold import limits
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, JobId, ModelName, ModelRef, NodeId, RequestId
from tests import samples
from tests.scenarios.render import render_action, render_event, render_rejection


class Driver:
    """The core, a clock that stands still, and the world as the transcript tells it."""

    def __init__(self) -> None:
        self.state = State()
        self.now_us = samples.START_US
        self.decisions: list[tuple[cmd.Command, Decision]] = []

    def run(self, line: str) -> Iterator[str]:
        """The lines that one command gives."""
        verb, *words = line.split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        if verb == "wait":
            self.now_us += int(plain[0]) * 1000
        elif verb == "owed":
            yield from self.owed()
        elif verb == "jobs":
            yield from self.jobs()
        else:
            yield from self.decide(self.COMMANDS[verb](self, plain, named))

    def decide(self, body: cmd.CommandBody) -> Iterator[str]:
        command = cmd.Command(self.now_us, body)
        decided = decide(self.state, command)
        if isinstance(decided, Rejected):
            yield render_rejection(decided)
            return
        if not decided.events:
            yield "nothing"
            return
        self.state = decided.state
        self.decisions.append((command, decided))
        yield from (render_event(event) for event in decided.events)
        work, cancels = follow_up(decided.events, self.state)
        yield from (f"  -> {render_action(action)}" for action in work)
        yield from (f"  -> {render_action(action)}" for action in cancels)
        yield from (f"  -> {render_action(action)}" for action in keeps_changed(decided.events, self.state))
        yield from (f"BROKEN {problem}" for problem in violations(self.state))

    def owed(self) -> Iterator[str]:
        todo = plan(self.state, self.now_us)
        yield from (f"  -> {render_action(action)}" for action in todo.work)
        yield from (f"  -> {render_action(action)}" for action in todo.cancels)
        yield from (f"  -> {render_action(action)}" for action in todo.keeps)
        yield from (f"  due {type(body).__name__}" for body in todo.commands)
        if not (todo.work or todo.cancels or todo.keeps or todo.commands):
            yield "  nothing"

    def jobs(self) -> Iterator[str]:
        for job_id, job in sorted(self.state.jobs.items()):
            failure = f": {job.failure.reason}" if job.failure else ""
            yield f"  {job_id} {job.state}{failure}, {len(job.done)} of {job.planned} tasks done"

    def node(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        return cmd.JoinNode(
            samples.node_spec(
                plain[0],
                boot=named.get("boot", "b1"),
                slots=int(named.get("slots", "2")),
                labels=zone(named),
                gpus=int(named.get("gpus", "0")),
                memory_bytes=gib(named, 8),
            )
        )

    def observe(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        models = [name for name in named.get("loaded", "").split(",") if name]
        digests = {self.state.models[ModelRef(name)].digest if "@" in name else samples.DIGEST for name in models}
        loaded = tuple(sorted(digests))
        node_id = NodeId(plain[0])
        return cmd.ObserveNode(node_id, self.boot(node_id), loaded, gib(named, 8), int(named.get("cpu", "0")))

    def silent(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        node_id = NodeId(plain[0])
        thresholds = (limits.SUSPECT_AFTER_MS, limits.LOST_AFTER_MS)
        return cmd.ReportSilence(node_id, self.boot(node_id), int(plain[1]), *thresholds)

    def leave(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        node_id = NodeId(plain[0])
        return cmd.LeaveNode(node_id, self.boot(node_id), "gone" in named)

    def drain(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        return cmd.DrainNode(NodeId(plain[0]), "repair")

    def undrain(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        return cmd.UndrainNode(NodeId(plain[0]))

    def model(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        digest = Digest(plain[1] * 64) if len(plain) > 1 else samples.DIGEST
        return cmd.RegisterModel(samples.model(plain[0], digest=digest))

    def alias(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        expected = int(named["expect"]) if "expect" in named else None
        name, alias, version = plain
        return cmd.MoveAlias(ModelName(name), alias, int(version), expected, "", self.request(named))

    def keep(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        replicas = int(named["replicas"]) if "replicas" in named else None
        pinned = named["pinned"] == "yes" if "pinned" in named else None
        needs = Needs(zone(named), gib(named, 0), int(named.get("gpus", "0")))
        given = needs if {"zone", "gpus", "memory_gib"} & set(named) else None
        return cmd.SetResidency(plain[0], replicas, pinned, given, self.request(named))

    def broken(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        node_id = NodeId(plain[0])
        digest = self.state.models[ModelRef(plain[1])].digest
        failure = Failure(Reason.OUT_OF_MEMORY, "no memory for it")
        return cmd.ReportReplica(node_id, self.boot(node_id), digest, failure)

    def rm(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        return cmd.RemoveModel(plain[0], "force" in named, "", self.request(named))

    def discard(self, _: list[str], __: dict[str, str]) -> cmd.CommandBody:
        return cmd.ConfirmArtifactRemoved(next(iter(owed_discards(self.state)), Digest("")))

    def request(self, named: dict[str, str]) -> RequestId:
        """The id that is given, or a new one."""
        return RequestId(named.get("request", f"r{len(self.decisions)}"))

    def probe(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        return submit(plain[0], ProbeSpec(int(plain[1])), named)

    def infer(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        return submit(plain[0], samples.infer(int(plain[1]), model_name=named.get("model", "digits")), named)

    def cancel(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        return cmd.CancelJob(JobId(plain[0]), "no longer needed")

    def erase(self, plain: list[str], named: dict[str, str]) -> cmd.CommandBody:
        root = samples.infer(1).data_set.content.root if "input" in named else ""
        return cmd.EraseJob(JobId(plain[0]), (f"j.{plain[0]}",), root, "past" in named)

    def shredded(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        return cmd.ConfirmKeysShredded(tuple(map(JobId, plain)))

    def place(self, _: list[str], __: dict[str, str]) -> cmd.CommandBody:
        return cmd.PlaceTasks()

    def expire(self, _: list[str], __: dict[str, str]) -> cmd.CommandBody:
        return cmd.ExpireJobs()

    def term(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        return cmd.StartTerm(plain[0], "0.1.0")

    def end(self, _: list[str], __: dict[str, str]) -> cmd.CommandBody:
        return cmd.EndTerm("planned")

    def ok(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        node, job, *tasks = plain
        return samples.answers(NodeId(node), self.state.jobs[JobId(job)], numbered(tasks))

    def empty(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        node, job, *tasks = plain
        indexes, numbers = zip(*numbered(tasks), strict=True)
        each = len(indexes)
        ones = (1,) * each
        return cmd.ReportOutcomes(NodeId(node), (cmd.OutcomeColumns(JobId(job), indexes, numbers, ones, ones, ones),))

    def fail(self, plain: list[str], _: dict[str, str]) -> cmd.CommandBody:
        node, job, reason, *tasks = plain
        failure = Failure(Reason(reason.rstrip("!")), "it did not work", retryable=not reason.endswith("!"))
        return samples.answers(NodeId(node), self.state.jobs[JobId(job)], numbered(tasks), failure=failure)

    def boot(self, node_id: NodeId) -> BootId:
        known = self.state.nodes.get(node_id)
        return known.spec.boot_id if known else BootId("b1")

    COMMANDS: ClassVar[dict[str, Callable[[Driver, list[str], dict[str, str]], cmd.CommandBody]]] = {
        verb.__name__: verb
        for verb in (
            *(node, observe, silent, leave, drain, undrain, model),
            *(alias, keep, broken, rm, discard),
            *(probe, infer, cancel, erase, shredded, place, expire, term, end, ok, empty, fail),
        )
    }


def submit(job: str, kind: ProbeSpec | InferSpec, named: dict[str, str]) -> cmd.SubmitJob:
    """A submit with the options of the transcript."""
    return samples.submit(
        job,
        kind,
        request=named.get("request", ""),
        priority=Priority(named.get("priority", "batch").upper()),
        needs=Needs(zone(named), gib(named, 0), int(named.get("gpus", "0"))),
        timeout_us=int(named.get("timeout_s", "0")) * 1_000_000,
        max_attempts=int(named.get("attempts", "0")),
    )


def zone(named: dict[str, str]) -> Pairs:
    return (("zone", named["zone"]),) if "zone" in named else ()


def gib(named: dict[str, str], otherwise: int) -> int:
    return int(named.get("memory_gib", otherwise)) * samples.GIB


def numbered(tasks: list[str]) -> list[tuple[int, int]]:
    """["3#1"] as [(3, 1)]; "0-2#1" stands for three tasks."""
    found = []
    for text in tasks:
        span, number = text.split("#")
        first, _, last = span.partition("-")
        found += [(task, int(number)) for task in range(int(first), int(last or first) + 1)]
    return found
