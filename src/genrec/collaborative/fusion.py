"""The weights of a log-linear pool, fitted on validation targets, and the choice of its experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import minimize

from genrec.arrays import Floats, Floats32, Ints, Mask
from genrec.collaborative.expert import Expert
from genrec.data.histories import Histories
from genrec.data.splits import Holdout

USERS, CELLS = 3000, 2**25
"""Most validation users on which weights are fitted, and most users x items."""
CHOICE_CELLS = 2**24
"""Most users x items for comparing pools with and without an expert."""
RIDGE, GATE_RIDGE = 0.3, 1.0
"""L2 penalties, divided by the number of users, on weights per standard deviation of their term.

The first pulls the weights towards the first term alone, the second pulls their dependence on the
history's length towards none. They matter where there are few users.
"""
LEAST_GAIN = 0.001
"""An expert stays in the pool if it improves unseen validation users by more than this, in nats."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of the terms, which depend on the length of the history.

    A term's weight is ``base + gate * x``, where x is the logarithm of the history's length,
    standardised on validation users and clipped to their range.

    Attributes:
        base: weight at average length, shape [terms].
        gate: change of the weight with x, shape [terms].
        length: mean, standard deviation, minimum and maximum of the log length.
    """

    base: Floats
    gate: Floats
    length: Floats

    def of(self, lengths: Ints) -> Floats:
        """Return the weight of each term for histories of given lengths, shape [rows, terms]."""
        return self.base + self.features(lengths)[:, None] * self.gate

    def features(self, lengths: Ints) -> Floats:
        """Return x for histories of given lengths, shape [rows]."""
        mean, deviation, low, high = self.length
        logs = np.log(np.maximum(lengths, 1))
        return cast(Floats, (np.clip(logs, low, high) - mean) / deviation)

    @classmethod
    def first(cls, terms: int) -> Weights:
        """Return weights that use the first term alone."""
        return cls(np.eye(terms)[0], np.zeros(terms), np.array([0.0, 1.0, 0.0, 0.0]))


@dataclass(frozen=True, eq=False)
class Examples:
    """Scores of all terms for validation users.

    Attributes:
        scores: shape [terms, users, items].
        target: the item chosen by each user, shape [users].
        unseen: items that the user could have chosen, shape [users, items].
        lengths: length of each history, shape [users].
        owner: number of each row's user, where users have several targets, shape [users].
    """

    scores: Floats32
    target: Ints
    unseen: Mask
    lengths: Ints
    owner: Ints

    @property
    def by_user(self) -> Floats32:
        """A view of the scores of shape [users, terms, items]."""
        return self.scores.transpose(1, 0, 2)

    @property
    def of_targets(self) -> Floats32:
        """The scores of each user's target, shape [users, terms]."""
        return self.scores[:, np.arange(len(self.target)), self.target].T

    def take(self, rows: Ints, terms: Sequence[int] | None = None) -> Examples:
        """Return some users, and some terms if given."""
        scores = (
            self.scores[:, rows] if terms is None else self.scores[np.ix_(np.asarray(terms), rows)]
        )
        target, unseen = self.target[rows], self.unseen[rows]
        return Examples(scores, target, unseen, self.lengths[rows], self.owner[rows])


def _with_new_target(valid: Holdout) -> Ints:
    """Return the rows whose target is not in the history."""
    new = [t not in h for h, t in zip(valid.histories, valid.targets, strict=True)]
    return np.flatnonzero(new)


def has_new_targets(valid: Holdout) -> bool:
    """Return whether weights can be fitted on these validation users."""
    return len(_with_new_target(valid)) > 0


def examples(experts: Sequence[Expert], valid: Holdout) -> Examples | None:
    """Score validation users whose target is new to them; ``None`` if there are none."""
    n_items = len(valid.catalogue)
    rows = np.random.default_rng(0).permutation(_with_new_target(valid))
    rows = np.sort(rows[: max(1, min(USERS, CELLS // n_items))])
    if not len(rows):
        return None
    histories = valid.histories.select(rows)
    unseen = ~histories.seen(n_items)
    scores = np.empty((sum(len(e.terms) for e in experts), *unseen.shape), np.float32)
    for number, term in enumerate(term_scores(experts, histories)):
        scores[number] = term
    targets = valid.targets[rows].astype(np.int64)
    return Examples(scores, targets, unseen, histories.lengths, valid.owners()[rows])


def term_scores(experts: Sequence[Expert], histories: Histories) -> Iterator[Floats]:
    """Yield the scores of all experts' terms, in order, one expert at a time."""
    return (term for expert in experts for term in expert.scores(histories))


def fit_weights(data: Examples) -> Weights:
    """Fit the weights by maximum likelihood; the problem is concave."""
    logs = np.log(np.maximum(data.lengths, 1))
    length = np.array([logs.mean(), max(float(logs.std()), 1e-6), logs.min(), logs.max()])
    terms, users = data.scores.shape[:2]
    x = Weights(np.zeros(terms), np.zeros(terms), length).features(data.lengths)
    scale = np.array([max(float(term.std()), 1e-6) for term in data.scores[:, : min(users, 200)]])
    right = data.of_targets
    first = np.concatenate([np.eye(terms)[0] * scale[0], np.zeros(terms)])
    ridge = np.repeat([RIDGE, GATE_RIDGE], terms) / users

    def loss(flat: Floats) -> tuple[float, Floats]:
        base, gate = flat.reshape(2, -1) / scale
        by_row = (base + x[:, None] * gate).astype(np.float32)
        shares, log_total = _softmax(data, by_row)
        value = float(np.mean(log_total - (by_row * right).sum(axis=1)))
        slope = (data.by_user @ shares[:, :, None])[:, :, 0] - right
        parts = slope.mean(axis=0) / scale, (x[:, None] * slope).mean(axis=0) / scale
        away = flat - first
        return value + float(ridge @ away**2), np.concatenate(parts) + 2 * ridge * away

    found = minimize(
        loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": 1e-6}
    ).x
    base, gate = found.reshape(2, -1) / scale
    return Weights(base, gate, length)


def pool_nll(data: Examples, weights: Weights) -> Floats:
    """Return the negative log-likelihood of each user's target among unseen items, in nats."""
    by_row = weights.of(data.lengths).astype(np.float32)
    _, log_total = _softmax(data, by_row)
    nll = log_total - (by_row * data.of_targets).sum(axis=1)
    return np.asarray(nll, np.float64)


def _softmax(data: Examples, weights: Floats32) -> tuple[Floats32, Floats32]:
    """Return each user's distribution over unseen items, and the logarithm of its normaliser."""
    logits = (weights[:, None] @ data.by_user)[:, 0]
    logits[~data.unseen] = -np.inf
    top = logits.max(axis=1)
    np.exp(logits - top[:, None], out=logits)
    total = logits.sum(axis=1)
    logits /= total[:, None]
    return logits, top + np.log(total)


def gains(experts: Sequence[Expert], data: Examples) -> dict[str, float]:
    """Return how much worse the pool would be without each expert, in nats per item.

    The weights are fitted on one half of the users and judged on the other, both ways. The first
    expert is not judged, because the others build on it.
    """
    numbers = range(len(experts))
    whole = _crossed_nll(data, terms_of(experts, numbers))
    return {
        expert.name: _crossed_nll(data, terms_of(experts, [n for n in numbers if n != number]))
        - whole
        for number, expert in enumerate(experts)
        if number
    }


def terms_of(experts: Sequence[Expert], numbers: Collection[int]) -> list[int]:
    """Return the numbers of the terms that belong to some of the experts."""
    owner = [number for number, expert in enumerate(experts) for _ in expert.terms]
    return [term for term, number in enumerate(owner) if number in numbers]


def _crossed_nll(data: Examples, terms: list[int]) -> float:
    """Return the mean NLL of users by weights that were fitted on the other half of them."""
    users, number = np.unique(data.owner, return_inverse=True)
    half = (number if len(users) > 1 else np.arange(len(number))) % 2
    parts = [data.take(np.flatnonzero(half == number), terms) for number in (0, 1)]
    found = [pool_nll(parts[1 - n], fit_weights(parts[n])) for n in (0, 1)]
    return float(np.concatenate(found).mean())


def choose(experts: Sequence[Expert], data: Examples) -> tuple[list[int], dict[str, float]]:
    """Choose the experts that improve the pool on validation users.

    The expert that helps least is left out as long as it gains less than :data:`LEAST_GAIN`.

    Returns:
        The numbers of the chosen experts, and the gain of each judged expert in nats per item.
    """
    users = min(len(data.target), max(2, CHOICE_CELLS // data.scores.shape[2]))
    drawn = np.sort(np.random.default_rng(0).permutation(len(data.target))[:users])
    data = data.take(drawn)
    kept: list[int] = list(range(len(experts)))
    said: dict[str, float] = {}
    while True:
        part = data.take(np.arange(users), terms_of(experts, kept))
        found = gains([experts[number] for number in kept], part)
        said |= found
        weak = {name: gain for name, gain in found.items() if gain < LEAST_GAIN}
        if not weak:
            return kept, said
        worst = min(weak, key=lambda name: weak[name])
        kept = [number for number in kept if experts[number].name != worst]
