"""The registry of baselines by name, and functions that save and load them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self, cast, runtime_checkable

from genrec.arrays import Arrays, Floats
from genrec.baselines.neighbours import ItemKNN, ItemKNNBM25, P3Alpha
from genrec.baselines.slim import SLIM
from genrec.baselines.title_search import TitleSearch
from genrec.baselines.trend import Trend
from genrec.collaborative.cooccurrence import Cooccurrence
from genrec.collaborative.ease import EASE
from genrec.collaborative.pool import Pooled, PooledSASRec
from genrec.collaborative.popularity import Popularity, RecentPopularity
from genrec.collaborative.prior import OLD_NAMES as OLD_PRIORS
from genrec.collaborative.transitions import Transitions
from genrec.errors import ConfigError, RunError
from genrec.files import UNREADABLE, read_arrays, write_arrays
from genrec.recommender import Recommender

OLD_NAMES = {**OLD_PRIORS, "forward": "trend"}
"""Former names of baselines, which this version still accepts."""
COUNTS = "item_counts"
"""Key of the item counts in a saved file."""


@runtime_checkable
class Storable(Protocol):
    """A recommender of :data:`BASELINES` that can be written to a file."""

    @property
    def name(self) -> str:
        """Key in :data:`BASELINES`."""
        ...

    @property
    def item_counts(self) -> Floats | None:
        """Training interactions of each item, shape [items]; ``None`` if unknown."""
        ...

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON values."""
        ...

    def arrays(self) -> Arrays:
        """Return the fitted state."""
        ...

    def restore(self, arrays: Arrays) -> Self:
        """Load the state that :meth:`arrays` returned.

        Returns:
            The recommender itself.
        """
        ...


def _sasrec(seed: int) -> Recommender:
    from genrec.collaborative.sasrec import SASRec

    return SASRec(seed=seed)


def _p5(indexing: Any, seed: int) -> Recommender:
    from genrec.baselines.p5 import P5
    from genrec.baselines.p5_settings import P5Settings

    return P5(indexing, settings=P5Settings(seed=seed))


BASELINES: Mapping[str, Callable[[int], Recommender]] = MappingProxyType(
    {
        "popularity": lambda seed: Popularity(),
        "popularity-recent": lambda seed: RecentPopularity(),
        "title-search": lambda seed: TitleSearch(),
        "itemknn": lambda seed: ItemKNN(),
        "itemknn-bm25": lambda seed: ItemKNNBM25(),
        "p3alpha": lambda seed: P3Alpha(),
        "ease": lambda seed: EASE(),
        "slim": lambda seed: SLIM(),
        "cooccurrence": lambda seed: Cooccurrence(),
        "transitions": lambda seed: Transitions(),
        "pooled": lambda seed: Pooled(),
        "pooled-sasrec": lambda seed: PooledSASRec(seed),
        "trend": lambda seed: Trend(),
        "sasrec": _sasrec,
        "p5-sequential": lambda seed: _p5("sequential", seed),
        "p5-shuffled": lambda seed: _p5("shuffled", seed),
    }
)
"""Functions from a seed to an unfitted baseline, by name, in the order of result tables."""


def make_baseline(name: str, seed: int = 0) -> Recommender:
    """Create an unfitted baseline with its default settings.

    Args:
        name: a key of :data:`BASELINES` or a former name.
        seed: random seed; most baselines are deterministic and ignore it.

    Raises:
        ConfigError: there is no baseline of that name.
    """
    name = OLD_NAMES.get(name, name)
    if name not in BASELINES:
        close = difflib.get_close_matches(name, BASELINES, n=1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"Unknown baseline {name!r}. {meant}Use one of {', '.join(BASELINES)}.")
    return BASELINES[name](seed)


def save_baseline(recommender: Recommender, path: str | Path) -> None:
    """Write a fitted baseline to one ``.npz`` file without pickled objects.

    The file is written whole: readers never see a part of it.

    Raises:
        ConfigError: the recommender is not one of :data:`BASELINES`.
    """
    if not (isinstance(recommender, Storable) and recommender.name in BASELINES):
        raise ConfigError(
            f"{recommender.name} is not a baseline. Save it with its own method instead."
        )
    head = {"kind": recommender.name, "settings": recommender.arguments()}
    counts = {} if recommender.item_counts is None else {COUNTS: recommender.item_counts}
    write_arrays(Path(path), {**recommender.arrays(), **counts}, head)


def load_baseline(path: str | Path) -> Recommender:
    """Read a baseline that :func:`save_baseline` wrote.

    Raises:
        RunError: the file is missing, damaged, or holds something else.
    """
    try:
        arrays, head = read_arrays(Path(path))
        kind: Any = type(make_baseline(head["kind"]))
        counts = arrays.pop(COUNTS, None)
        restored = kind(**head["settings"]).restore(arrays)
        restored._item_counts, restored.fitted = counts, True
    except (*UNREADABLE, ConfigError) as error:
        raise RunError(
            f"{path} holds no readable baseline ({error}). Fit the baseline and save it again."
        ) from None
    return cast(Recommender, restored)
