"""Leads a fleet: the writer and all that hangs on it, over open connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from coordinator.artifacts import Artifacts
from coordinator.checkpoints import Checkpointer, Signing, signed_past
from coordinator.dispatch import Dispatcher
from coordinator.erasing import Eraser
from coordinator.feed import Feed
from coordinator.inference_intake import InferenceIntake
from coordinator.intake import Intake
from coordinator.job_keys import JobKeys
from coordinator.presence import Presence, PresenceSettings
from coordinator.replay import NOTHING, Replayed, replay
from coordinator.room import ResultRoom
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import EventSender, ResultReceiver, Signals, WorkSender
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.failpoints import Failpoint, reach
from hivefold.log.port import EventLog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ends:
    """The coordinator's ends of the log and the bus."""

    log: EventLog
    signals: Signals
    work: WorkSender
    results: ResultReceiver
    job_keys: JobKeys
    events: EventSender | None = None
    """Without one there is no public event stream."""
    signing: Signing | None = None
    """Without it the log is not signed."""
    inferences: ResultReceiver | None = None
    """What nodes inferred; without it that is not recorded."""


@dataclass(frozen=True, slots=True)
class LeadSettings:
    """Who leads, and how it watches the nodes."""

    coordinator_id: str
    code_version: str
    presence: PresenceSettings


@dataclass(frozen=True, slots=True)
class Leadership:
    """One term: its writer, who is there, and what must keep running for it."""

    writer: Writer
    presence: Presence
    dispatcher: Dispatcher
    intake: Intake
    eraser: Eraser
    artifacts: Artifacts
    room: ResultRoom
    feed: Feed | None = None
    inferences: InferenceIntake | None = None
    checkpoints: Checkpointer | None = None

    def parts(self) -> tuple[Coroutine[None, None, None], ...]:
        """What to run side by side; the end of any of them is the end of the term."""
        return (
            self.writer.run(),
            self.dispatcher.run(),
            self.intake.run(),
            self.presence.run(),
            self.eraser.run(),
            self.artifacts.run(),
            self.room.run(),
            self._tick(),
            *([self.feed.run()] if self.feed is not None else []),
            *((self.inferences.run(),) if self.inferences else ()),
            *((self.checkpoints.run(),) if self.checkpoints else ()),
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(limits.TICK_S)
            self.writer.tick()


async def take_lead(
    ends: Ends,
    clock: Clock,
    entropy: Entropy,
    settings: LeadSettings,
    *,
    start: Replayed | None = None,
    may_act: Callable[[], bool] = lambda: True,
) -> Leadership:
    """Replays what comes after `start` to the head and starts a term there; `may_act` is as for the Writer.

    Raises FencedError when another coordinator was faster, LogCorruptError, ProofError, UnavailableError,
    ConfigError when this coordinator does not hold the log's signing key.
    """
    started_ms = clock.monotonic_ms()
    start = start or NOTHING
    head = await ends.log.head()
    # A standby may have followed a record or two that came after this head was asked for.
    up_to = max(head.sequence, start.state.sequence)
    replayed = await replay(ends.log, up_to=up_to, start=start) if up_to else start
    past = await signed_past(ends.signing, ends.log, replayed.state) if ends.signing else None
    writer = Writer(ends.log, clock, entropy, replayed, may_act)
    checkpoints = Checkpointer(ends.signing, writer, past) if ends.signing and past else None
    reach(Failpoint.BEFORE_TERM)
    await writer.begin(settings.coordinator_id, settings.code_version)
    if checkpoints:
        await checkpoints.begin()
    _log.info(
        "leading",
        term=writer.state.term,
        sequence=writer.state.sequence,
        replayed=up_to - start.state.sequence,
        replay_ms=clock.monotonic_ms() - started_ms,
    )
    reach(Failpoint.AFTER_TERM)
    dispatcher = Dispatcher(writer, ends.work, ends.signals, ends.results, job_keys=ends.job_keys, clock=clock)
    return Leadership(
        writer=writer,
        presence=Presence(writer, ends.signals, ends.work, dispatcher, clock, settings.presence, checkpoints),
        dispatcher=dispatcher,
        intake=Intake(writer, ends.results, ends.signals),
        eraser=Eraser(writer, ends.job_keys.store, ends.results),
        artifacts=Artifacts(writer, ends.job_keys.chunks),
        room=ResultRoom(writer, ends.results),
        inferences=InferenceIntake(writer, ends.inferences) if ends.inferences else None,
        feed=Feed(writer, ends.log, ends.events, ends.signals) if ends.events is not None else None,
        checkpoints=checkpoints,
    )
