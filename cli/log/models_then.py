"""What a model's name stood for at a moment, from the log alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.address import Target
from cli.exits import Exit
from cli.log.source import from_the_beginning, read_log
from cli.output import as_plain, show_one
from cli.progress import Bar
from hivefold.errors import InvalidRequestError
from hivefold.ids import MODEL_RULE, names_model
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from coordinator.core.model import Model
    from coordinator.replay import Replayed


def show_then(target: Target, text: str, file: Path | None, at: str) -> int:
    """Shows the version that `text` stood for at a moment; exits 1 where it stood for none."""
    from cli.views.models import model_facts
    from cli.views.moments import as_of
    from coordinator.audit.moments import parse_moment, position_of, state_at
    from coordinator.core.resolve import resolve, unknown_model
    from coordinator.wire.values import model_to_proto
    from hivefold.rpc import error_for

    if not names_model(text):
        raise InvalidRequestError(f"{text!r} names no model: it must be {MODEL_RULE}")
    named = parse_moment(at)

    async def answer(log: ReadableLog) -> Replayed:
        from_the_beginning(log)
        position = await position_of(log, named)
        with Bar("replay", "records") as bar:
            return await state_at(log, position, progress=lambda done: bar.update(done, position))

    moment = read_log(target, file, answer)
    model: Model | None = resolve(moment.state, text)
    if model is None:
        refusal = unknown_model(moment.state, text)
        message = f"at record {moment.state.sequence}: {refusal.message}"
        raise error_for(refusal.reason, message, dict(refusal.metadata))
    shown = model_to_proto(model)
    found = as_of(moment.state, model)
    plain: dict[str, Any] = {
        "sequence": str(moment.state.sequence),
        "name": text,
        "model": as_plain(shown),
        "aliases": [as_plain(alias) for alias in found.aliases],
        "residency": as_plain(found.residency) if found.HasField("residency") else None,
    }
    show_one(target, plain, lambda: model_facts(shown, found))
    return Exit.OK
