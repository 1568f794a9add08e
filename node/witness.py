"""A node as a witness: it remembers the last checkpoint that it saw, and believes only a log that extends it.

Each pulse carries the coordinator's last checkpoint. The first one that a node sees is taken on trust, and its key
with it; from then on a coordinator whose log was cut, rewritten, or signed by a key that the known one did not
endorse gets no work done here, until an operator says that this is as it should be (`hivefold node trust --reset`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from hivefold.bus.port import CheckpointReader, Kept
from hivefold.clock import Clock
from hivefold.durable_file import DurableFile
from hivefold.errors import ConfigError, ProofError, UnavailableError
from hivefold.limits import WITNESS_PATIENCE_MS
from hivefold.proof.checkpoint import read_note
from hivefold.proof.extension import GapError, Proven, first_seen, read_proven
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint
from hivefold.v1.work_pb2 import Pulse

_log = structlog.get_logger(__name__)


class Witness:
    """Judges pulses. `run` MUST be running for what was seen to be kept, and for gaps to be filled.

    Raises ConfigError when what was kept cannot be read.
    """

    def __init__(self, path: Path, stream: CheckpointReader, clock: Clock) -> None:
        self._path = path
        self._stream = stream
        self._clock = clock
        self._proven = read_proven(path)
        self._heard: SignedCheckpoint | None = None
        """How what is proven was heard last: an idle coordinator repeats it, and need not be checked again."""
        self._kept = self._proven is not None
        self._believed_ms = clock.monotonic_ms()
        self._unkept: SignedCheckpoint | None = None
        self._gap: SignedCheckpoint | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self.refusal = ""
        """Why the coordinator that is heard is refused; empty when it is not."""

    @property
    def proven(self) -> Proven | None:
        """What this node has seen of the log; None before its first checkpoint."""
        return self._proven

    def proves(self, term: int) -> bool:
        """Whether work of this term may be done: nobody is refused, and the term is in the log that was proven."""
        return not self.refusal and (self._proven is None or term <= self._proven.checkpoint.term)

    async def until_proven(self, term: int, within_s: float) -> bool:
        """Whether work of this term may be done now, or may be within so many seconds; returns as soon as it may."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.proves(term):
                    self._changed.clear()
                    await self._changed.wait()
        # A process that stood still finds its time over and the proof there, both at once.
        return self.proves(term)

    def believes(self, pulse: Pulse) -> bool:
        """Whether the pulse comes from a coordinator to be listened to. Returns at once."""
        if not pulse.HasField("checkpoint"):
            return self._proven is None or self._doubted("it shows no signed checkpoint")
        signed = pulse.checkpoint
        try:
            proven = self._judged(signed)
        except GapError:
            self._gap = signed
            self._wake.set()
            return False
        except ProofError as error:
            # The last words of one that was deposed are late, not forged: its successor is heard soon.
            late = self._proven is not None and pulse.term < self._proven.checkpoint.term
            return self._doubted(error.message) if late else self._refused(error.message)
        if proven.checkpoint.term < pulse.term:
            return self._doubted(f"its checkpoint is of term {proven.checkpoint.term}, its pulse of term {pulse.term}")
        self._believe(proven, signed)
        return True

    async def run(self) -> None:
        """Keeps what was seen and fills gaps until it is cancelled. Raises ConfigError when it cannot be kept."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            signed, self._gap = self._gap, None
            if signed is not None:
                await self._fill(signed)
            unkept, self._unkept = self._unkept, None
            if unkept is not None:
                await asyncio.to_thread(_keep, self._path, unkept.SerializeToString())
                self._kept = True

    def _judged(self, signed: SignedCheckpoint) -> Proven:
        if self._proven and signed == self._heard:
            return self._proven
        return self._proven.extended(signed) if self._proven else first_seen(signed)

    def _believe(self, proven: Proven, signed: SignedCheckpoint) -> None:
        self._believed_ms = self._clock.monotonic_ms()
        self._heard = signed
        if proven == self._proven and not self.refusal:
            return
        if self._proven is None:
            _log.info("witness.trusts", records=proven.checkpoint.size, key=proven.key.key_id)
        if self.refusal:
            _log.info("witness.believes_again", records=proven.checkpoint.size, term=proven.checkpoint.term)
        self.refusal = ""
        self._proven = proven
        self._unkept = SignedCheckpoint()
        self._unkept.CopyFrom(signed)
        self._unkept.ClearField("frontier")
        self._unkept.frontier.extend(proven.tree.hashes)
        self._wake.set()
        self._changed.set()

    def _doubted(self, why: str) -> bool:
        """Refuses what no coordinator that is believed has contradicted for a while."""
        if self._clock.monotonic_ms() - self._believed_ms > WITNESS_PATIENCE_MS:
            self._refused(why)
        return False

    def _refused(self, why: str) -> bool:
        if self._kept and not self._path.exists():
            _log.warning("witness.reset", file=str(self._path))
            self._proven, self._heard, self._kept, self.refusal = None, None, False, ""
        elif self.refusal != why:
            _log.error("witness.refuses", reason="PROOF_FAILED", why=why, file=str(self._path))
            self.refusal = why
            self._changed.set()
        return False

    async def _fill(self, signed: SignedCheckpoint) -> None:
        """Follows the checkpoints that were missed up to this one."""
        try:
            size = read_note(signed.note).checkpoint.size
            async for missed in self._missed():
                self._believe(self._judged(missed), missed)
                if read_note(missed.note).checkpoint.size >= size:
                    return
            self._believe(self._judged(signed), signed)
        except GapError as error:
            known = self._proven.checkpoint.size if self._proven else 0
            self._refused(
                f"{error.message}, and the checkpoints stored since then do not lead there from record {known}: "
                "they made room for newer ones, or the log is another"
            )
        except ProofError as error:
            self._refused(error.message)
        except UnavailableError as error:
            _log.info("witness.waits", error=error.message)

    async def _missed(self) -> AsyncIterator[SignedCheckpoint]:
        """The stored checkpoints that go on from the one that was proven."""
        assert self._proven is not None, "only what was seen can have a gap after it"
        kept = await self._first_after(self._proven.checkpoint.size)
        while kept is not None:
            yield _parsed(kept)
            kept = await self._stream.next(kept.index + 1)

    async def _first_after(self, size: int) -> Kept | None:
        """The first stored checkpoint that goes on from `size` records or more: they are in order."""
        first, last = await self._stream.next(0), await self._stream.last()
        if first is None or last is None:
            return None
        low, high = first.index, last.index + 1
        while low < high:
            middle = (low + high) // 2
            found = await self._stream.next(middle)
            if found is None or _parsed(found).previous_size >= size:
                high = middle
            else:
                low = found.index + 1
        return await self._stream.next(low)


def _keep(path: Path, data: bytes) -> None:
    try:
        with DurableFile(path, replace=True) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(
            f"the last checkpoint cannot be kept in {path}: {error.strerror}; choose a data_dir that can be written"
        ) from None


def _parsed(kept: Kept) -> SignedCheckpoint:
    try:
        return SignedCheckpoint.FromString(kept.data)
    except DecodeError:
        raise ProofError(f"the stored checkpoint {kept.index} does not parse") from None
