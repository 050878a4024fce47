"""Recommenders without a language model, with the same interface as GenRec."""

from __future__ import annotations

from genrec.baselines.neighbours import ItemKNN, ItemKNNBM25, P3Alpha
from genrec.baselines.registry import BASELINES, load_baseline, make_baseline, save_baseline
from genrec.baselines.slim import SLIM
from genrec.baselines.title_search import TitleSearch
from genrec.baselines.trend import Trend
from genrec.collaborative.cooccurrence import Cooccurrence
from genrec.collaborative.ease import EASE
from genrec.collaborative.matrix import MAX_DENSE_ITEMS
from genrec.collaborative.pool import Pooled
from genrec.collaborative.popularity import Popularity, RecentPopularity
from genrec.collaborative.registry import MAX_POOLED_ITEMS
from genrec.collaborative.transitions import Transitions
from genrec.recommender import Recommender

__all__ = [
    "BASELINES",
    "EASE",
    "SLIM",
    "Cooccurrence",
    "ItemKNN",
    "ItemKNNBM25",
    "P3Alpha",
    "Pooled",
    "Popularity",
    "RecentPopularity",
    "TitleSearch",
    "Transitions",
    "Trend",
    "baselines",
    "load_baseline",
    "make_baseline",
    "save_baseline",
]


def baselines(n_items: int) -> list[Recommender]:
    """Return the baselines for a catalogue of this size; the default prior comes last."""
    found: list[Recommender] = [Popularity(), Cooccurrence(), Transitions()]
    if n_items <= MAX_DENSE_ITEMS:
        found.append(EASE())
    return [*found, Pooled()] if n_items <= MAX_POOLED_ITEMS else found
