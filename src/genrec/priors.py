"""Item distributions that cost no language model: popularity and directed co-occurrence.

A prior gives every item a probability q(item | history). The trie turns it into a mass for each
child by a prefix-sum difference, which the language model's logits then correct.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from genrec.errors import RunError
from genrec.histories import Histories
from genrec.kernel import (
    FIXED,
    HISTORY,
    SHRINKAGE,
    Kernel,
    combine,
    count_by_gap,
    fit_kernel,
    own_transitions,
    seen_before,
    share,
)

Floats = npt.NDArray[np.float64]
Items = npt.NDArray[np.int32]


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

    def extended(self, like: Sequence[int | None]) -> Self:
        """The prior with further items at its end, each as an item it is ``like``.

        An item that is like ``None`` gets the mean number of interactions and no transitions.
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
        return np.tile(share(self.counts), (len(histories), 1))

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        own = np.bincount(history, minlength=len(self.counts))
        return np.tile(share(self.counts - own), (stop - start, 1))

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.counts = _extended_counts(self.counts, like)
        return longer

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"counts": self.counts}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        self.counts = arrays["counts"]
        return self


class CooccurrencePrior:
    """Directed co-occurrence: what followed the last items within a few steps, in other histories.

    ``votes(j) = sum over history items i of recency[age(i)] * C[i, j] / (count(i) + SHRINKAGE)``
    where ``C[i, j]`` sums ``gap[g]`` over every time j followed i at gap g. The distribution is the
    votes plus a little popularity; items already in the history keep only the share of repeats that
    the log shows. The weights are fixed: gaps up to 5, both decays .8.
    """

    kind: ClassVar[str] = "cooccurrence"
    kernel: Kernel
    transitions: list[sp.csr_array[Any]]
    counts: Floats
    repeat_share: float

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.counts = np.bincount(histories.items, minlength=n_items).astype(np.float64)
        self.repeat_share = _repeat_share(histories)
        by_gap = count_by_gap(histories, n_items)
        self.kernel = self._choose_kernel(histories, by_gap)
        self.transitions = combine(by_gap, self.kernel)
        return self

    def _choose_kernel(self, histories: Histories, by_gap: Sequence[sp.csr_array[Any]]) -> Kernel:
        return FIXED

    def votes(self, histories: Histories) -> sp.csr_array[Any]:
        """Votes of each history's last items for every item, sparse, shape [rows, items]."""
        recent = histories.tail(HISTORY)
        lengths = np.diff(recent.offsets)
        rows = np.repeat(np.arange(len(recent)), lengths)
        age = np.repeat(recent.offsets[1:], lengths) - 1 - np.arange(len(recent.items))
        shape = (len(recent), len(self.counts))
        total = sp.csr_array(shape, dtype=np.float64)
        for recency, transitions in zip(self.kernel.recency, self.transitions, strict=True):
            weight = recency[age] / (self.counts[recent.items] + SHRINKAGE)
            total = total + sp.csr_array((weight, (rows, recent.items)), shape=shape) @ transitions
        return sp.csr_array(total)

    def probabilities(self, histories: Histories) -> Floats:
        votes = self.votes(histories).toarray() + self.kernel.popularity * share(self.counts)
        return _discount_repeats(votes, histories.seen(len(self.counts)), self.repeat_share)

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        n_items = len(self.counts)
        counts = self.counts - np.bincount(history, minlength=n_items)
        first = max(0, start - HISTORY)
        voters = history[first : stop - 1] if stop > 1 else history[:0]
        own = own_transitions(history, self.kernel, n_items)
        age = np.arange(start, stop)[:, None] - 1 - np.arange(first, first + len(voters))
        votes = self.kernel.popularity * np.tile(share(counts), (stop - start, 1))
        for recency, transitions, mine in zip(
            self.kernel.recency, self.transitions, own, strict=True
        ):
            weight = np.where((age >= 0) & (age < HISTORY), recency[age.clip(0, HISTORY - 1)], 0.0)
            others = (transitions[voters] - mine[voters]).toarray()
            votes += weight / (counts + SHRINKAGE)[voters] @ np.maximum(others, 0.0)
        seen = seen_before(history, start, stop, n_items)
        return _discount_repeats(votes, seen, self.repeat_share)

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.counts = _extended_counts(self.counts, like)
        nothing = len(self.counts)  # a row and a column without transitions
        source = [*range(nothing), *(nothing if item is None else item for item in like)]
        longer.transitions = []
        for matrix in self.transitions:
            parts = (matrix.data, matrix.indices, np.append(matrix.indptr, matrix.nnz))
            padded = sp.csr_array(parts, shape=(nothing + 1, nothing + 1))
            longer.transitions.append(sp.csr_array(padded[source][:, source]))
        return longer

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {
            "counts": self.counts,
            "repeat_share": np.array(self.repeat_share),
            "gap": self.kernel.gap,
            "recency": self.kernel.recency,
            "popularity": np.array(self.kernel.popularity),
        }
        for direction, matrix in enumerate(self.transitions):
            for part in ("data", "indices", "indptr"):
                arrays[f"{part}{direction}"] = getattr(matrix, part)
        return arrays

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        self.counts, size = arrays["counts"], len(arrays["counts"])
        self.repeat_share = float(arrays["repeat_share"])
        self.kernel = Kernel(arrays["gap"], arrays["recency"], float(arrays["popularity"]))
        self.transitions = [
            sp.csr_array(
                tuple(arrays[f"{part}{direction}"] for part in ("data", "indices", "indptr")),
                shape=(size, size),
            )
            for direction in range(len(self.kernel.gap))
        ]
        return self


class KernelPrior(CooccurrencePrior):
    """Co-occurrence in both directions with weights fitted to the log.

    The weights of gap, recency and direction are the maximum-likelihood mixture over training
    positions whose own user was not counted (see :mod:`genrec.kernel`).
    """

    kind: ClassVar[str] = "kernel"

    def _choose_kernel(self, histories: Histories, by_gap: Sequence[sp.csr_array[Any]]) -> Kernel:
        return fit_kernel(histories, by_gap, self.counts)


PRIORS: dict[str, type[PopularityPrior] | type[CooccurrencePrior]] = {
    "popularity": PopularityPrior,
    "cooccurrence": CooccurrencePrior,
    "kernel": KernelPrior,
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
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise RunError(f"{path}: no readable prior ({error}); train the run again.") from None


def _extended_counts(counts: Floats, like: Sequence[int | None]) -> Floats:
    mean = float(counts.mean())
    return np.append(counts, [mean if item is None else counts[item] for item in like])


def _repeat_share(histories: Histories) -> float:
    """Share of interactions with an item the user had before, with one pseudo-count each way."""
    row = np.repeat(np.arange(len(histories)), np.diff(histories.offsets)).astype(np.int64)
    distinct = len(np.unique(row << 32 | histories.items))
    return (len(row) - distinct + 1) / (len(row) + 2)


def _discount_repeats(votes: Floats, seen: npt.NDArray[np.bool_], repeat_share: float) -> Floats:
    votes[seen] *= repeat_share
    votes /= votes.sum(axis=1, keepdims=True)
    return votes
