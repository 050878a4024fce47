"""The settings of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genrec.workflows.runs import CUTOFFS

TRAIN_ON = ("train+valid", "train")


EVALUATE_ON = ("test", "valid")


@dataclass(frozen=True)
class ComparisonConfig:
    """Settings of a comparison.

    Attributes:
        models: names of baselines and of variants of GenRec, or run folders.
        split: name of a split, or a folder with the tables train, valid and test.
        evaluate_on: the targets to predict: ``"test"``, or ``"valid"`` for choosing models and
            settings. With ``"valid"`` the validation targets are predicted, histories end one item
            earlier, and the test targets are not used.
        train_on: the data to fit on: ``"train+valid"`` is everything before the test targets, as
            in production once settings are chosen; ``"train"`` is the custom of papers, with the
            validation targets for early stopping.
        k: cut-offs of the metrics.
        users: number of test users, drawn with ``seed``; all if ``None``.
        seed: first seed.
        seeds: number of seeds (``seed``, ``seed + 1``, …) for each model that depends on one.
        minutes: training time in minutes for each variant of GenRec and for P5.
        settings: settings of GenRec's variants.
        exclude_seen: whether lists leave out items of the user's history; if ``None``, it depends
            on how often the training histories repeat items.
        nll: also measure the negative log-likelihood of the targets for models that define one.
        reference: name of the model that the others are compared with user by user; the best one
            if ``None``.
        hourly_cost: price of one hour on this machine, for the cost of 1,000 lists.
        allow_leaks: continue if a leak check fails; the report names the leak.
    """

    models: tuple[str, ...]
    split: str = "leave-last-out"
    evaluate_on: str = "test"
    train_on: str = "train+valid"
    k: tuple[int, ...] = CUTOFFS
    users: int | None = None
    seed: int = 0
    seeds: int = 1
    minutes: float = 5.0
    settings: Mapping[str, Any] | None = None
    exclude_seen: bool | None = None
    nll: bool = False
    reference: str | None = None
    hourly_cost: float | None = None
    allow_leaks: bool = False
