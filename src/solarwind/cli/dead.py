"""`dead`: the dead letters of a purpose. Its subcommands are made from the table of operations."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Dead letters: events that a purpose gave up.")
