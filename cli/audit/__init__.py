"""`hivefold audit`: see what was asked of models, and check it against the log."""

from __future__ import annotations

from cyclopts import App

app = App(name="audit", help="See what was asked of models, and check it against the log.")
app.command(
    "cli.audit.inference:inference", name="inference", help="Show what was inferred, by model and node, from the log."
)
