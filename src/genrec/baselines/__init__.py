"""Recommenders without a language model, under the same contract as GenRec."""

from __future__ import annotations

from genrec.baselines.counting import Cooccurrence, Ease, Kernel, Pooled, Popularity
from genrec.ease import MOST_ITEMS
from genrec.recommender import Recommender

__all__ = ["Cooccurrence", "Ease", "Kernel", "Pooled", "Popularity", "baselines"]


def baselines(n_items: int) -> list[Recommender]:
    """What a run on a catalogue of this size is compared with; the default prior comes last."""
    small: list[Recommender] = [Popularity(), Cooccurrence(), Kernel()]
    return [*small, Ease(), Pooled()] if n_items <= MOST_ITEMS else small
