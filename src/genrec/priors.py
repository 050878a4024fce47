"""Item distributions that cost no language model: popularity and directed co-occurrence.

A prior gives every item a probability q(item | history). The trie turns it into a mass for each
child by a prefix-sum difference, which the language model's logits then correct.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from genrec.errors import RunError
from genrec.histories import Histories

Floats = npt.NDArray[np.float64]
Items = npt.NDArray[np.int32]

GAP = 5
"""Pairs further apart than this in a history are not counted."""
GAP_DECAY = 0.8
RECENCY_DECAY = 0.8
SHRINKAGE = 5.0
"""Added to an item's count when its row is normalised: rare items say little."""
HISTORY = 20
"""Most recent history items that vote."""
SMOOTHING = 1.0
"""Weight of popularity beside the votes; an average history has about ten units of votes."""


class Prior(Protocol):
    """A distribution over the catalogue that is fitted by counting."""

    kind: ClassVar[str]

    def fit(self, histories: Histories, n_items: int) -> Self:
        """Count interactions of the training split; returns itself."""
        ...

    def probabilities(self, histories: Histories) -> Floats:
        """q(item | history) for each row, shape [rows, items]; rows sum to 1, all positive."""
        ...

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        """q at positions of one training history, as if that user had not been counted.

        Without the subtraction the counts would leak each target to the model in training.

        Returns:
            Shape [stop - start, items]; the row of position ``t`` is given ``history[:t]``.
        """
        ...

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What :func:`save_prior` writes."""
        ...

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """Inverse of :meth:`arrays`; returns itself."""
        ...


class PopularityPrior:
    """q is the share of interactions, with one pseudo-count per item; it ignores the history."""

    kind: ClassVar[str] = "popularity"
    counts: Floats

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.counts = np.bincount(histories.items, minlength=n_items).astype(np.float64)
        return self

    def probabilities(self, histories: Histories) -> Floats:
        return np.tile(_share(self.counts), (len(histories), 1))

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        own = np.bincount(history, minlength=len(self.counts))
        return np.tile(_share(self.counts - own), (stop - start, 1))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"counts": self.counts}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        self.counts = arrays["counts"]
        return self


class CooccurrencePrior:
    """Directed co-occurrence: what followed the last items within a few steps, in other histories.

    ``votes(j) = sum over history items i of RECENCY_DECAY**age(i) * C[i, j] / (count(i) + 5)``
    where ``C[i, j]`` sums ``GAP_DECAY**(gap - 1)`` over every time j followed i at most ``GAP``
    steps later. The distribution is the votes plus a little popularity; items already in the
    history keep only the share of repeats that the log shows.
    """

    kind: ClassVar[str] = "cooccurrence"
    transitions: sp.csr_array[Any]
    counts: Floats
    repeat_share: float

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.transitions = _transitions(histories, n_items)
        self.counts = np.bincount(histories.items, minlength=n_items).astype(np.float64)
        self.repeat_share = _repeat_share(histories)
        return self

    def votes(self, histories: Histories) -> sp.csr_array[Any]:
        """Votes of each history's last items for every item, sparse, shape [rows, items]."""
        recent = histories.tail(HISTORY)
        lengths = np.diff(recent.offsets)
        rows = np.repeat(np.arange(len(recent)), lengths)
        age = np.repeat(recent.offsets[1:], lengths) - 1 - np.arange(len(recent.items))
        weight = RECENCY_DECAY**age / (self.counts[recent.items] + SHRINKAGE)
        shape = (len(recent), len(self.counts))
        voters = sp.csr_array((weight, (rows, recent.items)), shape=shape)
        return sp.csr_array(voters @ self.transitions)

    def probabilities(self, histories: Histories) -> Floats:
        votes = self.votes(histories).toarray() + SMOOTHING * _share(self.counts)
        rows = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
        seen = np.zeros(votes.shape, dtype=bool)
        seen[rows, histories.items] = True
        return _discount_repeats(votes, seen, self.repeat_share)

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        n_items = len(self.counts)
        own = Histories.from_lists([history.tolist()])
        counts = self.counts - np.bincount(history, minlength=n_items)
        first = max(0, start - HISTORY)
        voters = history[first : stop - 1] if stop > 1 else history[:0]
        others = self.transitions[voters] - _transitions(own, n_items)[voters]
        age = np.arange(start, stop)[:, None] - 1 - np.arange(first, first + len(voters))
        weight = np.where((age >= 0) & (age < HISTORY), RECENCY_DECAY ** np.maximum(age, 0), 0.0)
        votes = np.asarray(weight / (counts + SHRINKAGE)[voters] @ others.toarray())
        votes = np.maximum(votes, 0.0)  # subtraction leaves rounding errors below zero
        votes += SMOOTHING * _share(counts)
        return _discount_repeats(
            votes, _seen_before(history, start, stop, n_items), self.repeat_share
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        matrix = self.transitions
        return {
            "data": matrix.data,
            "indices": matrix.indices,
            "indptr": matrix.indptr,
            "counts": self.counts,
            "repeat_share": np.array(self.repeat_share),
        }

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        self.counts = arrays["counts"]
        self.repeat_share = float(arrays["repeat_share"])
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        self.transitions = sp.csr_array(parts, shape=(len(self.counts), len(self.counts)))
        return self


PRIORS: dict[str, type[PopularityPrior] | type[CooccurrencePrior]] = {
    "popularity": PopularityPrior,
    "cooccurrence": CooccurrencePrior,
}


def fit_prior(kind: str, histories: Histories, n_items: int) -> Prior | None:
    """Fit the named prior, or return ``None`` for ``"none"``."""
    if kind == "none":
        return None
    return cast(Prior, PRIORS[kind]().fit(histories, n_items))


def save_prior(prior: Prior, path: Path) -> None:
    """Write a prior as one ``.npz`` without pickled objects; the file appears only when whole."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        arrays: dict[str, Any] = {"kind": np.array(prior.kind), **prior.arrays()}
        np.savez_compressed(file, **arrays)
    os.replace(partial, path)


def load_prior(path: Path) -> Prior:
    """Read what :func:`save_prior` wrote.

    Raises:
        RunError: the file is missing, damaged or holds an unknown kind of prior.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return cast(Prior, PRIORS[str(arrays.pop("kind"))]().restore(arrays))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: no readable prior ({error}); train the run again.") from None


def _share(counts: Floats) -> Floats:
    smoothed = counts + 1.0
    return cast(Floats, smoothed / smoothed.sum())


def _transitions(histories: Histories, n_items: int) -> sp.csr_array[Any]:
    items = histories.items
    row = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    total = sp.csr_array((n_items, n_items), dtype=np.float64)
    for gap in range(1, GAP + 1):
        inside = row[gap:] == row[:-gap]
        pairs = (items[:-gap][inside], items[gap:][inside])
        weights = np.full(int(inside.sum()), GAP_DECAY ** (gap - 1))
        total = total + sp.csr_array((weights, pairs), shape=(n_items, n_items))
    return sp.csr_array(total)


def _repeat_share(histories: Histories) -> float:
    """Share of interactions with an item the user had before, with one pseudo-count each way."""
    row = np.repeat(np.arange(len(histories)), np.diff(histories.offsets)).astype(np.int64)
    distinct = len(np.unique(row << 32 | histories.items))
    return (len(row) - distinct + 1) / (len(row) + 2)


def _seen_before(history: Items, start: int, stop: int, n_items: int) -> npt.NDArray[np.bool_]:
    """Which items each position in ``start:stop`` has behind it, shape [stop - start, items]."""
    seen = np.zeros((stop - start, n_items), dtype=bool)
    seen[0, history[:start]] = True
    seen[np.arange(1, stop - start), history[start : stop - 1]] = True
    return np.logical_or.accumulate(seen, axis=0)


def _discount_repeats(votes: Floats, seen: npt.NDArray[np.bool_], repeat_share: float) -> Floats:
    votes[seen] *= repeat_share
    votes /= votes.sum(axis=1, keepdims=True)
    return votes
