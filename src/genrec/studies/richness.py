"""How much a catalogue's titles say about what follows what, in seconds and without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from genrec.arrays import Ints
from genrec.data.dataset import Dataset
from genrec.data.splits import Split
from genrec.errors import DataError
from genrec.studies.other_titles import TITLES

PAIRS = 50_000
"""Most pairs of successive items that are compared."""


def title_richness(data: Dataset, titles: list[str], seed: int = 0) -> float:
    """Return how well the likeness of titles tells the next item from another one.

    For pairs of successive items, this is the probability that the title of the next item is more
    like that of the item before than the title of an item drawn by popularity; a tie counts half.
    0.5 means that titles say nothing. Likeness is the cosine of the words' TF-IDF vectors.

    Args:
        data: training data.
        titles: the title of each item.
        seed: seed of the drawn pairs and items.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(seed)
    before, after = _successive(data)
    chosen = rng.permutation(len(before))[:PAIRS]
    before, after = before[chosen], after[chosen]
    other = rng.choice(after, size=len(after))
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+").fit_transform(titles)
    right = np.asarray(words[before].multiply(words[after]).sum(axis=1)).ravel()
    wrong = np.asarray(words[before].multiply(words[other]).sum(axis=1)).ravel()
    different = (other != after) & (other != before)
    right, wrong = right[different], wrong[different]
    return float((right > wrong).mean() + 0.5 * (right == wrong).mean())


def _successive(data: Dataset) -> tuple[Ints, Ints]:
    items, offsets = data.histories.items.astype(np.int64), data.histories.offsets
    inner = np.ones(len(items), bool)
    inner[offsets[:-1][offsets[:-1] < len(items)]] = False  # the first item follows none
    places = np.flatnonzero(inner)
    return items[places - 1], items[places]


def richness_facts(split: Split) -> Mapping[str, Any]:
    """Return the richness of the titles as they are, with metadata, and permuted."""
    found = {}
    for form in ("real", "metadata", "permuted"):
        try:
            titles = TITLES[form](split.train, 0)
        except DataError:
            continue
        found[form] = round(title_richness(split.train, titles), 4)
    return {"title_richness": found}
