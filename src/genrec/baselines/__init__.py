"""Recommenders without a language model, under the same contract as GenRec."""

from __future__ import annotations

from genrec.baselines.counting import Cooccurrence, Kernel, Pooled, Popularity, RecentPopularity
from genrec.baselines.forward import Forward
from genrec.baselines.linear import Ease
from genrec.baselines.neighbours import ItemKnn, ItemKnnBm25, P3Alpha
from genrec.baselines.registry import BASELINES, load_baseline, make_baseline, save_baseline
from genrec.baselines.slim import Slim
from genrec.baselines.title_search import TitleSearch
from genrec.ease import MOST_ITEMS
from genrec.recommender import Recommender

__all__ = [
    "BASELINES",
    "Cooccurrence",
    "Ease",
    "Forward",
    "ItemKnn",
    "ItemKnnBm25",
    "Kernel",
    "P3Alpha",
    "Pooled",
    "Popularity",
    "RecentPopularity",
    "Slim",
    "TitleSearch",
    "baselines",
    "load_baseline",
    "make_baseline",
    "save_baseline",
]


def baselines(n_items: int) -> list[Recommender]:
    """What a run on a catalogue of this size is compared with; the default prior comes last."""
    small: list[Recommender] = [Popularity(), Cooccurrence(), Kernel()]
    return [*small, Ease(), Pooled()] if n_items <= MOST_ITEMS else small
