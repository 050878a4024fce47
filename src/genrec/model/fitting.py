"""The steps of fitting: building an untrained ranker, training it and evaluating it on the way."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from genrec.collaborative.experts import make_experts
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.registry import choose_prior, fit_prior
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout
from genrec.data.statistics import excludes_seen, repeat_share
from genrec.errors import ConfigError
from genrec.language_model.adapters import make_trainable
from genrec.language_model.backbone import Backbone, load_backbone, quiet_transformers
from genrec.language_model.checks import check_architecture, check_split
from genrec.language_model.devices import choose_device, choose_dtype
from genrec.language_model.sharding import shard
from genrec.language_model.title_index import TitleIndex
from genrec.language_model.title_states import TitleStates, prepare_states
from genrec.metrics import ndcg, target_ranks
from genrec.model.ranker import Ranker
from genrec.model.reading import for_layers, make_states, title_settings
from genrec.model.warm_start import check_weights, first_lm_weight, load_weights, own_weights
from genrec.processes import ProgressLines, broadcast_from_main, init_processes, stage

if TYPE_CHECKING:
    from genrec.training.trainer import TrainingResult


MAX_RATINGS = 20
"""Most different ratings that prompts say without a choice by the user."""
REPORTED_ROWS = 40
"""Users between two reports on a measurement of the likelihood."""


def untrained_ranker(config: Config, train: Dataset, valid: Holdout | None = None) -> Ranker:
    """Build a ranker with the untrained backbone.

    Args:
        config: the settings.
        train: training data; the prior is fitted on it.
        valid: validation users, on which the weights of a pooled prior are fitted.

    Returns:
        The ranker. In its ``config`` every ``auto`` is replaced by the chosen value.

    Raises:
        ConfigError: The settings do not fit the backbone or the data.
    """
    quiet_transformers()
    device = choose_device()
    init_processes(cpu=device.type == "cpu")
    kind = choose_prior(config.prior, len(train.catalogue))
    experts = training_experts(config, kind, len(train.catalogue))
    config = _resolved(config, train, kind, device)
    own = own_weights(config)
    with stage(f"loading the backbone {config.backbone}"):
        backbone = load_backbone(
            config.backbone,
            dtype=config.dtype,
            layers=config.layers if own is None else None,
            quantization=config.quantization,
            folder=own,
            device=device,
            on=torch.device("cpu") if config.fsdp else None,
        )
        if config.fsdp:
            shard(backbone.causal_lm, backbone.blocks, device)
    with stage(f"tokenising {len(train.catalogue):,} titles"):
        index = TitleIndex.build(
            backbone.tokenizer, train.catalogue.titles, **title_settings(config, backbone)
        )
        longest = int(index.titles.lengths.max(initial=0))
        check_architecture(backbone, config.max_tokens, longest)
    config = for_layers(config, len(backbone.blocks))
    check_weights(config)
    states = _checked_states(config, backbone, index)
    with stage(f"fitting the prior ({kind}) to {len(train.histories.items):,} interactions"):
        prior = fit_prior(kind, train, valid, experts)
    if isinstance(prior, PooledPrior):
        names = tuple(expert.name for expert in prior.experts)
        config = config.model_copy(update={"experts": names})
    if states is not None:
        prepare_states(states)
    return Ranker.assemble(config, backbone, train.catalogue, index, prior, states)


def _checked_states(config: Config, backbone: Backbone, index: TitleIndex) -> TitleStates | None:
    """Make the table of title states and refuse what cannot work, before a prior is fitted."""
    states = make_states(config, backbone, index)
    if states is not None:
        check_split(states.split)
    return states


def trainable_ranker(ranker: Ranker) -> Ranker:
    """Make the backbone of a ranker trainable, with the weights of ``config.init_from`` if any.

    Args:
        ranker: an untrained ranker; use the returned one from now on.

    Raises:
        RunError: A file of the weights is damaged.
    """
    make_trainable(ranker.backbone, ranker.config)
    return load_weights(ranker.renewed())


def _resolved(config: Config, train: Dataset, prior: str, device: torch.device) -> Config:
    """Return the settings with what ``auto`` stands for on this device and these data."""
    found = {
        "prior": prior,
        "dtype": broadcast_from_main(_training_dtype(config, device)),
        "lm_weight": first_lm_weight(config),
        "ratings": rating_values(config, train),
    }
    return config.model_copy(update=found)


def training_experts(config: Config, kind: str, n_items: int) -> list[str] | None:
    """Return the configured experts that can leave a user out, ``None`` for ``"auto"``.

    Args:
        config: the settings.
        kind: the prior that was chosen.
        n_items: size of the catalogue.

    Raises:
        ConfigError: The prior is no pool, a name is unknown, the catalogue is too large for an
            expert, or none of the experts can leave a user out.
    """
    if config.experts == "auto":
        return None
    if kind != "pooled":
        raise ConfigError(
            f"experts={','.join(config.experts)} are parts of the pooled prior, but the prior is "
            f"{kind}; set prior=pooled or leave experts out."
        )
    experts = make_experts(config.experts, n_items)
    names = [expert.name for expert in experts if expert.leaves_user_out]
    if not names:
        raise ConfigError(
            f"experts={','.join(config.experts)} would show the language model its targets in "
            "training; add at least one expert that can leave a user out, such as transitions."
        )
    return names


def rating_values(config: Config, train: Dataset) -> Literal["none"] | tuple[float, ...]:
    """Return the ratings that prompts say, for ``ratings="auto"`` those of the training data.

    Raises:
        ConfigError: Prompts shall say ratings, but the data have none, or too many different ones.
    """
    if config.ratings == "none":
        return "none"
    known = train.histories.ratings
    values = np.unique(known[~np.isnan(known)]).tolist() if known is not None else []
    if not values:
        raise ConfigError(f"{train.name} has no ratings; set ratings=none.")
    if config.ratings != "auto":
        return config.ratings
    if len(values) > MAX_RATINGS:
        raise ConfigError(
            f"{train.name} has {len(values)} different ratings, and ratings=auto takes at most "
            f"{MAX_RATINGS}; name some that the others are rounded to, e.g. ratings=1,2,3,4,5."
        )
    return tuple(values)


def _training_dtype(config: Config, device: torch.device) -> str:
    """Choose the number format for training.

    Full fine-tuning needs float32, because its updates are too small for bfloat16.
    """
    if config.tuning == "full":
        return "float32"
    return str(choose_dtype(config.dtype, device)).removeprefix("torch.")


def train_ranker(
    ranker: Ranker, data: Dataset, valid: Holdout | None, checkpoints: Path, progress: bool
) -> TrainingResult:
    """Train the language model and the residual of a ranker in place.

    Args:
        ranker: an untrained ranker whose backbone has trainable weights.
        data: training data.
        valid: validation users for evaluation steps, or ``None`` for none.
        checkpoints: folder for checkpoints; training resumes from them.
        progress: draw a progress bar on standard error.
    """
    from genrec.training.checkpoints import refuse_checkpoints  # late: HF Trainer loads for seconds
    from genrec.training.trainer import TrainingResult, train

    if ranker.config.epochs == 0:
        refuse_checkpoints(checkpoints, "epochs=0 trains nothing")
        return TrainingResult()
    users = None if valid is None else _sample(valid, ranker.config.eval_users, ranker.config.seed)
    seen = excludes_seen(repeat_share(data.histories))
    return train(
        ranker.likelihood,
        data.histories,
        ranker.prior,
        ranker.config,
        checkpoints=checkpoints,
        fingerprint=data.fingerprint,
        evaluate=None if users is None else partial(evaluate_step, ranker, users, seen),
        progress=progress,
    )


def evaluate_step(ranker: Ranker, holdout: Holdout, exclude_seen: bool = True) -> dict[str, float]:
    """Run an evaluation step during training.

    Args:
        ranker: the ranker in training.
        holdout: validation users.
        exclude_seen: whether lists leave out the items of the history.

    Returns:
        ``"NDCG@10"`` and ``"nll"``, the mean negative log-likelihood in nats per item.
    """
    # A copy drops the cached keys and values of the template, which belong to older weights.
    ranker = replace(ranker)
    ranker.likelihood.eval()
    found = ranker.recommend_batch(holdout.histories, 10, exclude_seen=exclude_seen)
    ranks = target_ranks(found.items, holdout.targets)
    nll = -ranker.log_likelihood(holdout.histories, holdout.targets).mean()
    ranker.likelihood.train()
    return {"NDCG@10": float(ndcg(ranks, 10).mean()), "nll": float(nll)}


def _sample(holdout: Holdout, users: int, seed: int) -> Holdout:
    return holdout.sample_targets(users, seed)


def mean_log_likelihood(ranker: Ranker, holdout: Holdout | None, users: int = 200) -> float | None:
    """Return the mean log-likelihood of the targets, in nats per item.

    Args:
        ranker: the ranker.
        holdout: users with one target each.
        users: maximum number of users, drawn with ``Config.seed``.

    Returns:
        The mean, or ``None`` without users and for decoding=beam, which defines no likelihood.
    """
    if holdout is None or not len(holdout) or ranker.config.decoding == "beam":
        return None
    sample = _sample(holdout, users, ranker.config.seed)
    report, parts = ProgressLines("measured users"), []
    with stage(f"measuring the likelihood of {len(sample)} validation users"):
        for start in range(0, len(sample), REPORTED_ROWS):
            rows = np.arange(start, min(start + REPORTED_ROWS, len(sample)))
            found = ranker.log_likelihood(sample.histories.select(rows), sample.targets[rows])
            parts.append(found)
            report(len(rows) + start, len(sample))
    return float(np.concatenate(parts).mean())


def training_info(result: TrainingResult) -> dict[str, Any]:
    """Return the facts about training that ``genrec.json`` records."""
    steps = [
        {key: value for key, value in each.items() if key != "epoch"} for each in result.evaluations
    ]
    return {
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "targets": result.targets,
        "processes": result.processes,
        "parameters": result.parameters,
        "log": [{"step": entry["step"], "loss": entry["loss"]} for entry in result.log],
        **({"evaluations": steps, "best_step": result.best_step} if steps else {}),
    }
