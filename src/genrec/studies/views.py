"""Views: changes of a split that a study needs, by name.

A view is written ``name=value``, such as ``titles=permuted`` or ``users=0.25``. It changes titles,
histories or the number of training users, but never which targets are held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from genrec.arrays import Mask
from genrec.collaborative.words import item_facts, stems
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories, offsets_of
from genrec.data.splits import Split
from genrec.errors import DataError
from genrec.studies.data import LIKED, known_ratings
from genrec.studies.other_titles import TITLES
from genrec.studies.other_words import OTHER_WORDS
from genrec.studies.synthetic import synthetic_split

LIKED_ONLY = "history=liked"
"""The view that hides items that a user rated, but did not like."""


def apply_views(split: Split, views: Sequence[str], seed: int) -> Split:
    """Return a split after all changes, in their order.

    Args:
        split: the split.
        views: the changes, each ``name=value``.
        seed: seed of random changes.

    Raises:
        DataError: The data lack what a view needs, such as ratings.
    """
    for view in views:
        name, _, value = view.partition("=")
        split = VIEWS[name](split, value, seed)
    return split


def _titles(split: Split, form: str, seed: int) -> Split:
    """Give all items other titles."""
    known = split.train.catalogue
    catalogue = Catalogue(known.item_ids, TITLES[form](split.train, seed), known.metadata)
    return _over(split, catalogue)


def _over(split: Split, catalogue: Catalogue) -> Split:
    train = replace(split.train, catalogue=catalogue)
    valid, test = (replace(each, catalogue=catalogue) for each in (split.valid, split.test))
    return replace(split, train=train, valid=valid, test=test)


def _users(split: Split, share: str, seed: int) -> Split:
    """Keep a share of the training users; held-out targets stay."""
    histories = split.train.histories
    count = max(1, round(float(share) * len(histories)))
    rows = np.sort(np.random.default_rng(seed).permutation(len(histories))[:count])
    return replace(split, train=replace(split.train, histories=histories.select(rows)))


def _history(split: Split, kind: str, seed: int) -> Split:
    """Change histories: ``liked`` keeps liked items, ``shuffled`` mixes the ratings."""
    change = {"liked": _liked, "shuffled": _shuffled}[kind]
    name = split.train.name
    train = replace(split.train, histories=change(split.train.histories, name, seed))
    valid = replace(split.valid, histories=change(split.valid.histories, name, seed + 1))
    return replace(split, train=train, valid=valid)


def _liked(histories: Histories, name: str, seed: int) -> Histories:
    return filtered(histories, known_ratings(histories, name) >= LIKED)


def _shuffled(histories: Histories, name: str, seed: int) -> Histories:
    ratings = np.random.default_rng(seed).permutation(known_ratings(histories, name))
    return replace(histories, ratings=ratings)


def filtered(histories: Histories, keep: Mask) -> Histories:
    """Return histories with some of their items, bool [n]."""
    running = offsets_of(keep)
    lengths = running[histories.offsets[1:]] - running[histories.offsets[:-1]]
    ratings = None if histories.ratings is None else histories.ratings[keep]
    return Histories(
        histories.items[keep],
        offsets_of(lengths),
        histories.user_ids,
        histories.timestamps[keep],
        ratings,
    )


def _synthetic(split: Split, items: str, seed: int) -> Split:
    """Replace the data by synthetic ones with some number of items."""
    return synthetic_split(split, int(items), seed)


def _words(split: Split, kind: str, seed: int) -> Split:
    """Let held-out users ask for something.

    ``one`` is one word from the metadata or the decade of the target, ``all`` are all of them, and
    ``misleading`` is one word of another item's, drawn by popularity. ``genre`` is one word of the
    target's metadata for which :data:`.OTHER_WORDS` knows other words, and ``synonym`` is one of
    these; both users without such a word ask for nothing.
    """
    facts = [fact.split() for fact in item_facts(split.train.catalogue)]
    if not any(facts):
        raise DataError(f"{split.train.name} has no metadata and no years to ask with.")
    rng = np.random.default_rng(seed)
    targets = split.valid.targets
    meant = rng.permutation(targets) if kind == "misleading" else targets
    if kind in ("genre", "synonym"):
        facts = [
            [word for word in stems(" ".join(fact)).split() if word in OTHER_WORDS]
            for fact in facts
        ]
    words = [
        " ".join(facts[item] if kind == "all" else _one(facts[item], rng))
        for item in meant.tolist()
    ]
    if kind == "synonym":
        words = [word and rng.choice(OTHER_WORDS[word]) for word in words]
    histories = replace(split.valid.histories, words=words)
    return replace(split, valid=replace(split.valid, histories=histories))


def _one(words: list[str], rng: np.random.Generator) -> list[str]:
    return [words[rng.integers(len(words))]] if words else []


def _metadata(split: Split, share: str, seed: int) -> Split:
    """Keep the metadata of a share of the items; the others have none."""
    known = split.train.catalogue
    kept = np.random.default_rng(seed).random(len(known)) < float(share)
    table = known.metadata.with_columns(
        pl.when(pl.Series(kept)).then(pl.col(name)).alias(name) for name in known.metadata.columns
    )
    return _over(split, Catalogue(known.item_ids, known.titles, table))


View = Callable[[Split, str, int], Split]
VIEWS: Mapping[str, View] = {
    "titles": _titles,
    "users": _users,
    "synthetic": _synthetic,
    "words": _words,
    "metadata": _metadata,
    "history": _history,
}
"""The views by name."""
