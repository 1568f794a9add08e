"""Clients and operators: they ask until they have an answer, and the checker hears of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from coordinator.core.commands import (
    CancelJob,
    CommandBody,
    DrainNode,
    MoveAlias,
    RegisterModel,
    RemoveModel,
    SetResidency,
    SubmitJob,
    UndrainNode,
)
from coordinator.core.model import JobSpec, Priority, ProbeSpec
from hivefold.ids import JobId, NodeId, RequestId, alias_ref
from tests.simulation.checker import Checker
from tests.simulation.coordinators import Group
from tests.simulation.models import NAMES, VERSIONS, Fixtures
from tests.simulation.registry import NEEDS
from tests.simulation.scenario import Act


class People:
    """All who call the coordinator."""

    def __init__(self, group: Group, checker: Checker, fixtures: Fixtures, note: Callable[[str], None]) -> None:
        self._group = group
        self._checker = checker
        self._fixtures = fixtures
        self._note = note
        self._specs: dict[int, JobSpec] = {}
        self._changes: dict[int, CommandBody] = {}

    async def do(self, act: Act, draw: random.Random, node_ids: Sequence[str]) -> None:
        """One act, until it is answered."""
        request_id = RequestId(f"r{act.request}")
        match act.name:
            case "submit":
                await self._submit(act, draw, request_id)
            case "repeat":  # as from a client that forgot its answer
                spec = self._specs.get(act.request)
                if spec is not None:
                    await self._insist(draw, SubmitJob(JobId(f"k-{request_id}"), request_id, spec))
            case "reuse":
                if act.request in self._specs:
                    await self._insist(draw, SubmitJob(JobId(f"o-{request_id}"), request_id, JobSpec(ProbeSpec(99))))
            case "cancel":
                job_id = self._checker.acknowledged_jobs.get(request_id)
                if job_id is not None:
                    await self._insist(draw, CancelJob(JobId(job_id)))
            case "drain":
                node_id = NodeId(draw.choice(node_ids))
                await self._insist(draw, DrainNode(node_id))
                await asyncio.sleep(draw.expovariate(0.2))
                await self._insist(draw, UndrainNode(node_id))
            case "register":
                await self._register(draw)
            case "move alias" | "keep" | "remove model":
                body = self._changes[act.request] = self._drawn_change(act, draw)
                await self._insist(draw, body)
            case "change again":
                if act.request in self._changes:
                    await self._insist(draw, self._changes[act.request])
            case "rotate":
                await self._rotate(RequestId(f"key-{act.number}"), draw)
            case other:
                raise AssertionError(f"nobody does {other}")

    async def _rotate(self, request_id: RequestId, draw: random.Random) -> None:
        while (key := await self._group.rotate(request_id, draw)) is None:
            await asyncio.sleep(draw.uniform(0.05, 1.0))
        if key not in self._checker.state.signing_keys:
            self._checker.fail(f"signing key {key.key_id} was acknowledged and is not in the log")

    async def _register(self, draw: random.Random) -> None:
        """Adds a file as the next version of a model, as often as it takes."""
        name, content = draw.choice(NAMES), draw.choice(VERSIONS)
        while (answer := await self._group.register(name, content, draw)) is None:
            await asyncio.sleep(draw.uniform(0.05, 1.0))
        self._note(f"{name} of {content} -> {type(answer).__name__} {getattr(answer, 'sequence', '')}")

    def _drawn_change(self, act: Act, draw: random.Random) -> CommandBody:
        """What somebody wants who looked at the registry, or did not."""
        state, request_id = self._checker.state, RequestId(f"change-{act.request}")
        name, alias = draw.choice(NAMES), draw.choice(["prod", "prod", "prod", "canary"])
        there = sorted(model.version for model in state.models.values() if model.name == name)
        version = draw.choice(there) if there and draw.random() < 0.8 else draw.randint(0, 3)
        if act.name == "move alias":
            known = state.aliases.get(alias_ref(name, alias))
            expected = draw.choice([None, None, known.version if known else 0, draw.randint(0, 2)])
            return MoveAlias(name, alias, 0 if draw.random() < 0.2 else version, expected, "", request_id)
        if act.name == "remove model":
            return RemoveModel(f"{name}@{max(1, version)}", draw.random() < 0.5, "", request_id)
        return SetResidency(
            draw.choice([name, f"{name}@{max(1, version)}", f"{name}@{alias}"]),
            draw.choice([None, 0, 1, 1, 2, 3]),
            draw.choice([None, None, False, True]),
            draw.choice([None, *NEEDS]),
            request_id,
        )

    async def _submit(self, act: Act, draw: random.Random, request_id: RequestId) -> None:
        spec = self._drawn_spec(draw)
        if not isinstance(spec.kind, ProbeSpec):
            for model in self._fixtures.models:
                await self._insist(draw, RegisterModel(model))
        self._specs[act.request] = spec
        await self._insist(draw, SubmitJob(JobId(f"j-{request_id}"), request_id, spec))

    def _drawn_spec(self, draw: random.Random) -> JobSpec:
        """A small job: quick tasks or slow ones, at times rows for a model, at times with a deadline."""
        probe = ProbeSpec(draw.randint(1, 12), draw.choice([0, 0, 10_000, 300_000, 3_000_000]))
        return JobSpec(
            self._fixtures.spec(draw, sorted(self._checker.state.aliases)) if draw.random() < 0.25 else probe,
            priority=draw.choice(list(Priority)),
            timeout_us=draw.choice([0, 0, 0, 60_000_000]),
            max_attempts=draw.choice([0, 2, 5]),
        )

    async def _insist(self, draw: random.Random, body: CommandBody) -> None:
        """Asks again until there is an answer, as hivefold's own client does; the server draws a job id each time."""
        for attempt in range(1, 10_000):
            asked = replace(body, job_id=JobId(f"{body.job_id}-{attempt}")) if isinstance(body, SubmitJob) else body
            again = self._checker.registry.has_changed(asked)
            answer = await self._group.call(asked, draw)
            if answer is not None:
                self._note(f"{type(body).__name__} -> {type(answer).__name__} {getattr(answer, 'sequence', '')}")
                self._checker.answered(asked, answer, again=again)
                return
            await asyncio.sleep(draw.uniform(0.05, 1.0))
