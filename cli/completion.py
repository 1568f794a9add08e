"""`hivefold completion`: lets the shell complete commands and options."""

from __future__ import annotations

from typing import Literal

from cyclopts import App
from cyclopts.completion.detect import ShellDetectionError

from cli.output import note
from hivefold.errors import InvalidRequestError

Shell = Literal["bash", "zsh", "fish", "powershell"]

app = App(name="completion")


@app.command
def show(shell: Shell) -> None:
    """Print the completion script.

    Parameters
    ----------
    shell
        The shell that it is for.
    """
    from cli.main import build

    print(build().generate_completion(shell=shell))


@app.command
def install(shell: Shell | None = None, *, startup: bool = True) -> None:
    """Write the completion script where the shell looks for it.

    Parameters
    ----------
    shell
        The shell that it is for; without it the one that runs this command.
    startup
        Also add the line to the shell's startup file that loads it.
    """
    from cli.main import build

    try:
        path = build().install_completion(shell=shell, add_to_startup=startup)
    except ShellDetectionError:
        raise InvalidRequestError("which shell this is cannot be told: name it, e.g. bash") from None
    note(f"wrote {path}; it takes effect in a new shell")
