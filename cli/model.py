"""`hivefold model`: inspect models, register them, name them, keep them loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter, validators

from cli.address import Target, listed
from cli.exits import Exit
from cli.keeping import alias, load, pin, ps, rm, unload
from cli.labels import parse_labels
from cli.output import Shown, show_many, show_one
from hivefold.models.passport.facts import Verdict

if TYPE_CHECKING:
    from hivefold.client import Fleet
    from hivefold.v1 import model_pb2

app = App(name="model", help="Inspect models, register them, name them, keep them loaded.")
app.command(alias)
app.command(ps)
app.command(load)
app.command(unload)
app.command(pin)
app.command(rm)


@app.command
def add(
    name: str,
    file: Path,
    *,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    licence: Annotated[str, Parameter(name=("--licence", "--license"))] = "",
    source: str = "",
    description: str = "",
    request_id: str = "",
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Register an ONNX file as the next version of a model.

    The same content under the same name is registered once: repeating the command is harmless.

    Parameters
    ----------
    name
        The model's name, e.g. digits.
    file
        The .onnx file.
    label
        NAME=VALUE; may be repeated.
    licence
        Under which terms it may be used, e.g. Apache-2.0.
    source
        Where the file came from: a URL, a repository with its revision, a training run. Else the file's name.
    description
        What it is, in a sentence.
    request_id
        Names this request, so that it can be repeated safely.
    """
    from cli.views.models import model_facts
    from hivefold.client.jobs import default_source
    from hivefold.models.passport.admission import admitted
    from hivefold.v1.model_pb2 import ModelProvenance

    admitted(file)
    labels = parse_labels(label or ())
    told = ModelProvenance(
        licence=licence,
        source=source or file.name,
        description=description,
        author=default_source().replace("client/", "cli/", 1),
    )
    model = target.ask(
        lambda fleet: fleet.models.add(file, name, labels=labels, provenance=told, request_id=request_id)
    )
    show_one(target, model, lambda: model_facts(model))


@app.command
def inspect(
    path: Path,
    *,
    batch: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65_536))] = 1,
    fail_on: Literal["unsafe", "suspicious", "unknown", "never"] = "unsafe",
    shown: Shown = Shown(),  # noqa: B008 - frozen
) -> int:
    """Tell what a model file or folder is, what it needs and how safe it is. Nothing in it is run.

    Parameters
    ----------
    path
        A file (.onnx, .pt, .safetensors, .gguf, .h5, .keras, .pb, .pkl, .joblib, ...) or a folder.
    batch
        Rows that activations are estimated for.
    fail_on
        The mildest verdict that ends with exit code 1.
    """
    from cli.views.passports import passport_facts
    from hivefold.models.passport.inspection import passport
    from hivefold.models.passport.messages import to_proto

    found = passport(path, batch_rows=batch)
    message = to_proto(found)
    show_one(shown, message, lambda: passport_facts(message, str(path)))
    worst = found.safety.verdict.severity
    return Exit.FAILED if fail_on != "never" and worst >= Verdict(fail_on.upper()).severity else Exit.OK


@app.command
def ls(name: str = "", *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """List model versions.

    Parameters
    ----------
    name
        Only versions of this model.
    """
    from cli.views.models import models_table

    async def look(fleet: Fleet) -> tuple[list[model_pb2.Model], list[model_pb2.ModelAlias]]:
        return await listed(fleet.models.list(name)), await listed(fleet.models.aliases(name))

    models, aliases = target.ask(look)
    show_many(target, "models", models, lambda: models_table(models, aliases))


@app.command
def show(model: str, file: Path | None = None, *, at: str = "", target: Target = Target()) -> int:  # noqa: B008 - frozen
    """Show one model version: what it is, where it came from, where it is loaded. With --at, as the log has it.

    Parameters
    ----------
    model
        NAME for the latest version, NAME@VERSION, or NAME@ALIAS, e.g. digits@prod.
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    at
        What the name stood for at a moment: a position (120), a time with its zone (2026-11-21T14:00:00Z), a span
        before the last record (5m), or "end".
    """
    from cli.views.models import described, model_facts

    if at or file is not None:
        from cli.log.models_then import show_then

        return show_then(target, model, file, at or "end")
    found = target.ask(lambda fleet: fleet.models.describe(model))
    show_one(target, described(found), lambda: model_facts(found.model, found))
    return Exit.OK
