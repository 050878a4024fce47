"""Slices: groups of users, by the popularity of their target and the length of their history."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from genrec.arrays import Integers, Mask
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout

HEAD = 0.2
"""Share of the catalogue, by popularity, that is the head; the other items are the long tail."""
BUCKETS = 4
"""Number of buckets for popularity and history length."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A group of a holdout's targets.

    Attributes:
        group: property by which they are grouped.
        name: short name, for tables.
        definition: the property's range in words, for tables.
        rows: targets in the group, bool [targets].
    """

    group: str
    name: str
    definition: str
    rows: Mask = field(repr=False)


def slices(holdout: Holdout, train: Dataset) -> list[Slice]:
    """Group users by target (cold, long tail, head), by its popularity, and by history length.

    Popularity is counted in ``train``. Slices without users are left out.
    """
    counts = np.bincount(train.histories.items, minlength=len(train.catalogue))
    popularity = counts[holdout.targets]
    found = [
        *_kinds(popularity, head(counts)[holdout.targets]),
        *_buckets("target's popularity", "interactions", popularity, popularity > 0),
        *_buckets("history", "items", holdout.histories.lengths),
    ]
    return [each for each in found if each.rows.any()]


def head(counts: Integers) -> Mask:
    """Return which items are among the most popular fifth of the catalogue, bool [items]."""
    order = np.argsort(-counts, kind="stable")
    flags = np.zeros(len(counts), dtype=bool)
    flags[order[: round(HEAD * len(counts))]] = True
    return flags & (counts > 0)


def _kinds(popularity: Integers, in_head: Mask) -> list[Slice]:
    cold = popularity == 0
    return [
        Slice("target", "cold", "no training interaction with the target", cold),
        Slice("target", "long tail", "not of the most popular fifth", ~cold & ~in_head),
        Slice("target", "head", "of the most popular fifth of the catalogue", in_head),
    ]


def _buckets(group: str, unit: str, values: Integers, where: Mask | None = None) -> list[Slice]:
    """Return buckets with about equally many users, or fewer buckets where values repeat."""
    where = np.ones(len(values), dtype=bool) if where is None else where
    if not where.any():
        return []
    quantiles = np.quantile(values[where], np.linspace(0, 1, BUCKETS + 1)[1:], method="lower")
    ends = np.unique(quantiles)
    starts = np.append(values[where].min(), ends[:-1] + 1)
    return [
        Slice(
            group,
            f"{start}" if start == end else f"{start} to {end}",
            f"{group}: {start} to {end} {unit}",
            where & (values >= start) & (values <= end),
        )
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
