"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]


Users = Annotated[int | None, typer.Option(help="Test users, drawn by seed; all if not given.")]


Restart = Annotated[bool, typer.Option(help="Drop the checkpoints of a cut-off run.")]


Nll = Annotated[
    bool, typer.Option("--nll", help="Likelihood of the targets, too, where there is one.")
]


Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


Store = Annotated[str, typer.Option(help="SQLAlchemy URL of the event store.")]
