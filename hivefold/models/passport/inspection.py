"""Writes the passport of a model file or folder. By content: a file's name decides nothing.

Nothing of the file is run or imported, and what is looked at is bounded (hivefold.models.passport.limits).
"""

from __future__ import annotations

from pathlib import Path

from hivefold.models.passport import family, folder
from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Budget, Draft, clipped
from hivefold.models.passport.facts import Passport, Safety
from hivefold.models.passport.limits import PASSPORT_BATCH_ROWS
from hivefold.models.passport.needs import needs_of, parameters_of, precisions_of
from hivefold.models.passport.source import opened, unreadable


def passport(path: str | Path, *, batch_rows: int = 1) -> Passport:
    """The passport of the model at `path`, a file or a folder, with activations for `batch_rows` rows.

    Always gives one: what does not read is evidence in its safety. Raises DataRefusedError with
    FILE_UNREADABLE where the path cannot be read.
    """
    path = Path(path)
    draft = Draft(Budget(), batch_rows=min(max(1, batch_rows), PASSPORT_BATCH_ROWS))
    if _is_folder(path):
        size = folder.inspect(path, draft)
    else:
        with opened(path) as source:
            size = source.size
            inspect_source(source, draft)
    return finished(draft, size)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:
        raise unreadable(path, str(error)) from error


def finished(draft: Draft, size: int) -> Passport:
    """The passport of what was found in a file of `size` bytes."""
    family.describe(draft)
    parameters = parameters_of(draft)
    return Passport(
        format=draft.format,
        format_version=clipped(draft.format_version),
        framework=draft.framework,
        task=draft.task,
        architecture=draft.architecture,
        architecture_name=clipped(draft.architecture_name),
        parameter_count=parameters,
        precisions=precisions_of(draft),
        inputs=tuple(draft.inputs),
        outputs=tuple(draft.outputs),
        size_bytes=size,
        needs=needs_of(draft, parameters, draft.batch_rows),
        safety=Safety(draft.verdict, draft.evidence, tuple(draft.coverage)),
        notes=tuple(draft.notes),
    )
