"""Command-line options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Dataset = Annotated[
    str,
    typer.Argument(help="Name of a known data set (`genrec data list`) or a prepared folder."),
]


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON to standard output.")]


Users = Annotated[
    int | None,
    typer.Option(help="Number of test users, drawn at random with --seed; all if omitted."),
]


Restart = Annotated[
    bool,
    typer.Option(help="Delete the checkpoints of an interrupted run and train from the start."),
]


ExcludeSeen = Annotated[
    bool | None,
    typer.Option(
        "--exclude-seen/--include-seen",
        help="Whether lists leave out items of the user's own history. Default: yes, unless the "
        "training histories often repeat items.",
    ),
]


Nll = Annotated[
    bool,
    typer.Option(
        "--nll",
        help="Also report the negative log-likelihood of the targets (nats per item) for models "
        "that define one.",
    ),
]


Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]


Store = Annotated[
    str,
    typer.Option(help="SQLAlchemy URL of the event store, e.g. sqlite:///runs/mine.events.db."),
]
