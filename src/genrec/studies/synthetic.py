"""Synthetic data of any size: titles made of a catalogue's words, histories with a long tail."""

from __future__ import annotations

import numpy as np
import polars as pl

from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories, offsets_of
from genrec.data.splits import Split
from genrec.studies.data import hold_out_positions

USERS, LENGTH = 2000, 30
"""Users and items of each history."""


def synthetic_split(split: Split, items: int, seed: int) -> Split:
    """Return a split of synthetic data with a catalogue of some size.

    Titles have as many words as those of the real catalogue and consist of its words. Items are
    chosen with a probability that falls with their number, as 1 / number.

    Args:
        split: the real data.
        items: number of items.
        seed: seed of all draws.
    """
    rng = np.random.default_rng(seed)
    titles = synthetic_titles(split.train.catalogue.titles, items, rng)
    ids = [str(number) for number in range(items)]
    weight = 1 / np.arange(1, items + 1)
    ends = np.cumsum(weight / weight.sum())
    drawn = np.searchsorted(ends, rng.random(USERS * LENGTH)).clip(max=items - 1)
    histories = Histories(
        drawn.astype(np.int32),
        offsets_of(np.full(USERS, LENGTH)),
        [str(user) for user in range(USERS)],
        np.tile(np.arange(LENGTH, dtype=np.float64), USERS),
    )
    data = Dataset(f"synthetic-{items}", Catalogue(ids, titles, pl.DataFrame()), histories)
    return hold_out_positions(data, 1)


def synthetic_titles(like: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return distinct titles of words of other titles.

    Args:
        like: the other titles.
        count: number of titles.
        rng: source of random numbers.
    """
    rows = [title.split() for title in like]
    words = np.array([word for row in rows for word in row])
    found: dict[str, None] = {}
    while len(found) < count:
        lengths = 1 + rng.choice([len(row) for row in rows], size=count - len(found))
        drawn = rng.choice(words, size=int(lengths.sum())).tolist()
        ends = np.cumsum(lengths).tolist()
        for length, end in zip(lengths.tolist(), ends, strict=True):
            found[" ".join(drawn[end - length : end])] = None
    return list(found)
