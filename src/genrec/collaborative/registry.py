"""The registry of priors by name, and functions that save and load them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genrec.collaborative.cooccurrence import CooccurrencePrior
from genrec.collaborative.matrix import MAX_DENSE_ITEMS
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.popularity import PopularityPrior
from genrec.collaborative.prior import OLD_NAMES, Prior
from genrec.collaborative.sasrec import SASRecPrior
from genrec.collaborative.transitions import TransitionPrior
from genrec.data.histories import Histories
from genrec.errors import ConfigError, RunError
from genrec.files import UNREADABLE, read_arrays, write_arrays

PRIORS: dict[str, type[Prior]] = {
    "popularity": PopularityPrior,
    "cooccurrence": CooccurrencePrior,
    "transitions": TransitionPrior,
    "pooled": PooledPrior,
    "sasrec": SASRecPrior,
}
"""Priors by name, for ``Config.prior`` and saved files; add an entry to register another."""


def choose_prior(kind: str, n_items: int) -> str:
    """Resolve a prior's name, including ``"auto"`` and former names.

    Args:
        kind: a name, ``"none"`` or ``"auto"``. ``"auto"`` becomes ``"pooled"``, or
            ``"transitions"`` where the catalogue is too large for EASE.
        n_items: size of the catalogue.

    Raises:
        ConfigError: there is no prior of that name.
    """
    kind = OLD_NAMES.get(kind, kind)
    if kind in PRIORS or kind == "none":
        return kind
    if kind != "auto":
        raise ConfigError(f"Unknown prior {kind!r}. Use one of auto, none, {', '.join(PRIORS)}.")
    return "pooled" if n_items <= MAX_DENSE_ITEMS else "transitions"


def fit_prior(kind: str, histories: Histories, n_items: int) -> Prior | None:
    """Fit the named prior; return ``None`` for ``"none"``."""
    if kind == "none":
        return None
    return PRIORS[kind]().fit(histories, n_items)


def save_prior(prior: Prior, path: Path) -> None:
    """Write a prior to one ``.npz`` file without pickled objects.

    The file is written whole: readers never see a part of it.
    """
    write_arrays(path, {"kind": np.array(prior.kind), **prior.arrays()})


def load_prior(path: Path) -> Prior:
    """Read a prior that :func:`save_prior` wrote.

    Raises:
        RunError: the file is missing, damaged, or holds an unknown kind of prior.
    """
    try:
        arrays, _ = read_arrays(path)
        kind = str(arrays.pop("kind"))
        return PRIORS[OLD_NAMES.get(kind, kind)]().restore(arrays)
    except UNREADABLE as error:
        raise RunError(f"{path} holds no readable prior ({error}). Train the run again.") from None
