"""Late fusion: the weights of prior and language model, and experts that join after training."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from genrec.arrays import Floats, Floats32, Ints
from genrec.collaborative.expert import Expert
from genrec.collaborative.experts import EXPERTS, make_experts
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.registry import fit_prior
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError
from genrec.model.ranker import Ranker
from genrec.processes import log, stage

USERS = 1000
"""Most validation users on which the two weights are fitted."""
RIDGE = 1e-3
"""L2 penalty that pulls both weights towards their values in training."""


def late_experts(config: Config) -> tuple[str, ...]:
    """Return all configured experts if some of them join the prior after training."""
    names = () if config.experts == "auto" else config.experts
    late = any(not EXPERTS[name]().leaves_user_out for name in names)
    return names if late else ()


def with_refitted_prior(ranker: Ranker, train: Dataset) -> Ranker:
    """Return a ranker whose prior has learned from other data; its weights stay.

    Raises:
        DataError: The data have another catalogue.
    """
    if train.catalogue.item_ids != ranker.catalogue.item_ids:
        raise DataError(
            f"{train.name} has another catalogue than the model; train a model on these data."
        )
    prior = ranker.prior
    with stage(f"fitting the prior to {len(train.histories.items):,} interactions"):
        if isinstance(prior, PooledPrior):
            prior = copy(prior).refit(train)
        else:
            prior = fit_prior(ranker.config.prior, train)
    return replace(ranker, prior=prior)


def add_experts(ranker: Ranker, names: Sequence[str], train: Dataset, valid: Holdout) -> Ranker:
    """Return a ranker with these experts in its pool and all weights fitted again.

    Args:
        ranker: a ranker with a pooled prior.
        names: the experts by name; those that the pool has already stay as they are.
        train: the training data.
        valid: validation users.

    Raises:
        ConfigError: The prior is no pool, or a name is unknown.
    """
    if not isinstance(ranker.prior, PooledPrior):
        raise ConfigError(
            f"experts join a pooled prior, but this model has prior={ranker.config.prior}; train "
            "it with prior=pooled."
        )
    known = {expert.name: expert for expert in ranker.prior.experts}
    experts: list[Expert] = []
    for expert in make_experts(names, len(train.catalogue)):
        if expert.name not in known:
            with stage(f"fitting the expert {expert.name}"):
                expert.fit(train, valid)
        experts.append(known.get(expert.name, expert))
    experts = [expert for expert in experts if expert.terms]
    with stage("fitting the weights of the experts"):
        prior = ranker.prior.fused(experts, valid)
    chosen = tuple(expert.name for expert in experts)
    config = ranker.config.model_copy(update={"experts": chosen, "lm_weight": "auto"})
    return fit_lm_weight(replace(ranker, prior=prior, config=config), valid, config)


def fit_lm_weight(ranker: Ranker, valid: Holdout | None, config: Config) -> Ranker:
    """Return a ranker whose weights of prior and residual fit validation users best.

    Without a prior, without validation users, or with a number as ``config.lm_weight``, the ranker
    itself is returned.
    """
    fixed = ranker.prior is None or config.lm_weight != "auto"
    if fixed or valid is None or not len(valid):
        return ranker
    sample = valid.sample(min(USERS, len(valid)), ranker.config.seed)
    with stage(f"weighing prior and language model on {len(sample)} validation users"):
        prior_weight, lm_weight = _best(*_parts(ranker, sample))
    log.info("prior_weight %.3f, lm_weight %.3f", prior_weight, lm_weight)
    return ranker.weighted(prior_weight, lm_weight)


def _parts(ranker: Ranker, holdout: Holdout) -> tuple[Floats32, Floats32, Ints, Ints]:
    """Return prior and residual logits of all choices, the starts of decisions, and the targets."""
    found = list(ranker.decision_logits(holdout.histories, holdout.targets))
    sizes = np.cumsum([0] + [len(prior) for prior, _, _, _ in found])
    prior, residual = (np.concatenate([part[n] for part in found]) for n in (0, 1))
    starts, targets = (
        np.concatenate([part[n] + size for part, size in zip(found, sizes, strict=False)])
        for n in (2, 3)
    )
    return prior, residual, starts, targets


def _best(prior: Floats32, residual: Floats32, starts: Ints, targets: Ints) -> tuple[float, float]:
    """Maximise the likelihood over the two weights; the problem is concave."""
    parts = np.stack([prior, residual]).astype(np.float64)
    sizes = np.diff(np.append(starts, len(prior)))
    right = parts[:, targets].mean(axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = weights @ parts
        top = np.maximum.reduceat(logits, starts)
        odds = np.exp(logits - np.repeat(top, sizes))
        total = np.add.reduceat(odds, starts)
        odds /= np.repeat(total, sizes)
        away = weights - 1.0
        value = float((top + np.log(total)).mean() - weights @ right + RIDGE * away @ away)
        return value, parts @ odds / len(starts) - right + 2 * RIDGE * away

    bounds = [(0.0, None), (0.0, None)]
    found = minimize(loss, np.ones(2), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), float(found[1])
