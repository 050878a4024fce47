"""Recommenders without a language model, under the same contract as GenRec."""

from __future__ import annotations

from genrec.baselines.counting import Cooccurrence, Kernel, Popularity

BASELINES = (Popularity, Cooccurrence, Kernel)
"""What every run is compared with, weakest first."""

__all__ = ["BASELINES", "Cooccurrence", "Kernel", "Popularity"]
