"""How the harness talks to a contender: one JSON object a line, asked on stdin, answered on stdout.

A contender may run in another environment, so this imports the standard library only. What it or its
libraries print goes to stderr: stdout is for answers.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Verb: TypeAlias = Callable[..., Mapping[str, Any]]


def serve(verbs: Mapping[str, Verb]) -> None:
    """Answers `{"do": verb, ...arguments}` with the verb's result until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        result = verbs[question.pop("do")](**question)
        print(json.dumps(result), file=answers)
