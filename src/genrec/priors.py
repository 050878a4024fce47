"""Item distributions that cost no language model: popularity, co-occurrence, EASE, their pool.

A prior gives every item a probability q(item | history). The trie turns it into a mass for each
child by a prefix-sum difference, which the language model's logits then correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Floats32, Integers, Items
from genrec.crossfit import SasrecPrior
from genrec.ease import MOST_ITEMS, invert, speaks_for, without
from genrec.errors import ConfigError, RunError
from genrec.files import UNREADABLE, read_arrays, write_arrays
from genrec.histories import Histories
from genrec.kernel import (
    FIXED,
    HISTORY,
    SHRINKAGE,
    Kernel,
    combine,
    count_by_gap,
    discount_repeats,
    extended_counts,
    fit_kernel,
    own_transitions,
    repeat_share,
    seen_before,
    share,
)
from genrec.pool import fit_weights, pooled
from genrec.shares import Shares

DECAYS = (1.0, 0.9)
"""What a step back in the history takes from an item's say in EASE."""


class Prior(Protocol):
    """A distribution over the catalogue that no language model is needed for."""

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

    def arrays(self) -> Arrays:
        """What :func:`save_prior` writes."""
        ...

    def restore(self, arrays: Arrays) -> Self:
        """Inverse of :meth:`arrays`; returns itself."""
        ...


@runtime_checkable
class SparsePrior(Prior, Protocol):
    """A prior whose training distributions differ from one another in few items."""

    def training_shares(self, history: Items, start: int, stop: int) -> Shares:
        """:meth:`Prior.training_probabilities`, sparse; the base is that of every history."""
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
        return self.training_shares(history, start, stop).dense()

    def training_shares(self, history: Items, start: int, stop: int) -> Shares:
        items, own = np.unique(history, return_counts=True)
        rows = stop - start
        row = np.repeat(np.arange(rows), len(items))
        return Shares(self.counts + 1.0, row, np.tile(items, rows), np.tile(-1.0 * own, rows), rows)

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.counts = extended_counts(self.counts, like)
        return longer

    def arrays(self) -> Arrays:
        return {"counts": self.counts}

    def restore(self, arrays: Arrays) -> Self:
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
        self.repeat_share = repeat_share(histories)
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

    def all_votes(self, histories: Histories) -> Floats:
        """Votes and popularity, dense, shape [rows, items]."""
        return cast(
            Floats, self.votes(histories).toarray() + self.kernel.popularity * share(self.counts)
        )

    def probabilities(self, histories: Histories) -> Floats:
        seen = histories.seen(len(self.counts))
        return discount_repeats(self.all_votes(histories), seen, self.repeat_share)

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        votes = self.training_votes(history, start, stop, self.repeat_share)
        votes /= votes.sum(axis=1, keepdims=True)
        return votes

    def training_votes(self, history: Items, start: int, stop: int, repeats: float = 1.0) -> Floats:
        """Votes and popularity at positions of a training history, the user's own left out.

        Args:
            repeats: factor for the items that a position has behind it.
        """
        votes, items, known = self._training_votes(history, start, stop, repeats, sparse=False)
        votes += self.counts + 1.0
        votes[:, items] = known
        return cast(Floats, votes)

    def training_shares(self, history: Items, start: int, stop: int) -> Shares:
        found = self._training_votes(history, start, stop, self.repeat_share, sparse=True)
        return _changed(self.counts + 1.0, *found)

    def _training_votes(
        self, history: Items, start: int, stop: int, repeats: float, *, sparse: bool
    ) -> tuple[Any, Items, Floats]:
        """Everybody's votes; the history's items; what these have less the user's own votes.

        The unit is one interaction's share of the popularity, which is in the last part alone.
        """
        items, first_at, place = np.unique(history, return_index=True, return_inverse=True)
        first = max(0, start - HISTORY)
        voters = np.arange(first, max(first, stop - 1))
        age = np.arange(start, stop)[:, None] - 1 - voters
        others = self.counts[items] - np.bincount(place)
        unit = (self.counts + 1.0).sum() - len(history)
        scale = unit / self.kernel.popularity / (others + SHRINKAGE)[place[voters]]
        votes: Any = sp.csr_array((stop - start, len(self.counts))) if sparse else 0.0
        known = np.zeros((stop - start, len(items)))
        own = own_transitions(place, self.kernel, len(items))
        for recency, transitions, mine in zip(
            self.kernel.recency, self.transitions, own, strict=True
        ):
            weight = np.where((age >= 0) & (age < HISTORY), recency[age.clip(0, HISTORY - 1)], 0.0)
            weight *= scale
            rows = transitions[history[voters]]
            votes = votes + (sp.csr_array(weight) @ rows if sparse else weight @ rows.toarray())
            known -= weight @ mine[place[voters]].toarray()
        known += votes[:, items].toarray() if sparse else votes[:, items]
        known = np.maximum(known, 0.0) + others + 1.0  # rounding may leave less than no votes
        known[first_at < np.arange(start, stop)[:, None]] *= repeats
        return votes, items, known

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.counts = extended_counts(self.counts, like)
        longer.transitions = [_extended_matrix(matrix, like) for matrix in self.transitions]
        return longer

    def arrays(self) -> Arrays:
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

    def restore(self, arrays: Arrays) -> Self:
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


class PooledPrior:
    """The kernel's votes, EASE's and popularity, pooled log-linearly with fitted weights.

    The kernel knows order and time, EASE which items go together and which exclude each other;
    EASE hears the whole history twice, evenly and with its end louder. Popularity, which all of
    them contain, gets a weight of its own, mostly below zero.
    """

    kind: ClassVar[str] = "pooled"
    weights: Floats
    inverse: Floats32 | None

    def fit(self, histories: Histories, n_items: int) -> Self:
        if n_items > MOST_ITEMS:
            raise ConfigError(
                f"prior=pooled inverts an items x items matrix: {n_items} items are too many (at "
                f"most {MOST_ITEMS}); set prior=kernel."
            )
        self.kernel = KernelPrior().fit(histories, n_items)
        self.inverse = invert(histories, n_items)
        self.says = speaks_for(self.inverse)
        self.weights = fit_weights(histories, n_items, self._training_experts)
        return self

    def probabilities(self, histories: Histories) -> Floats:
        experts = [np.log(self.kernel.all_votes(histories))]
        experts += [_decayed(histories, decay, self.says) for decay in DECAYS]
        experts.append(np.log(share(self.kernel.counts))[None])
        seen = histories.seen(len(self.kernel.counts))
        return pooled(self.weights, experts, seen, self.kernel.repeat_share)

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        seen = seen_before(history, start, stop, len(self.kernel.counts))
        experts = self._training_experts(history, start, stop)
        return pooled(self.weights, experts, seen, self.kernel.repeat_share)

    def _training_experts(self, history: Items, start: int, stop: int) -> list[Floats]:
        assert self.inverse is not None, "a loaded prior cannot be trained with"
        age = np.arange(start, stop)[:, None] - 1 - np.arange(len(history))
        ease = without(self.inverse, history)
        experts = [np.log(self.kernel.training_votes(history, start, stop))]
        for decay in DECAYS:
            experts.append(ease(np.where(age >= 0, decay ** age.clip(0), 0.0)))
        others = self.kernel.counts - np.bincount(history, minlength=len(self.kernel.counts))
        return [*experts, np.log(share(others))[None]]

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.kernel = self.kernel.extended(like)
        longer.says, longer.inverse = _extended_matrix(self.says, like), None
        return longer

    def arrays(self) -> Arrays:
        says = {f"says_{part}": getattr(self.says, part) for part in ("data", "indices", "indptr")}
        return {**self.kernel.arrays(), **says, "weights": self.weights}

    def restore(self, arrays: Arrays) -> Self:
        self.kernel = KernelPrior().restore(arrays)
        size = len(self.kernel.counts)
        parts = tuple(arrays[f"says_{part}"] for part in ("data", "indices", "indptr"))
        self.says = sp.csr_array(parts, shape=(size, size))
        self.weights, self.inverse = arrays["weights"], None
        return self


PRIORS: dict[str, type[Prior]] = {
    "popularity": PopularityPrior,
    "cooccurrence": CooccurrencePrior,
    "kernel": KernelPrior,
    "pooled": PooledPrior,
    "sasrec": SasrecPrior,
}
"""Priors by the name that ``Config.prior`` and a saved prior carry; another one may be put here."""


def choose_prior(kind: str, n_items: int) -> str:
    """Resolve ``"auto"``: the pool, or the kernel where the catalogue is too large for EASE.

    Raises:
        ConfigError: no prior of that name.
    """
    if kind in PRIORS or kind == "none":
        return kind
    if kind != "auto":
        raise ConfigError(f"Unknown prior {kind!r}; known are auto, none, {', '.join(PRIORS)}.")
    return "pooled" if n_items <= MOST_ITEMS else "kernel"


def fit_prior(kind: str, histories: Histories, n_items: int) -> Prior | None:
    """Fit the named prior, or return ``None`` for ``"none"``."""
    if kind == "none":
        return None
    return PRIORS[kind]().fit(histories, n_items)


def save_prior(prior: Prior, path: Path) -> None:
    """Write a prior as one ``.npz`` without pickled objects; the file appears only when whole."""
    write_arrays(path, {"kind": np.array(prior.kind), **prior.arrays()})


def load_prior(path: Path) -> Prior:
    """Read what :func:`save_prior` wrote.

    Raises:
        RunError: the file is missing, damaged or holds an unknown kind of prior.
    """
    try:
        arrays, _ = read_arrays(path)
        return PRIORS[str(arrays.pop("kind"))]().restore(arrays)
    except UNREADABLE as error:
        raise RunError(f"{path}: no readable prior ({error}); train the run again.") from None


def _changed(base: Floats, votes: sp.csr_array[Any], items: Integers, known: Floats) -> Shares:
    """The base and the votes on top of it, but for ``items``, which have what is ``known``."""
    rows = votes.shape[0]
    free = np.ones(len(base), bool)
    free[items] = False
    free = free[votes.indices]
    row = np.repeat(np.arange(rows), np.diff(votes.indptr))[free]
    return Shares(
        base,
        np.append(row, np.repeat(np.arange(rows), len(items))),
        np.append(votes.indices[free], np.tile(items, rows)),
        np.append(votes.data[free], (known - base[items]).ravel()),
        rows,
    )


def _extended_matrix(matrix: sp.csr_array[Any], like: Sequence[int | None]) -> sp.csr_array[Any]:
    """Rows and columns for further items, those of the items they are like, or empty ones."""
    nothing = matrix.shape[0]
    source = [*range(nothing), *(nothing if item is None else item for item in like)]
    parts = (matrix.data, matrix.indices, np.append(matrix.indptr, matrix.nnz))
    padded = sp.csr_array(parts, shape=(nothing + 1, nothing + 1))
    return sp.csr_array(padded[source][:, source])


def _decayed(histories: Histories, decay: float, matrix: sp.csr_array[Any]) -> Floats:
    """What the items of each history say, an item at age a with weight ``decay ** a``."""
    lengths = histories.lengths
    row = np.repeat(np.arange(len(histories)), lengths)
    age = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.items))
    shape = (len(histories), matrix.shape[0])
    weights = sp.csr_array((decay**age, (row, histories.items)), shape=shape)
    return cast(Floats, (weights @ matrix).toarray())
