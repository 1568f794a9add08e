"""Says what went wrong: one line what, one line what to do; as JSON when the command was asked for JSON."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from hivefold.errors import HivefoldError, Reason

_COMMAND: Final = re.compile(r"hivefold \w+ \w+")
HINTS: Final[Mapping[Reason, str]] = {
    Reason.UNSPECIFIED: "look at the coordinator's log",
    Reason.INVALID_ARGUMENT: "correct what is named above; --help shows what is accepted",
    Reason.MODEL_NOT_FOUND: "see what is registered with: hivefold model ls",
    Reason.JOB_NOT_FOUND: "see the fleet's jobs with: hivefold job ls",
    Reason.NODE_NOT_FOUND: "see the fleet's nodes with: hivefold node ls --all",
    Reason.BLOB_NOT_FOUND: "upload the content again; what is stored is not sent twice",
    Reason.REQUEST_ID_REUSED: "use a new --request-id for a new request",
    Reason.DIGEST_MISMATCH: "repeat the upload; do not change a file while it is read",
    Reason.MODEL_INVALID: "export the model again and check it with onnx.checker",
    Reason.MODEL_EXTERNAL_DATA: "save the model as one file: onnx.save(model, path)",
    Reason.MODEL_UNSAFE: "see the evidence with: hivefold model inspect FILE",
    Reason.MODEL_EXISTS: "a version never changes; register the next one",
    Reason.SHAPE_MISMATCH: "see the model's input with: hivefold model show MODEL",
    Reason.DATA_TYPE_MISMATCH: "convert the data first, e.g. array.astype('float32'), or allow rounding with --cast",
    Reason.DATA_INVALID: "check the file; --help names the formats",
    Reason.NAN_FOUND: "clean the row, or submit with --nan allow",
    Reason.NEEDS_UNSATISFIABLE: "lower the need, or see what the nodes have with: hivefold node ls",
    Reason.LIMIT_EXCEEDED: "ask for less, or wait when a queue is full",
    Reason.LOG_FULL: "free or add disk space for the NATS server, then repeat",
    Reason.BROKER_UNAVAILABLE: "look for the cause with: hivefold doctor",
    Reason.NOT_LEADER: "repeat in a moment, or give the leader with --address",
    Reason.DEADLINE_EXCEEDED: "allow more time with --timeout; repeating with the same --request-id is safe",
    Reason.CANCELLED: "see why with: hivefold job show JOB, or hivefold log explain MODEL",
    Reason.JOB_STATE: "look at the job first with: hivefold job show JOB",
    Reason.JOB_ERASED: "its keys are gone for good: see docs/operations.md",
    Reason.NODE_LOST: "see the nodes with: hivefold node ls --all",
    Reason.RETURNED: "the attempt is repeated elsewhere; nothing to do",
    Reason.RUNTIME_FAILED: "try the rows in question with the model alone",
    Reason.OUT_OF_MEMORY: "use a smaller --batch-rows, or a larger node",
    Reason.ATTEMPTS_EXHAUSTED: "read the failures with: hivefold job show JOB",
    Reason.FILE_UNREADABLE: "give the path of a file that can be read; with --by-reference, by every node",
    Reason.LOG_CORRUPT: "stop, keep a copy of the data directory, look at the disk",
    Reason.PROOF_FAILED: "find out why before anything else: was the log restored or altered?",
    Reason.LOG_FILE_INVALID: "export the log again, or use another copy of the file",
    Reason.INTERNAL: "a defect: please report it; HIVEFOLD_DEBUG=1 shows where",
    Reason.SERVER_UNAVAILABLE: "start a fleet with: hivefold up; or name its coordinator with --address",
    Reason.NODE_FULL: "try again in a second, ask another node, or give the node's models more room",
    Reason.ALIAS_MOVED: "see who moved it with: hivefold model show NAME@ALIAS; then move it again with --expect",
    Reason.MODEL_IN_USE: "move the alias, hivefold model unload, wait for the job; or remove it with --force",
    Reason.SERVER_BUSY: "try again in a moment, or ask another node; RetryInfo says when",
    Reason.SEGMENT_MISSING: "bring its file into archive_dir from a copy; the position names its records",
    Reason.EVENT_UNKNOWN: "upgrade this hivefold to the version that wrote the log, or a later one",
    Reason.DURABILITY_WEAK: "change the server's sync_interval, or the durability that is asked for",
}
"""What to do next, by reason, for somebody with a shell."""


def asked_for_json(tokens: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; works on one that could not be parsed."""
    pairs = [*itertools.pairwise(tokens), *(token.partition("=")[::2] for token in tokens)]
    return any(flag in {"-o", "--output"} and value in {"json", "jsonl"} for flag, value in pairs)


def report(error: HivefoldError, *, as_json: bool, hint: str | None = None) -> None:
    """Writes `error` to standard error."""
    hint = hint or HINTS[error.reason]
    if as_json:
        _write(_as_json(error, hint))
        return
    _write(f"{_red('error:')} {_one_line(error.message)}")
    for violation in error.violations:
        if violation.description not in error.message:
            _write(f"  {violation.field}: {_one_line(violation.description)}")
    if not _says(error.message, hint):
        _write(f"  -> {hint}")


def report_plain(message: str, hint: str, *, reason: Reason, as_json: bool) -> None:
    """Writes something that is no HivefoldError to standard error in the same form."""
    report(HivefoldError(message, reason=reason), as_json=as_json, hint=hint)


def _as_json(error: HivefoldError, hint: str) -> str:
    body = {
        "reason": error.reason.value,
        "message": error.message,
        "hint": hint,
        "metadata": error.metadata,
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
    }
    return json.dumps({"error": body})


def _says(message: str, hint: str) -> bool:
    """Whether the message already names the command that the hint names."""
    command = _COMMAND.search(hint)
    return command is not None and command[0] in message


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _red(text: str) -> str:
    from cli.output import colour_on

    return f"\x1b[1;31m{text}\x1b[0m" if colour_on(sys.stderr) else text


def _write(line: str) -> None:
    print(line, file=sys.stderr)
