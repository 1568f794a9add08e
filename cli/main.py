"""The program `hivefold`: finds the command, runs it, and turns its end into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from cli.exits import Exit, exit_for
from cli.report import asked_for_json, report, report_plain
from hivefold.errors import HivefoldError, Reason
from hivefold.memory import keep_freed_memory

_COMMANDS: Final = (
    ("up", "cli.up:up", "Run a whole fleet on this machine: NATS, a coordinator and nodes."),
    ("top", "cli.top:top", "Watch the fleet and its jobs live."),
    ("job", "cli.job:app", "Submit jobs, follow them, fetch their output."),
    ("model", "cli.model:app", "Inspect models, register them, name them, keep them loaded."),
    ("node", "cli.node:app", "Look at nodes, drain them, run one."),
    ("coordinator", "cli.coordinator:app", "Run a coordinator, or have another one of its group lead."),
    ("audit", "cli.audit:app", "See what was asked of models, and check it against the log."),
    ("log", "cli.log:app", "Read the log, rebuild the state from it."),
    ("doctor", "cli.doctor:doctor", "Check what hivefold needs on this machine."),
    ("completion", "cli.completion:app", "Let the shell complete commands and options."),
    ("version", "cli.version:version", "Print the version."),
)


def build() -> App:
    """The command tree; a command's module is imported when it is used."""
    app = App(
        name="hivefold",
        help="One fleet of AI workers on your own servers, folded from one durable, verifiable log.",
        help_epilogue=(
            "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unavailable, 5 job unsuccessful. "
            "Data goes to standard output, everything else to standard error."
        ),
        version=_version,
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,
    )
    for name, path, text in _COMMANDS:
        app.command(path, name=name, help=text)
    return app


def run(tokens: Sequence[str]) -> int:
    """Runs one command line; its exit code."""
    as_json = asked_for_json(tokens)
    try:
        code = build()(list(tokens), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        path = " ".join(["hivefold", *(error.command_chain or ())])
        report_plain(str(error), f"see: {path} --help", reason=Reason.INVALID_ARGUMENT, as_json=as_json)
        return Exit.USAGE
    except HivefoldError as error:
        _debug()
        report(error, as_json=as_json)
        return exit_for(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`); keep the interpreter from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        _debug()
        report_plain(*_of_file(error), reason=Reason.FILE_UNREADABLE, as_json=as_json)
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 - people get a line, never a traceback
        _debug()
        hint = "a defect in hivefold: please report it; HIVEFOLD_DEBUG=1 shows where"
        report_plain(f"{type(error).__name__}: {error}", hint, reason=Reason.INTERNAL, as_json=as_json)
        return Exit.FAILED
    return int(code or Exit.OK)


def main() -> None:
    """The console script."""
    keep_freed_memory()
    sys.exit(run(sys.argv[1:]))


def _debug() -> None:
    """Lets the current error through with its traceback where a developer asked for it."""
    if os.environ.get("HIVEFOLD_DEBUG"):
        raise  # noqa: PLE0704 - called from except blocks only


def _of_file(error: OSError) -> tuple[str, str]:
    """What went wrong with a file, and what to do; one without a name is where the output goes."""
    if error.filename:
        return f"{error.filename}: {error.strerror}", "check the path and its permissions"
    return error.strerror or str(error), "look at the disk, and at where the output of this command goes"


def _version() -> str:
    from hivefold.version import VERSION

    return VERSION
