"""The pooled prior: a log-linear pool of experts with weights fitted on validation targets.

The pool's logits are a weighted sum of the experts' scores, ``log q = weights . scores + const``.
The experts learn from the training data. The weights are fitted on what came after it, the
validation targets, and depend on the length of the history.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from genrec.arrays import Arrays, Floating, Floats, Mask, Width
from genrec.collaborative.base import PriorRecommender
from genrec.collaborative.counts import (
    discount_repeats,
    extended_counts,
    item_counts,
    repeat_rate,
    seen_before,
)
from genrec.collaborative.expert import Expert
from genrec.collaborative.experts import EXPERTS, auto_experts, make_experts
from genrec.collaborative.fusion import (
    Weights,
    choose,
    examples,
    fit_weights,
    term_scores,
    terms_of,
)
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout, with_targets
from genrec.errors import ConfigError, DataError, RunError
from genrec.processes import stage

if TYPE_CHECKING:
    from genrec.collaborative.sasrec import SASRec

log = logging.getLogger("genrec")

FLOOR = -60.0
"""Lowest logit relative to the likeliest item, so that no item is impossible."""
HELD_OUT_USERS = 500
"""Fewest users whose last item is held out for the weights, if there are no validation targets.
Weights that fit a few dozen users fit no others (docs/decisions/0015)."""
LARGE = 2_000_000
"""Interactions from which the fit of each expert is announced."""
LEAST_USERS = 20
"""Fewest validation users that can decide between experts; with fewer, all of them stay."""


class PooledPrior:
    """A log-linear pool of experts.

    Attributes:
        experts: the experts, fitted.
        weights: the weights of the experts' terms.
        gains: how many nats per item unseen validation users lose without an expert, for each
            expert that ``"auto"`` judged.
    """

    kind: ClassVar[str] = "pooled"
    weights: Weights

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """Create an unfitted pool.

        Args:
            names: the experts by name; if ``None``, they are chosen on validation users.
        """
        self.names = names
        self.experts: list[Expert] = []
        self.gains: dict[str, float] = {}

    @property
    def item_counts(self) -> Floats:
        return self.counts

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Fit the experts to the training data and the weights to validation targets.

        Args:
            train: the training data.
            valid: validation targets. Without any, the last items of a tenth of the users, and of
                500 users at least, are held out of training while the weights are fitted.

        Returns:
            The prior itself.

        Raises:
            ConfigError: A name is unknown, the catalogue is too large for an expert, or no expert
                can use the data.
        """
        size = len(train.catalogue)
        experts = auto_experts(size) if self.names is None else make_experts(self.names, size)
        whole, self.gains = train, {}
        train, valid = with_targets(train, valid, least=HELD_OUT_USERS)
        self._count(whole)
        self.experts = [each for each in _fitted(experts, train, valid) if each.terms]
        if not self.experts:
            raise ConfigError(
                f"experts={','.join(self.names or ())} can say nothing about {train.name}, whose "
                "timestamps are no common time; add another expert, such as transitions."
            )
        self._weigh(valid)
        if train is not whole:
            self.refit(whole)
        return self

    def refit(self, train: Dataset) -> Self:
        """Fit the experts again, to more data; the weights stay.

        Returns:
            The prior itself.

        Raises:
            DataError: The data lack metadata or times that an expert used before.
        """
        fresh = [expert.refit(train) for expert in self.experts]
        for old, new in zip(self.experts, fresh, strict=True):
            if old.terms != new.terms:
                raise DataError(
                    f"{train.name}: the expert {old.name} had {', '.join(old.terms)} and would "
                    f"have {', '.join(new.terms) or 'nothing'} with these data, so its weights no "
                    "longer fit; give data with the same columns, or train again."
                )
        self._count(train)
        self.experts = fresh
        return self

    def fused(self, experts: Sequence[Expert], valid: Holdout) -> Self:
        """Return a copy with these fitted experts in place of its own, and fitted weights."""
        other = copy(self)
        other.experts = list(experts)
        data = examples(other.experts, valid)
        other.weights = self._first(other.experts) if data is None else fit_weights(data)
        return other

    def _weigh(self, valid: Holdout) -> None:
        data = examples(self.experts, valid)
        if data is None:
            self.weights = self._first(self.experts)
            return
        if self.names is None and len(data.target) >= LEAST_USERS:
            kept, self.gains = choose(self.experts, data)
            if len(kept) < len(self.experts):
                data = data.take(np.arange(len(data.target)), terms_of(self.experts, kept))
            self.experts = [self.experts[number] for number in kept]
            log.info("%s", self.choice())
        self.weights = fit_weights(data)

    def facts(self) -> dict[str, Any]:
        """Return the weight of each term at average length, and the gain of each judged expert."""
        terms = [term for expert in self.experts for term in expert.terms]
        base = self.weights.base.round(4).tolist()
        gains = {name: round(gain, 4) for name, gain in self.gains.items()}
        return {"weights": dict(zip(terms, base, strict=True)), "gains": gains}

    def choice(self) -> str:
        """Return which experts ``"auto"`` chose and what each is worth, as one line."""
        kept = {expert.name for expert in self.experts}
        worth = [f"{name} ({gain:+.3f})" for name, gain in self.gains.items() if name in kept]
        out = [f"{name} ({gain:+.3f})" for name, gain in self.gains.items() if name not in kept]
        line = f"experts: {', '.join([self.experts[0].name, *worth])}"
        return line + (f"; left out: {', '.join(out)}" if out else "") + "; gain in nats per item"

    @staticmethod
    def _first(experts: Sequence[Expert]) -> Weights:
        return Weights.first(sum(len(expert.terms) for expert in experts))

    def _count(self, train: Dataset) -> None:
        histories = train.histories
        self.repeat_rate = repeat_rate(histories)
        self.counts = item_counts(histories, len(train.catalogue))

    def probabilities(self, histories: Histories) -> Floats:
        seen = histories.seen(len(self.counts))
        terms = term_scores(self.experts, histories)
        return pooled(self.weights.of(histories.lengths), terms, seen, self.repeat_rate)

    def training_probabilities(self, history: Histories, start: int, stop: int) -> Floating:
        seen = seen_before(history.items, start, stop, len(self.counts))
        terms = (
            term for expert in self.experts for term in expert.training_scores(history, start, stop)
        )
        # Training needs no more than single precision, which takes half the time.
        weights = self.weights.of(np.arange(start, stop)).astype(np.float32)
        return pooled(weights, terms, seen, self.repeat_rate)

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer = copy(self)
        longer.counts = extended_counts(self.counts, like)
        longer.experts = [expert.extended(like, catalogue) for expert in self.experts]
        return longer

    def arrays(self) -> Arrays:
        own = {
            "names": np.array([expert.name for expert in self.experts]),
            "counts": self.counts,
            "repeat_rate": np.array(self.repeat_rate),
            "weights": np.stack([self.weights.base, self.weights.gate]),
            "length": self.weights.length,
        }
        own |= {f"gain.{name}": np.array(gain) for name, gain in self.gains.items()}
        return own | {
            f"{expert.name}.{key}": value
            for expert in self.experts
            for key, value in expert.arrays().items()
        }

    def restore(self, arrays: Arrays) -> Self:
        if "names" not in arrays:
            raise RunError("the pool was saved by an older version; train the run again")
        names = [str(name) for name in arrays["names"]]
        self.counts, self.repeat_rate = arrays["counts"], float(arrays["repeat_rate"])
        base, gate = arrays["weights"]
        self.weights = Weights(base, gate, arrays["length"])
        gains = _part(arrays, "gain")
        self.gains = {name: float(gains[name]) for name in EXPERTS if name in gains}
        self.experts = [
            expert.restore(_part(arrays, expert.name)) for expert in make_experts(names, 0)
        ]
        return self


def _fitted(experts: Sequence[Expert], train: Dataset, valid: Holdout) -> Iterator[Expert]:
    """Fit each expert; on a large log, where each takes long, say which one is next."""
    large = len(train.histories.items) >= LARGE
    for expert in experts:
        with stage(f"fitting the expert {expert.name}") if large else nullcontext():
            expert.fit(train, valid)
        yield expert


def pooled(
    weights: NDArray[Width], terms: Iterable[Floating], seen: Mask, repeat_rate: float
) -> NDArray[Width]:
    """Return the pool's distribution, with items of the history scaled by the repeat rate.

    Args:
        weights: weight of each term, shape [rows, terms].
        terms: scores, each of shape [rows or 1, items].
        seen: items that each row's history holds, shape [rows, items].
        repeat_rate: factor for these items.

    Returns:
        Shape [rows, items]; rows sum to 1.
    """
    logits = np.zeros(seen.shape, weights.dtype)
    for weight, scores in zip(weights.T, terms, strict=True):
        logits += weight[:, None] * scores
    logits -= logits.max(axis=1, keepdims=True)
    return discount_repeats(np.exp(np.maximum(logits, FLOOR)), seen, repeat_rate)


def _part(arrays: Arrays, name: str) -> dict[str, Any]:
    """Return the arrays whose names begin with ``name.``, without that beginning."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


class Pooled(PriorRecommender):
    """GenRec's default prior as a recommender: a log-linear pool of experts."""

    name = "pooled"

    _prior: PooledPrior

    def __init__(self) -> None:
        self._prior = PooledPrior()

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        self._prior.fit(train, valid)

    def refit(self, train: Dataset) -> Self:
        """Fit the experts again, to more data; their choice and their weights stay.

        Returns:
            The recommender itself.
        """
        self.learn_from(train)
        self._prior.refit(train)
        return self


@dataclass(eq=False)
class PooledSASRec(Pooled):
    """The default prior with SASRec as a further expert, all weights fitted together."""

    name = "pooled-sasrec"

    seed: int = 0
    """Random seed of SASRec."""
    fitted: InitVar[SASRec | None] = None
    """SASRec as it was fitted to the same data and targets; fitted here if ``None``."""

    def __post_init__(self, fitted: SASRec | None) -> None:
        super().__init__()
        self._given = fitted

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        from genrec.collaborative.sasrec import SASRecExpert

        whole = train
        train, valid = with_targets(train, valid, least=HELD_OUT_USERS)
        self._prior.fit(train, valid)
        sasrec = SASRecExpert(self._given if train is whole else None)
        sasrec.seed = self.seed
        experts = [*self._prior.experts, sasrec.fit(train, valid)]
        self._prior = self._prior.fused(experts, valid)
        if train is not whole:
            self._prior.refit(whole)
