"""What may be registered: a file whose passport says UNSAFE is refused."""

from __future__ import annotations

from pathlib import Path

from hivefold.errors import DataRefusedError, Reason
from hivefold.models.passport.facts import Passport, Verdict
from hivefold.models.passport.inspection import passport


def admitted(path: Path) -> Passport:
    """The passport of a file. Raises DataRefusedError: MODEL_UNSAFE with the worst evidence, FILE_UNREADABLE."""
    found = passport(path)
    if found.safety.verdict is Verdict.UNSAFE:
        worst = found.safety.findings[0]
        raise DataRefusedError(
            f"{path.name} is not safe to load: {worst.detail} ({worst.place}). "
            "`hivefold model inspect` shows all evidence; get the model from somebody you trust.",
            reason=Reason.MODEL_UNSAFE,
            metadata={"model": path.stem, "code": worst.code, "place": worst.place},
        )
    return found
