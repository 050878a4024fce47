"""GenRec: generative recommendation with large language models.

The names below are the public interface; they are loaded on first use, so that ``import genrec``
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genrec._version import __version__

if TYPE_CHECKING:
    from genrec.baselines import Cooccurrence, Ease, Kernel, Pooled, Popularity
    from genrec.catalogue import Catalogue
    from genrec.data import load_dataset
    from genrec.errors import GenRecError
    from genrec.evaluation import Evaluation, evaluate
    from genrec.histories import (
        Dataset,
        Histories,
        Holdout,
        Split,
        global_time,
        leave_last_out,
        prepare,
    )
    from genrec.interactions import Interactions, read_interactions
    from genrec.model import GenRec
    from genrec.recommender import Influence, Recommendation, Recommender, TopK
    from genrec.session import Session

_HOME = {
    "Catalogue": "catalogue",
    "Cooccurrence": "baselines",
    "Dataset": "histories",
    "Ease": "baselines",
    "Evaluation": "evaluation",
    "GenRec": "model",
    "GenRecError": "errors",
    "Histories": "histories",
    "Holdout": "histories",
    "Influence": "recommender",
    "Interactions": "interactions",
    "Kernel": "baselines",
    "Pooled": "baselines",
    "Popularity": "baselines",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "Session": "session",
    "Split": "histories",
    "TopK": "recommender",
    "evaluate": "evaluation",
    "global_time": "histories",
    "leave_last_out": "histories",
    "load_dataset": "data",
    "prepare": "histories",
    "read_interactions": "interactions",
}

__all__ = [
    "Catalogue",
    "Cooccurrence",
    "Dataset",
    "Ease",
    "Evaluation",
    "GenRec",
    "GenRecError",
    "Histories",
    "Holdout",
    "Influence",
    "Interactions",
    "Kernel",
    "Pooled",
    "Popularity",
    "Recommendation",
    "Recommender",
    "Session",
    "Split",
    "TopK",
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
