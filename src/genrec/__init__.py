"""GenRec: generative recommendation with large language models.

The names below are the public interface; they are loaded on first use, so that ``import genrec``
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genrec._version import __version__

if TYPE_CHECKING:
    from genrec.baselines import EASE, Cooccurrence, Pooled, Popularity, Transitions
    from genrec.data.catalogue import Catalogue
    from genrec.data.dataset import Dataset
    from genrec.data.histories import Histories
    from genrec.data.interactions import Interactions, read_interactions
    from genrec.data.loading import load_dataset
    from genrec.data.prepare import prepare
    from genrec.data.splits import Holdout, Split, global_time, leave_last_out
    from genrec.errors import GenRecError
    from genrec.evaluation.evaluate import evaluate
    from genrec.evaluation.results import Evaluation
    from genrec.model.genrec import GenRec
    from genrec.model.session import Session
    from genrec.recommender import Influence, Recommendation, Recommender, TopK

_HOME = {
    "Catalogue": "data.catalogue",
    "Cooccurrence": "baselines",
    "Dataset": "data.dataset",
    "EASE": "baselines",
    "Evaluation": "evaluation.results",
    "GenRec": "model.genrec",
    "GenRecError": "errors",
    "Histories": "data.histories",
    "Holdout": "data.splits",
    "Influence": "recommender",
    "Interactions": "data.interactions",
    "Transitions": "baselines",
    "Pooled": "baselines",
    "Popularity": "baselines",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "Session": "model.session",
    "Split": "data.splits",
    "TopK": "recommender",
    "evaluate": "evaluation.evaluate",
    "global_time": "data.splits",
    "leave_last_out": "data.splits",
    "load_dataset": "data.loading",
    "prepare": "data.prepare",
    "read_interactions": "data.interactions",
}

__all__ = [
    "EASE",
    "Catalogue",
    "Cooccurrence",
    "Dataset",
    "Evaluation",
    "GenRec",
    "GenRecError",
    "Histories",
    "Holdout",
    "Influence",
    "Interactions",
    "Pooled",
    "Popularity",
    "Recommendation",
    "Recommender",
    "Session",
    "Split",
    "TopK",
    "Transitions",
    "__version__",
    "evaluate",
    "global_time",
    "leave_last_out",
    "load_dataset",
    "prepare",
    "read_interactions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'genrec' has no attribute {name!r}")
    return getattr(import_module(f"genrec.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
