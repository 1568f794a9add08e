"""`hivefold model`: inspect models, register them and look them up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from cli.address import Target, listed
from cli.exits import Exit
from cli.labels import parse_labels
from cli.output import Shown, show_many, show_one
from hivefold.models.passport.facts import Verdict

app = App(name="model", help="Inspect models, register them and look them up.")


@app.command
def add(
    name: str,
    file: Path,
    *,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
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
    request_id
        Names this request, so that it can be repeated safely.
    """
    from cli.views.models import model_facts
    from hivefold.models.passport.admission import admitted

    admitted(file)
    labels = parse_labels(label or ())
    model = target.ask(lambda fleet: fleet.models.add(file, name, labels=labels, request_id=request_id))
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

    models = target.ask(lambda fleet: listed(fleet.models.list(name)))
    show_many(target, "models", models, lambda: models_table(models))


@app.command
def show(model: str, *, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Show one model version.

    Parameters
    ----------
    model
        NAME for the latest version, or NAME@VERSION.
    """
    from cli.views.models import model_facts

    found = target.ask(lambda fleet: fleet.models.get(model))
    show_one(target, found, lambda: model_facts(found))
