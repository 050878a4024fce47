"""The registry of priors by name, and functions that save and load them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from genrec.collaborative.cooccurrence import CooccurrencePrior
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.popularity import PopularityPrior
from genrec.collaborative.prior import OLD_NAMES, Prior
from genrec.collaborative.transitions import TransitionPrior
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, RunError
from genrec.files import UNREADABLE, map_array_folder, read_arrays, write_array_folder

PRIORS: dict[str, type[Prior]] = {
    "popularity": PopularityPrior,
    "cooccurrence": CooccurrencePrior,
    "transitions": TransitionPrior,
    "pooled": PooledPrior,
}
"""Priors by name, for ``Config.prior`` and saved files; add an entry to register another."""

MAX_POOLED_ITEMS = 100_000
"""Largest catalogue for which ``"auto"`` becomes ``"pooled"``, whose distributions are dense."""


def choose_prior(kind: str, n_items: int) -> str:
    """Resolve a prior's name, including ``"auto"`` and former names.

    Args:
        kind: a name, ``"none"`` or ``"auto"``. ``"auto"`` becomes ``"pooled"``, or
            ``"transitions"`` where the catalogue is too large for dense distributions.
        n_items: size of the catalogue.

    Raises:
        ConfigError: there is no prior of that name.
    """
    kind = OLD_NAMES.get(kind, kind)
    if kind in PRIORS or kind == "none":
        return kind
    if kind == "sasrec":
        raise ConfigError(
            "SASRec is no prior of its own; let it join the pooled one with experts=transitions,"
            "ease,slit,text,recency,popularity,sasrec."
        )
    if kind != "auto":
        raise ConfigError(f"Unknown prior {kind!r}. Use one of auto, none, {', '.join(PRIORS)}.")
    return "pooled" if n_items <= MAX_POOLED_ITEMS else "transitions"


def fit_prior(
    kind: str,
    train: Dataset,
    valid: Holdout | None = None,
    experts: Sequence[str] | None = None,
) -> Prior | None:
    """Fit the named prior; return ``None`` for ``"none"``.

    Args:
        kind: a key of :data:`PRIORS` or ``"none"``.
        train: the training data.
        valid: validation targets, on which the pool's weights are fitted.
        experts: names of the pool's experts; if ``None``, they are chosen on validation targets.
    """
    if kind == "none":
        return None
    if kind == "pooled":
        return PooledPrior(experts).fit(train, valid)
    counting: Any = PRIORS[kind]()
    return cast(Prior, counting.fit(train.histories, len(train.catalogue)))


def save_prior(prior: Prior, folder: Path) -> None:
    """Write a prior to a new folder, one file per array, without pickled objects."""
    write_array_folder(folder, {"kind": np.array(prior.kind), **prior.arrays()})


def load_prior(path: Path) -> Prior:
    """Load a prior that :func:`save_prior` wrote; its arrays are memory-mapped.

    Args:
        path: the folder; or a compressed ``.npz`` file of the same arrays, for a model that is
            shipped.

    Raises:
        RunError: a file is missing, damaged, or holds an unknown kind of prior.
    """
    try:
        arrays = read_arrays(path)[0] if path.suffix == ".npz" else map_array_folder(path)
        kind = str(arrays.pop("kind"))
        return PRIORS[OLD_NAMES.get(kind, kind)]().restore(arrays)
    except UNREADABLE as error:
        raise RunError(f"{path} holds no readable prior ({error}). Train the run again.") from None
