"""Models as people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from cli import words
from cli.output import facts, table
from cli.views import passports, tensors, times
from hivefold.v1 import model_pb2

if TYPE_CHECKING:
    from rich.console import RenderableType


_SHOWN: Final = frozenset({"size", "inputs", "outputs"})
"""What a model's own fields say as well."""


def models_table(models: Iterable[model_pb2.Model]) -> RenderableType:
    """A line for each model version."""
    rows = [
        (
            tensors.ref(model),
            model.platform,
            words.size(model.artifact.size_bytes),
            escape(", ".join(tensors.tensor(spec) for spec in model.inputs)),
            escape(", ".join(tensors.tensor(spec) for spec in model.outputs)),
            model.digest[:12],
            times.ago(model.create_time),
        )
        for model in models
    ]
    return table(("model", "platform", "size", "inputs", "outputs", "digest", "registered"), rows, right=("size",))


def model_facts(model: model_pb2.Model) -> RenderableType:
    """All about one model version."""
    return facts(
        [
            ("model", f"[bold]{tensors.ref(model)}[/]"),
            ("platform", model.platform),
            ("size", words.size(model.artifact.size_bytes)),
            ("digest", model.digest),
            ("inputs", escape("\n".join(tensors.tensor(spec) for spec in model.inputs))),
            ("outputs", escape("\n".join(tensors.tensor(spec) for spec in model.outputs))),
            *(line for line in passports.lines(model.passport) if model.HasField("passport") and line[0] not in _SHOWN),
            ("labels", escape(words.pairs(model.labels))),
            ("registered", f"{times.exact(model.create_time)} ({times.ago(model.create_time)})"),
        ]
    )
