"""`hivefold model`: register models and look them up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from cli.address import Target, listed
from cli.labels import parse_labels
from cli.output import show_many, show_one

app = App(name="model", help="Register models and look them up.")


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

    labels = parse_labels(label or ())
    model = target.ask(lambda fleet: fleet.models.add(file, name, labels=labels, request_id=request_id))
    show_one(target, model, lambda: model_facts(model))


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
