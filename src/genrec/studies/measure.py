"""Training and measuring one arm of a study."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.arrays import Arrays, Mask
from genrec.baselines import make_baseline
from genrec.baselines.registry import BASELINES
from genrec.config import Config
from genrec.data.loading import load_dataset
from genrec.data.splits import Holdout, Split, hold_out_last
from genrec.data.statistics import excludes_seen, repeat_share
from genrec.evaluation.evaluate import evaluate
from genrec.evaluation.results import Evaluation
from genrec.model.fitting import untrained_ranker
from genrec.model.genrec import GenRec
from genrec.model.ranker import Ranker
from genrec.recommender import Recommender
from genrec.studies.bounds import machine_rates, request_bound, target_bound
from genrec.studies.data import HeldOut, drawn, hold_out_positions
from genrec.studies.random_backbone import random_backbone
from genrec.studies.restricted import Restricted, with_all_words
from genrec.studies.study import Arm, Study, StudyConfig
from genrec.studies.views import LIKED_ONLY, apply_views
from genrec.training.windows import training_windows

K = 10
"""Length of the measured lists."""
ASKING_USERS = 500
"""Fewest training users on whom the weight of words is fitted."""
REQUESTS = 20
"""Single requests whose time is measured."""
MAX_EPOCHS = 4.0
"""Most passes over the training data, however many targets a study asks for."""
KIB = 1024


@dataclass
class Measured:
    """What was measured of one arm with one seed.

    Attributes:
        arrays: for each held-out target its number ``row``, its user ``user``, how often its item
            occurs in the training data ``count``, the rank ``rank`` (0 beyond the list), the list
            ``items`` and, if the model has one, ``nll``.
        values: single numbers by name.
        texts: facts such as an example of a prompt.
    """

    arrays: Arrays
    values: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def study_split(config: StudyConfig, *, liked: bool) -> Split:
    """Load the data of a study and hold out its targets."""
    return hold_out_positions(load_dataset(config.dataset), config.positions, liked=liked)


def measure_arm(arm: Arm, study: Study, config: StudyConfig, seed: int) -> Measured:
    """Train an arm and measure it on its held-out targets.

    Args:
        arm: the variant.
        study: its study.
        config: the settings of the study.
        seed: seed of training and of random changes of the data.

    Raises:
        GenRecError: The arm does not fit the data, the backbone or the settings.
    """
    whole = study_split(config, liked=study.liked)
    split = apply_views(whole, arm.views, seed)
    asking: Holdout | None = None
    if study.words:
        train, asking = hold_out_last(split.train, least=ASKING_USERS)
        split = replace(split, train=train)
    held = drawn(split.valid, max(1, round(arm.users * min(config.users, len(split.valid)))))
    started, values, texts = time.perf_counter(), dict[str, float](), dict[str, str]()
    if arm.model in BASELINES:
        with peak_memory(values, "fit"):
            model: Recommender = make_baseline(arm.model, seed).fit(split.train)
        values["train_seconds"] = time.perf_counter() - started
    else:
        model = _fitted(arm, config, split, seed, values)
        if asking is not None:
            model = model.fit_words_weight(asking)
            values["words_weight"] = model.ranker.words_weight
        texts["prompt"] = model.ranker.prompt_text(held.holdout.histories[0])
        values |= _request(model, held)
        if study.bounds:
            values |= _bounds(arm, model, split, held, values)
    found = _evaluated(arm, model, held, whole)
    values["list_ms"] = 1000 * found.seconds / found.targets
    values["seconds"] = time.perf_counter() - started
    users = np.unique(held.holdout.histories.user_ids, return_inverse=True)[1]
    counts = np.bincount(split.train.histories.items, minlength=len(split.train.catalogue))
    arrays: Arrays = {
        "row": held.rows,
        "user": users,
        "count": counts[held.holdout.targets],
        "rank": found.ranks,
        "items": found.items,
    }
    if found.nll is not None:
        arrays["nll"] = found.nll
    return Measured(arrays, values, texts)


def _evaluated(arm: Arm, model: Recommender, held: HeldOut, whole: Split) -> Evaluation:
    """Evaluate an arm; ``whole`` is the split before the arm's views."""
    holdout, size = held.holdout, len(held.holdout.catalogue)
    unrepeated = excludes_seen(repeat_share(whole.train.histories))
    how: dict[str, Any] = {"bootstrap": 0, "exclude_seen": unrepeated, "batch_rows": len(holdout)}
    candidates: Mask | None = None
    if arm.filtered:
        candidates = with_all_words(holdout.catalogue, holdout.histories)
        holdout = replace(holdout, histories=replace(holdout.histories, words=None))
    elif LIKED_ONLY in arm.views and unrepeated:  # lists leave out what the view hides, too
        candidates = ~whole.valid.histories.select(held.rows).seen(size)
    if candidates is not None:
        assert isinstance(model, GenRec)
        model = Restricted(model, candidates)
    return evaluate(model, holdout, K, nll=not arm.filtered, **how)


def _fitted(
    arm: Arm, config: StudyConfig, split: Split, seed: int, values: dict[str, float]
) -> GenRec:
    """Return the trained model of an arm, or the untrained one; note its costs in ``values``."""
    settings = {**arm.settings, **config.settings, "seed": seed}
    if arm.random_weights:
        chosen = Config.create(**settings).backbone
        settings["backbone"] = random_backbone(chosen, seed)
    model = GenRec(config=Config.create(**settings))
    started = time.perf_counter()
    with peak_memory(values, "build"):
        model.build(split.train)
    values["build_seconds"] = time.perf_counter() - started
    if arm.effort == 0:
        return model
    epochs = arm.effort * config.targets / targets_per_epoch(model.ranker, split)
    del model
    model = GenRec(config=Config.create(**settings, epochs=min(MAX_EPOCHS, epochs)))
    with peak_memory(values, "train"):
        model.fit(split.train, progress=False)
    training = model.training
    assert training is not None
    adapter = model.ranker.backbone.adapter_files.get("adapter_model.safetensors", b"")
    values |= {
        "train_seconds": training.seconds,
        "targets": training.targets,
        "targets_per_second": training.targets / max(1e-9, training.seconds),
        "parameters": training.parameters,
        "adapter_mb": len(adapter) / 1e6,
    }
    return model


def targets_per_epoch(ranker: Ranker, split: Split) -> int:
    """Return the number of training targets in one pass over the training windows."""
    histories = split.train.histories
    return training_windows(histories, ranker.layout.prompts, ranker.config).targets


def _request(model: GenRec, held: HeldOut) -> dict[str, float]:
    """Measure single requests, and the sizes that their cost depends on."""
    histories = held.holdout.histories
    rows = range(min(REQUESTS, len(histories)))
    taken, ranker = [], model.ranker
    for row in [0, *rows]:  # the first request fills caches
        one = histories.select([row])
        started = time.perf_counter()
        ranker.search(one, K)
        taken.append(time.perf_counter() - started)
    prompts = [len(ranker.prompt(histories[row])) for row in rows]
    tokens = [len(ranker.prompts.encode(ranker.recent(histories[row]))) for row in rows]
    return {
        "request_ms": 1000 * float(np.median(taken[1:])),
        "positions": float(np.mean(prompts)),
        "prompt_tokens": float(np.mean(tokens)),
        "title_tokens": float(ranker.prompts.titles.lengths.mean()),
    }


def _bounds(
    arm: Arm, model: GenRec, split: Split, held: HeldOut, values: dict[str, float]
) -> dict[str, float]:
    """Return the lower bounds of a request and of training, and the measured times in them."""
    ranker = model.ranker
    rates = machine_rates(ranker.backbone.output_weight.dtype)
    one = held.holdout.histories.select([0])
    request = 1000 * request_bound(ranker, one, K, rates)
    untrained = untrained_ranker(model.config, split.train)
    target = target_bound(untrained, split, rates)
    return {
        "matmul_gflops": rates.flops / 1e9,
        "memory_gb_per_second": rates.bytes / 1e9,
        "bound_ms": request,
        "request_ratio": values["request_ms"] / request,
        "train_ratio": 1 / (target * values["targets_per_second"]),
    }


@contextmanager
def peak_memory(values: dict[str, float], stage: str) -> Iterator[None]:
    """Note the peak memory of a stage in MB: of the process, and of the GPU if there is one.

    Args:
        values: where ``<stage>_peak_mb`` and ``<stage>_gpu_mb`` are noted.
        stage: name of the stage.
    """
    reset = Path("/proc/self/clear_refs")
    cuda = torch.cuda.is_available()
    if reset.exists():
        reset.write_text("5")  # Linux forgets the highest resident size so far
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    yield
    values[f"{stage}_peak_mb"] = _highest_resident() / 1e6
    if cuda:
        values[f"{stage}_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6


def _highest_resident() -> int:
    """Return the highest resident size of this process in bytes."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:  # some sandboxes do not tell it
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * KIB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
