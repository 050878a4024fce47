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
        on: "test", or "valid" for choosing models and settings: everything is one item earlier,
            the validation targets are asked for and nothing of the test is looked at.
        fit: "train+valid": once settings are chosen, everything before the test targets is learnt
            from, as in production; "train": the custom of papers, validation says when to stop.
        k: cut-offs.
        users: test users, drawn by ``seed``; all if None.
        seeds: runs of each model that depends on a seed: ``seed``, ``seed + 1``, …
        minutes: training of each form of GenRec and of P5.
        settings: of GenRec's forms.
        nats: ask models with a distribution for the likelihood of the targets, too.
        reference: the model the others are paired with; the best one if None.
        price: of an hour on this machine, for the cost of 1,000 lists.
        allow_leaks: go on where the data or the split leak, and say so in the report.
    """

    models: tuple[str, ...]
    split: str = "leave-last-out"
    on: str = "test"
    fit: str = "train+valid"
    k: tuple[int, ...] = CUTOFFS
    users: int | None = None
    seed: int = 0
    seeds: int = 1
    minutes: float = 5.0
    settings: Mapping[str, Any] | None = None
    nats: bool = False
    reference: str | None = None
    price: float | None = None
    allow_leaks: bool = False
