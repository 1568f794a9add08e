"""`hivefold log`: read the log, keep it in a file, look into it."""

from __future__ import annotations

from typing import Final

from cyclopts import App

_COMMANDS: Final = (
    ("tail", "cli.log.tail:tail", "Print the last records: position, time, term, cause, events."),
    ("replay", "cli.log.replay:replay", "Rebuild the state from the log."),
    ("export", "cli.log.export:export", "Write the log into one self-contained file."),
    ("verify", "cli.log.verify:verify", "Verify the log: every record, its order, the signatures."),
    ("segments", "cli.log.segments:segments", "List the parts of the log, and where each of them is."),
    ("rotate-key", "cli.log.rotate:rotate_key", "Have the log signed with a new key."),
    ("restore", "cli.log.restore:restore", "Put the log of a fleet back from its mirror or a file."),
    ("explain", "cli.log.explain:explain", "Tell what happened to a job, task, node or model, and why."),
    ("diff", "cli.log.diff:diff", "Tell what changed between two moments."),
    ("recheck", "cli.log.recheck:recheck", "Decide every record again with the code of today."),
)

app = App(name="log", help="Read the log, keep it in a file, look into it.")
for _name, _path, _text in _COMMANDS:
    app.command(_path, name=_name, help=_text)
