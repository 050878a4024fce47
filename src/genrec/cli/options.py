"""Command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import typer

from genrec.errors import ConfigError

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


def split_names(text: str) -> list[str]:
    """Return the names in a comma-separated list, without blanks around them."""
    return [name.strip() for name in text.split(",")]


def parse_assignments(assignments: list[str], options: Collection[str] = ()) -> dict[str, Any]:
    """Parse ``key=value`` strings from the command line.

    Args:
        assignments: strings such as ``"lora_rank=8"``; each value is read as YAML.
        options: settings that an option of their own gives already.

    Returns:
        The settings by key; YAML lists become tuples.

    Raises:
        ConfigError: A string has no ``=`` or no key, its value is not valid YAML, or a key is given
            twice.
    """
    import yaml

    settings: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set takes key=value, e.g. --set lora_rank=8; got {text!r}")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {key}: {value!r} is not a valid YAML value") from None
        if key.strip() in settings:
            raise ConfigError(f"--set {key.strip()} is given twice; give it once.")
        if key.strip() in options:
            option = f"--{key.strip().replace('_', '-')}"
            raise ConfigError(f"{option} and --set {key.strip()} are the same; give only {option}.")
        # YAML 1.1 reads 1e-3 as a string; Pydantic turns numeric strings into numbers.
        settings[key.strip()] = tuple(parsed) if isinstance(parsed, list) else parsed
    return settings
