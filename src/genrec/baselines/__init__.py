"""Recommenders without a language model, under the same contract as GenRec."""

from genrec.baselines.counting import Cooccurrence, Popularity

__all__ = ["Cooccurrence", "Popularity"]
