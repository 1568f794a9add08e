"""`hivefold log verify`: whether the log is what was written and signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from cli import words
from cli.address import Target
from cli.exits import Exit
from cli.log.mirror import auditor, open_mirror
from cli.log.source import LiveLog
from cli.output import facts, show_one
from cli.progress import Bar
from hivefold.errors import InvalidRequestError, LogCorruptError
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hivefold.broker import BrokerSettings
    from hivefold.client import Fleet
    from hivefold.log.mirror import MirroredLog
    from hivefold.proof.extension import Proven
    from hivefold.proof.verifier import Beginning, LogVerifier, Verified
    from hivefold.v1.checkpoint_pb2 import SignedCheckpoint

Progress: TypeAlias = Callable[[int, int], None]


def verify(
    file: Path | None = None,
    *,
    key: str = "",
    witness: Path | None = None,
    mirror: Annotated[bool, Parameter(negative=())] = False,
    config: Path | None = None,
    target: Target = Target(),  # noqa: B008 - frozen
) -> int:
    """Verify every record, the links between them, and every signed checkpoint. Exits 1 at the first bad position.

    Without `--key` or `--witness` the log's first key is taken at its word: then this shows that the log fits
    together, and not whose log it is.

    Parameters
    ----------
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    key
        Fingerprint of a key that must have signed the log, or endorsed who did.
    witness
        What a node has seen of the log, the file `witness` in its data directory: the log must extend that.
    mirror
        Verify the mirror of the log, with the credential of an auditor: no coordinator is asked.
    config
        A file whose table [audit] says how to reach the mirror. Else it is that of the local fleet.
    """
    from hivefold.clock import stopwatch_ns

    seen = _seen(witness) if witness else None
    began = stopwatch_ns()
    try:
        verified = _verified(target, file, key, seen, _Place(mirror, config))
    except LogCorruptError as error:
        position, why = error.position, error.message
        broken: dict[str, Any] = {"verified": False, "position": str(position), "error": why}
        show_one(target, broken, lambda: _broken(position, why))
        return Exit.FAILED
    seconds = (stopwatch_ns() - began) / 1e9
    show_one(target, _plain(verified), lambda: _shown(verified, seconds))
    return Exit.OK


def _seen(witness: Path) -> Proven:
    """What a node has seen: a mistyped name must not pass for a proof. Raises InvalidRequestError, ConfigError."""
    from hivefold.proof.extension import read_proven

    proven = read_proven(witness)
    if proven is None:
        raise InvalidRequestError(
            f"--witness {witness}: there is no such file; it is DIR/state/NODE/witness of a local fleet, and comes "
            "with the first checkpoint that the node sees"
        )
    return proven


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the log is, unless in a file: with the coordinators, or in the mirror that `config` leads to."""

    mirror: bool
    config: Path | None


def _verified(target: Target, file: Path | None, key: str, seen: Proven | None, place: _Place) -> Verified:
    from hivefold.proof.reading import verify_file

    if file is not None and place.mirror:
        raise InvalidRequestError("a file or --mirror: name one of them")
    with Bar("verify", "records") as bar:
        if file is not None:
            return verify_file(file, key_id=key, witness=seen, progress=bar.update)
        if place.mirror:
            settings = auditor(target.directory, place.config)
            return asyncio.run(_verify_mirror(settings, key, seen, bar.update))
        return target.ask(lambda fleet: _verify_live(fleet, key, seen, bar.update))


async def _verify_live(fleet: Fleet, key: str, seen: Proven | None, progress: Progress) -> Verified:
    from hivefold.proof.verifier import LogVerifier

    log = LiveLog(fleet)
    last = (await log.head()).sequence
    verifier = LogVerifier(key_id=key, witness=seen)
    await _read(log, last, fleet.log.checkpoints(up_to_size=last), verifier, progress)
    return verifier.result()


async def _verify_mirror(settings: BrokerSettings, key: str, seen: Proven | None, progress: Progress) -> Verified:
    from coordinator.kept_checkpoints import kept_checkpoints
    from hivefold.proof.verifier import LogVerifier

    async with open_mirror(settings) as mirror:
        last = (await mirror.log.head()).sequence
        verifier = LogVerifier(await _beginning(mirror.log), key_id=key, witness=seen)
        signed = kept_checkpoints(mirror.checkpoints, after=mirror.log.first_sequence - 1, up_to=last)
        await _read(mirror.log, last, signed, verifier, progress, after=mirror.log.first_sequence - 1)
    return verifier.result()


async def _beginning(log: MirroredLog) -> Beginning:
    """What comes before the mirror's first record, where mirrors of older segments were removed."""
    from hivefold.proof.verifier import Beginning
    from hivefold.v1.record_pb2 import Record

    first = log.first_sequence
    if first == 1:
        return Beginning()
    page = await anext(log.read(after=first - 1, up_to=first))
    return Beginning(first, Record.FromString(page[0].data).previous_hash)


async def _read(
    log: ReadableLog,
    last: int,
    signed: AsyncIterator[SignedCheckpoint],
    verifier: LogVerifier,
    progress: Progress,
    *,
    after: int = 0,
) -> None:
    """Hands the records up to `last` to the verifier, and each checkpoint right after its last record."""
    from hivefold.proof.checkpoint import read_note

    checkpoint = await anext(signed, None)
    size = read_note(checkpoint.note).checkpoint.size if checkpoint else 0
    if last <= after:
        return
    async for page in log.read(after=after, up_to=last):
        for record in page:
            verifier.record(record)
            if checkpoint is not None and record.sequence == size:
                verifier.checkpoint(checkpoint)
                checkpoint = await anext(signed, None)
                size = read_note(checkpoint.note).checkpoint.size if checkpoint else 0
        progress(page[-1].sequence, last)


def _plain(verified: Verified) -> dict[str, Any]:
    return {
        "verified": True,
        "recordCount": str(verified.records),
        "sequence": str(verified.sequence),
        "term": str(verified.term),
        "hash": verified.head.hex(),
        "checkpointCount": str(verified.checkpoints),
        "signedSequence": str(verified.signed),
        "chainId": verified.chain_id.hex(),
        "keyId": verified.key.key_id if verified.key else "",
    }


def _shown(verified: Verified, seconds: float) -> RenderableType:
    speed = f" ({words.rate(verified.records / seconds, 'records')})" if seconds else ""
    return facts(
        [
            ("verified", f"{words.count(verified.records)} records in {words.span(seconds)}{speed}"),
            ("position", f"record {words.count(verified.sequence)} of term {verified.term}"),
            ("last hash", verified.head.hex()),
            ("log", verified.chain_id.hex()),
            ("signed", f"up to record {verified.signed}, in {words.count(verified.checkpoints)} checkpoints"),
            ("key", verified.key.key_id if verified.key else "[yellow]none: this log is not signed[/]"),
        ]
    )


def _broken(position: int, why: str) -> RenderableType:
    from rich.markup import escape

    return facts([("", "[bold red]NOT VERIFIED[/]"), ("position", f"record {position}"), ("why", escape(why))])
