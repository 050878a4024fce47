"""Late fusion: the weights of prior and language model, and experts that join after training."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from genrec.arrays import Floats, Floats32, Ints
from genrec.collaborative.expert import Expert
from genrec.collaborative.experts import EXPERTS, make_experts
from genrec.collaborative.fusion import has_new_targets
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.registry import fit_prior
from genrec.collaborative.words import DOUBT, fit_weight, item_facts
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError
from genrec.language_model.devices import scored_rows
from genrec.model.ranker import Ranker
from genrec.processes import log, stage

USERS = 1000
"""Most validation users on which the two weights are fitted."""
STRAY = 0.2
"""Share of the wishes with a word from another item's title, because people use other words."""
WORD_CELLS = 2**23
"""Most users times items on which the weight of words is fitted."""
SIGMAS = 1.96
"""Standard errors by which a gain must exceed zero to be certain, as in an interval of 95 %."""
RIDGE = 1.0
"""L2 penalty, divided by the number of users, that pulls both weights towards one."""


def late_experts(config: Config) -> list[str]:
    """Return the configured experts that join the prior after training."""
    names = () if config.experts == "auto" else config.experts
    return [name for name in names if name in EXPERTS and not EXPERTS[name]().leaves_user_out]


def check_data(config: Config, train: object, valid: Holdout | None) -> None:
    """Refuse data that cannot be fitted, or that lack the validation users that settings need.

    Raises:
        ConfigError: A setting needs validation users.
        DataError: ``train`` is no data set.
    """
    if not isinstance(train, Dataset):
        raise DataError(f"fit needs a data set such as split.train, got {type(train).__name__}.")
    if valid is not None and len(valid):
        refuse_known(train.provenance.train_on, f"{train.name}: these training data")
        return
    if config.patience is not None:
        raise ConfigError(
            "patience (early stopping) needs validation users; call fit(train, valid=…)."
        )
    if late := late_experts(config):
        raise ConfigError(
            f"{', '.join(late)} joins the prior after training, and the weights then need "
            "validation users; call fit(train, valid=…)."
        )


def refuse_known(fitted: str | None, what: str) -> None:
    """Refuse to fit weights on validation targets that the experts have learned from.

    Args:
        fitted: the part of the split that was learned from, such as ``"train+valid"``.
        what: what has learned from it, or holds it, for the message.

    Raises:
        DataError: the validation targets are a part of it.
    """
    if fitted == "train+valid":
        raise DataError(
            f"{what} hold the validation targets already, so no weights can be fitted on them; "
            "use split.train, or leave valid out."
        )


def fused_after_training(
    ranker: Ranker, config: Config, train: Dataset, valid: Holdout | None
) -> Ranker:
    """Return a trained ranker with its late experts, if any, and all weights fitted.

    Args:
        ranker: the ranker after training.
        config: the settings as they were given.
        train: the training data.
        valid: validation users; late experts need them.
    """
    if not late_experts(config):
        ranker = fit_lm_weight(ranker, valid, config)
    else:
        assert valid is not None
        ranker = add_experts(ranker, config.experts, train, valid, config.lm_weight)
    return fit_words_weight(ranker, valid) if config.words_weight == "auto" else ranker


def fit_words_weight(ranker: Ranker, valid: Holdout | None) -> Ranker:
    """Return a ranker whose weight of words fits validation users best.

    Each user asks with one or more words from the metadata or the decade of the item that they
    chose next, never from its title; some ask for what they then do not choose, and some use a word
    that belongs to another item. Without a prior, users or metadata the ranker itself is returned.

    Args:
        ranker: the trained ranker.
        valid: validation users.
    """
    facts = [fact.split() for fact in item_facts(ranker.catalogue)]
    known = [] if valid is None else [row for row, item in enumerate(valid.targets) if facts[item]]
    if ranker.prior is None or valid is None or not known:
        return ranker
    rng = np.random.default_rng(ranker.config.seed)
    most = min(USERS, max(1, WORD_CELLS // len(ranker.catalogue)))
    rows = np.sort(rng.permutation(len(valid))[:most])
    targets = valid.targets[rows]
    # Nobody knows which words would have meant an item without metadata: they mislead, too.
    misled = (rng.random(len(rows)) < DOUBT) | np.array([not facts[item] for item in targets])
    meant = np.where(misled, rng.choice(valid.targets[known], len(rows)), targets)
    titles = ranker.catalogue.titles
    words = [_some(facts[item], rng) for item in meant]
    for row in np.flatnonzero(rng.random(len(rows)) < STRAY):
        words[row] += f" {rng.choice(titles[rng.choice(targets)].split())}"
    with stage(f"weighing words on {len(rows)} validation users"):
        q = ranker.prior.probabilities(valid.histories.select(rows))
        likeness = ranker.word_index.likeness(words)
        weight = round(fit_weight(q, likeness, targets.tolist()), 4)
    log.info("words_weight %.3f", weight)
    return replace(ranker, config=ranker.config.model_copy(update={"words_weight": weight}))


def _some(words: list[str], rng: np.random.Generator) -> str:
    """Return one or more of some words, drawn at random."""
    count = rng.integers(1, len(words) + 1)
    return " ".join(rng.permutation(words)[:count])


def with_refitted_prior(ranker: Ranker, train: Dataset) -> Ranker:
    """Return a ranker whose prior has learned from other data; its weights stay.

    Raises:
        DataError: The data have another catalogue.
    """
    _check_catalogue(ranker, train)
    prior = ranker.prior
    with stage(f"fitting the prior to {len(train.histories.items):,} interactions"):
        if isinstance(prior, PooledPrior):
            prior = copy(prior).refit(train)
        else:
            prior = fit_prior(ranker.config.prior, train)
    return replace(ranker, prior=prior)


def _check_catalogue(ranker: Ranker, train: Dataset) -> None:
    own, other = ranker.catalogue, train.catalogue
    if (own.item_ids, own.titles) != (other.item_ids, other.titles):
        raise DataError(
            f"{train.name} has another catalogue than the model; train a model on these data."
        )


def add_experts(
    ranker: Ranker,
    names: Sequence[str],
    train: Dataset,
    valid: Holdout,
    lm_weight: float | Literal["auto"] = "auto",
) -> Ranker:
    """Return a ranker with these experts in its pool and all weights fitted again.

    Args:
        ranker: a ranker with a pooled prior.
        names: the experts by name; those that the pool has already stay as they are.
        train: the training data.
        valid: validation users.
        lm_weight: a number to keep as the weight of the residual, instead of fitting it.

    Raises:
        ConfigError: The prior is no pool, or a name is unknown.
        DataError: The data have another catalogue, or no validation target can be used.
    """
    if not isinstance(ranker.prior, PooledPrior):
        raise ConfigError(
            f"experts join a pooled prior, but this model has prior={ranker.config.prior}; train "
            "it with prior=pooled."
        )
    _check_catalogue(ranker, train)
    if not has_new_targets(valid):
        raise DataError(
            "no validation user has a target that is new to them, so no weights can be fitted; "
            "give other validation users."
        )
    known = {expert.name: expert for expert in ranker.prior.experts}
    experts: list[Expert] = []
    for expert in make_experts(names, len(train.catalogue), ranker.config.seed):
        if expert.name not in known:
            with stage(f"fitting the expert {expert.name}"):
                expert.fit(train, valid)
        experts.append(known.get(expert.name, expert))
    experts = [expert for expert in experts if expert.terms]
    with stage("fitting the weights of the experts"):
        prior = ranker.prior.fused(experts, valid)
    chosen = tuple(expert.name for expert in experts)
    config = ranker.config.model_copy(update={"experts": chosen, "lm_weight": lm_weight})
    return fit_lm_weight(replace(ranker, prior=prior, config=config), valid, config)


def fit_lm_weight(ranker: Ranker, valid: Holdout | None, config: Config) -> Ranker:
    """Return a ranker whose weights of prior and residual fit validation users best.

    Without a prior, without validation users, or with a number as ``config.lm_weight``, the ranker
    itself is returned. The language model has no weight if it was not trained, or if validation
    users do not show with certainty that it improves the likelihood: then it is not worth its time.
    """
    if ranker.prior is not None and config.epochs == 0 and config.init_from is None:
        return _weighted(ranker, 1.0, 0.0)
    fixed = ranker.prior is None or config.lm_weight != "auto"
    if fixed or valid is None or not len(valid):
        return ranker
    sample = valid.sample_targets(USERS, ranker.config.seed)
    with stage(f"weighing prior and language model on {len(sample)} validation users"):
        parts = _parts(ranker, sample)
        both = _best(parts)
        alone = _best(replace(parts, residual=np.zeros_like(parts.residual)))[0], 0.0
        gains = _log_likelihoods(parts, both) - _log_likelihoods(parts, alone)
    gain, margin = float(gains.mean()), SIGMAS * float(gains.std()) / len(gains) ** 0.5
    certain = gain > margin
    prior_weight, lm_weight = both if certain else alone
    log.info("prior_weight %.3f, lm_weight %.3f", prior_weight, lm_weight)
    log.info(
        "the language model adds %+.3f nats per item [%+.3f, %+.3f] to the prior on validation "
        "users%s",
        *(gain, gain - margin, gain + margin),
        "" if certain else ", which is not certain, so it is left out; lm_weight=1 would keep it",
    )
    return _weighted(ranker, prior_weight, lm_weight)


@dataclass(frozen=True)
class _Parts:
    """Both parts of the logits at the decisions of the targets.

    Attributes:
        prior: the prior's log mass of each choice.
        residual: the residual's logit of each choice.
        starts: the first choice of each decision.
        right: the right choice of each decision.
        user: the user of each decision.
    """

    prior: Floats32
    residual: Floats32
    starts: Ints
    right: Ints
    user: Ints


@torch.inference_mode()
def _parts(ranker: Ranker, holdout: Holdout) -> _Parts:
    found, size = [], 0
    rows_at_once = scored_rows(ranker.backbone.device)
    for start in range(0, len(holdout), rows_at_once):
        rows = np.arange(start, min(start + rows_at_once, len(holdout)))
        states, located = ranker.decisions(holdout.histories.select(rows), holdout.targets[rows])
        residual = ranker.likelihood.lm_logits(states, located.choices).cpu().numpy()
        assert located.prior is not None
        starts, target = located.choices.starts + size, located.target + size
        found.append((located.prior, residual, starts, target, located.example + start))
        size += len(residual)
    return _Parts(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _weighted(ranker: Ranker, prior_weight: float, lm_weight: float) -> Ranker:
    """Return a ranker with other weights of prior and residual."""
    likelihood = copy(ranker.likelihood)
    assert likelihood.prior_weight is not None
    weight = nn.Parameter(torch.full_like(likelihood.prior_weight.detach(), prior_weight))
    likelihood._parameters = {**likelihood._parameters, "prior_weight": weight}
    likelihood.lm_weight = lm_weight
    config = ranker.config.model_copy(update={"lm_weight": lm_weight})
    return replace(ranker, likelihood=likelihood, config=config)


def _best(parts: _Parts) -> tuple[float, float]:
    """Maximise the likelihood over the two weights; the problem is concave."""
    logits = np.stack([parts.prior, parts.residual]).astype(np.float64)
    users = int(parts.user.max()) + 1
    right = logits[:, parts.right].sum(axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        total, odds = _normalised(weights @ logits, parts.starts)
        away = weights - 1.0
        value = float(total.sum() - weights @ right + RIDGE * away @ away)
        return value / users, (logits @ odds - right + 2 * RIDGE * away) / users

    bounds = [(0.0, None), (0.0, None)]
    found = minimize(loss, np.ones(2), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), float(found[1])


def _log_likelihoods(parts: _Parts, weights: tuple[float, float]) -> Floats:
    """Return log p(target | history) of each user with these weights."""
    logits = weights[0] * parts.prior.astype(np.float64) + weights[1] * parts.residual
    total, _ = _normalised(logits, parts.starts)
    return np.bincount(parts.user, weights=logits[parts.right] - total).astype(np.float64)


def _normalised(logits: Floats, starts: Ints) -> tuple[Floats, Floats]:
    """Return the log of each decision's total odds, and the probability of each choice."""
    sizes = np.diff(np.append(starts, len(logits)))
    top = np.maximum.reduceat(logits, starts)
    odds = np.exp(logits - np.repeat(top, sizes))
    total = np.add.reduceat(odds, starts)
    return top + np.log(total), odds / np.repeat(total, sizes)
