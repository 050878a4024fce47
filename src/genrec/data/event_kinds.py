"""Kinds of events in a log, such as view and purchase, and which of them count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from genrec.data.columns import no_column
from genrec.errors import DataError

DISLIKES = ("dislike", "hide", "remove_from_cart", "return", "refund")
"""Kinds of events that say that a user does not want an item, or no longer."""

SHOWN = 5
"""Most kinds that a note names."""


def wanted_events(
    frame: pl.DataFrame, column: str | None, positive: Sequence[str] | None, path: Path
) -> tuple[pl.Series | None, list[str]]:
    """Choose the events of some kinds.

    Args:
        frame: the rows of a log.
        column: the column of the kinds, or ``None`` if the log has none.
        positive: the kinds to keep, in any case; all but :data:`DISLIKES` if ``None``.
        path: the file, for messages.

    Returns:
        Whether each event is chosen (``None`` for all), and what a user should know about them.

    Raises:
        DataError: Kinds are named but there is no column of kinds, or no event is left.
    """
    if column is None:
        if positive is None:
            return None, []
        raise no_column(path, "kind column", "kind", frame.columns)
    kinds = frame[column].cast(pl.String).str.strip_chars().str.to_lowercase()
    notes = []
    if positive is None:
        wanted = ~kinds.is_in(DISLIKES).fill_null(False)
        dropped = ", ".join(each for each in DISLIKES if each in kinds)
    else:
        wanted = kinds.is_in([each.lower() for each in positive]).fill_null(False)
        dropped = f"others than {', '.join(positive)}"
        if absent := [each for each in positive if each.lower() not in kinds]:
            notes.append(f"{path}: no event has the kind {', '.join(absent)}")
    if not wanted.any():
        found = ", ".join(kinds.drop_nulls().unique().sort().head(10))
        raise DataError(
            f"{path}: no event of column {column!r} has a positive kind (the kinds are "
            f"{found}); choose some with --positive KINDS"
        )
    if out := (~wanted).sum():
        notes.append(f"{path}: left out {out} events of the kinds {dropped} (column {column!r})")
    if positive is None:
        notes += _several(kinds.filter(wanted), column, path)
    return wanted, notes


def _several(kinds: pl.Series, column: str, path: Path) -> list[str]:
    """Return a note if events of several kinds count alike."""
    counts = kinds.drop_nulls().value_counts(sort=True, name="rows")
    if counts.height < 2:
        return []
    found = ", ".join(f"{kind} ({rows})" for kind, rows in counts.head(SHOWN).iter_rows())
    more = f" and {counts.height - SHOWN} more" if counts.height > SHOWN else ""
    alike = f"events of all kinds in column {column!r} count alike: {found}{more}"
    return [f"{path}: {alike}; choose with --positive KINDS"]
