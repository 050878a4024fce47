"""Recommenders without a language model, under the same contract as GenRec."""

from __future__ import annotations

from genrec.baselines.counting import Cooccurrence, Popularity

__all__ = ["Cooccurrence", "Popularity"]
