"""The settings of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genrec.workflows.runs import CUTOFFS

FITS = ("train+valid", "train")


PARTS = ("test", "valid")


@dataclass(frozen=True)
class ComparisonConfig:
    """Settings of a comparison.

    Attributes:
        models: names of baselines and forms of GenRec, or run folders.
        split: name of a split, or a folder with train, valid and test.
        evaluate_on: "test", or "valid" for choosing models and settings: then everything is one
            item earlier, the validation targets are predicted, and the test is not touched.
        train_on: "train+valid": once settings are chosen, models learn from everything before the
            test targets, as in production; "train": the custom of papers, in which validation
            decides when to stop.
        k: cut-offs.
        users: test users, drawn by ``seed``; all if None.
        seeds: runs of each model that depends on a seed: ``seed``, ``seed + 1``, …
        minutes: training of each form of GenRec and of P5.
        settings: of GenRec's forms.
        nll: ask models with a distribution for the likelihood of the targets, too.
        reference: the model the others are paired with; the best one if None.
        hourly_cost: of an hour on this machine, for the cost of 1,000 lists.
        allow_leaks: go on where the data or the split leak, and say so in the report.
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
    nll: bool = False
    reference: str | None = None
    hourly_cost: float | None = None
    allow_leaks: bool = False
