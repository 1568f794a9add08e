"""`hivefold log verify`: whether the log is what was written and signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import words
from cli.address import Target
from cli.exits import Exit
from cli.output import facts, show_one
from cli.progress import Bar
from hivefold.errors import LogCorruptError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hivefold.client import Fleet
    from hivefold.proof.extension import Proven
    from hivefold.proof.verifier import LogVerifier, Verified


def verify(
    file: Path | None = None,
    *,
    key: str = "",
    witness: Path | None = None,
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
    """
    from hivefold.clock import stopwatch_ns
    from hivefold.proof.extension import read_proven

    seen = read_proven(witness) if witness else None
    began = stopwatch_ns()
    try:
        verified = _verified(target, file, key, seen)
    except LogCorruptError as error:
        position, why = error.position, error.message
        broken: dict[str, Any] = {"verified": False, "position": str(position), "error": why}
        show_one(target, broken, lambda: _broken(position, why))
        return Exit.FAILED
    seconds = (stopwatch_ns() - began) / 1e9
    show_one(target, _plain(verified), lambda: _shown(verified, seconds))
    return Exit.OK


def _verified(target: Target, file: Path | None, key: str, seen: Proven | None) -> Verified:
    from hivefold.proof.reading import verify_file
    from hivefold.proof.verifier import LogVerifier

    with Bar("verify", "records") as bar:
        if file is not None:
            return verify_file(file, key_id=key, witness=seen, progress=bar.update)
        verifier = LogVerifier(key_id=key, witness=seen)
        target.ask(lambda fleet: _read_live(fleet, verifier, bar.update))
        return verifier.result()


async def _read_live(fleet: Fleet, verifier: LogVerifier, progress: Callable[[int, int], None]) -> None:
    from hivefold.log.port import Stored
    from hivefold.proof.checkpoint import read_note

    last = (await fleet.log.head()).sequence
    signed = fleet.log.checkpoints(up_to_size=last)
    checkpoint = await anext(signed, None)
    size = read_note(checkpoint.note).checkpoint.size if checkpoint else 0
    if not last:
        return
    async for page in fleet.log.pages(up_to=last):
        for record in page:
            verifier.record(Stored(record.sequence, record.subject, record.data))
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
