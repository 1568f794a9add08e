"""Leads a fleet: the writer and all that hangs on it, over open connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass

import structlog

from coordinator.core.model import State
from coordinator.dispatch import Dispatcher
from coordinator.intake import Intake
from coordinator.presence import Presence, PresenceSettings
from coordinator.replay import Replayed, replay
from coordinator.wire.records import GENESIS_HASH
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import ResultReceiver, Signals, WorkSender
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.log.port import EventLog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ends:
    """The coordinator's ends of the log and the bus."""

    log: EventLog
    signals: Signals
    work: WorkSender
    results: ResultReceiver


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

    def parts(self) -> tuple[Coroutine[None, None, None], ...]:
        """What to run side by side; the end of any of them is the end of the term."""
        return (
            self.writer.run(),
            self.dispatcher.run(),
            self.intake.run(),
            self.presence.run(),
            self._tick(),
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(limits.TICK_S)
            self.writer.tick()


async def take_lead(ends: Ends, clock: Clock, entropy: Entropy, settings: LeadSettings) -> Leadership:
    """Replays to the head and starts a term there.

    Raises FencedError when another coordinator was faster, LogCorruptError, BrokerUnavailableError.
    """
    started_ms = clock.monotonic_ms()
    head = await ends.log.head()
    replayed = await replay(ends.log, up_to=head.sequence) if head.sequence else Replayed(State(), GENESIS_HASH)
    writer = Writer(ends.log, clock, entropy, replayed)
    await writer.begin(settings.coordinator_id, settings.code_version)
    _log.info(
        "leading",
        term=writer.state.term,
        sequence=writer.state.sequence,
        replayed=head.sequence,
        replay_ms=clock.monotonic_ms() - started_ms,
    )
    dispatcher = Dispatcher(writer, ends.work, ends.signals, ends.results, clock)
    return Leadership(
        writer=writer,
        presence=Presence(writer, ends.signals, ends.work, dispatcher, clock, settings.presence),
        dispatcher=dispatcher,
        intake=Intake(writer, ends.results),
    )
