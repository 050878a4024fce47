"""GenRec: generative recommendation with large language models.

The names in ``__all__`` are the public interface. Their modules are imported on first use, so that
``import genrec`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genrec._version import __version__

if TYPE_CHECKING:
    from genrec import baselines
    from genrec.config import Config
    from genrec.data import splits
    from genrec.data.catalogue import Catalogue
    from genrec.data.dataset import Dataset
    from genrec.data.histories import Histories
    from genrec.data.interactions import read_interactions
    from genrec.data.loading import load_dataset
    from genrec.data.splits import Split, leave_last_out
    from genrec.errors import GenRecError, NotFittedError
    from genrec.evaluation.evaluate import evaluate
    from genrec.evaluation.results import Evaluation
    from genrec.model.genrec import GenRec
    from genrec.model.session import Session
    from genrec.recommender import Recommendation, Recommender
    from genrec.workflows.compare import compare

_HOME = {
    "Catalogue": "data.catalogue",
    "Config": "config",
    "Dataset": "data.dataset",
    "Evaluation": "evaluation.results",
    "GenRec": "model.genrec",
    "GenRecError": "errors",
    "Histories": "data.histories",
    "NotFittedError": "errors",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "Session": "model.session",
    "Split": "data.splits",
    "compare": "workflows.compare",
    "evaluate": "evaluation.evaluate",
    "leave_last_out": "data.splits",
    "load_dataset": "data.loading",
    "read_interactions": "data.interactions",
}
_NAMESPACES = {"baselines": "baselines", "splits": "data.splits"}

__all__ = [
    "Catalogue",
    "Config",
    "Dataset",
    "Evaluation",
    "GenRec",
    "GenRecError",
    "Histories",
    "NotFittedError",
    "Recommendation",
    "Recommender",
    "Session",
    "Split",
    "__version__",
    "baselines",
    "compare",
    "evaluate",
    "leave_last_out",
    "load_dataset",
    "read_interactions",
    "splits",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return import_module(f"genrec.{_NAMESPACES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'genrec' has no attribute {name!r}")
    return getattr(import_module(f"genrec.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
