"""The result of a study: one entry per arm, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from genrec import metrics
from genrec.arrays import Arrays, Floats, Ints
from genrec.evaluation.results import LEVEL
from genrec.studies.measure import K, Measured
from genrec.studies.study import Arm, Study

ACCURACY = ("nll", "HR@10", "NDCG@10")
"""Measured values with an interval over users."""


@dataclass(frozen=True, eq=False)
class ArmResult:
    """What was measured of one arm, averaged over its seeds.

    Attributes:
        arm: the variant.
        seeds: number of seeds.
        means: mean and ends of the interval of each of :data:`ACCURACY` that was measured.
        differences: paired differences to the first arm of the group; ``nll`` counts as better if
            it is lower, so that every positive difference is a gain.
        values: single numbers, such as costs.
        slices: mean ``nll`` of targets by popularity.
        texts: facts such as an example of a prompt.
    """

    arm: Arm
    seeds: int
    means: Mapping[str, tuple[float, float, float]]
    differences: Mapping[str, tuple[float, float, float]]
    values: Mapping[str, float]
    slices: Mapping[str, float]
    texts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain values."""
        return {
            **self.arm.to_json(),
            "seeds": self.seeds,
            **{name: list(value) for name, value in self.means.items()},
            "gain_over_first": {name: list(value) for name, value in self.differences.items()},
            "values": dict(self.values),
            "nll_by_popularity": dict(self.slices),
            "texts": dict(self.texts),
        }

    def value(self, name: str) -> float | None:
        """Return a measured value by name, or the arm's ``x``."""
        if name in self.means:
            return self.means[name][0]
        return self.arm.x if name == "x" else self.values.get(name)


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The arms of a study that were measured, and what the numbers hold for.

    Attributes:
        study: the study.
        entries: the measured arms, in the study's order.
        skipped: arms without a result, with the reason.
        facts: data, settings, versions and hardware.
        examples: histories on which arms differ most, in words.
    """

    study: Study
    entries: Sequence[ArmResult]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {
            "study": self.study.name,
            "question": self.study.question,
            "arms": [each.to_json() for each in self.entries],
            "skipped": dict(self.skipped),
            "examples": list(self.examples),
            **self.facts,
        }


def summarise(
    arms: Sequence[Arm], measured: Mapping[str, Sequence[Measured]], *, paired: bool = True
) -> list[ArmResult]:
    """Compute means, intervals and paired differences.

    Args:
        arms: the arms of the study.
        measured: what was measured of each arm by name, one entry per seed.
        paired: whether all arms were measured on the same targets.
    """
    firsts: dict[str, Sequence[Measured]] = {}
    entries = []
    for arm in arms:
        runs = measured.get(arm.name)
        if not runs:
            continue
        first = firsts.setdefault(arm.group, runs) if paired else runs
        entries.append(_entry(arm, runs, first))
    return entries


def _entry(arm: Arm, runs: Sequence[Measured], first: Sequence[Measured]) -> ArmResult:
    own, other = _averaged(runs), _averaged(first)
    mine, theirs = np.intersect1d(own["row"], other["row"], return_indices=True)[1:]
    means, differences = {}, {}
    for name in ACCURACY:
        if name not in own:
            continue
        means[name] = _interval(own[name], own["user"])
        if runs is not first and name in other:
            sign = -1 if name == "nll" else 1
            gain = sign * (own[name][mine] - other[name][theirs])
            differences[name] = _interval(gain, own["user"][mine])
    return ArmResult(
        arm,
        len(runs),
        means,
        differences,
        _mean_values(runs),
        _by_popularity(own),
        runs[0].texts,
    )


def _averaged(runs: Sequence[Measured]) -> Arrays:
    """Return the accuracy at each target, averaged over seeds."""
    arrays = runs[0].arrays
    found: dict[str, Any] = {name: arrays[name] for name in ("row", "user", "count")}
    ranks = np.stack([run.arrays["rank"] for run in runs])
    found["HR@10"] = metrics.hit_rate(ranks, K).mean(axis=0)
    found["NDCG@10"] = metrics.ndcg(ranks, K).mean(axis=0)
    if all("nll" in run.arrays for run in runs):
        found["nll"] = np.mean([run.arrays["nll"] for run in runs], axis=0)
    return found


def _interval(values: Floats, users: Ints) -> tuple[float, float, float]:
    """Return the mean over targets and its bootstrap interval over users.

    Users with several targets are drawn with all of them.
    """
    return float(values.mean()), *metrics.bootstrap_interval(values, 0, level=LEVEL, owner=users)


def _mean_values(runs: Sequence[Measured]) -> dict[str, float]:
    # Runs of other machines may have measured other things, such as the memory of a GPU.
    names = [name for name in runs[0].values if all(name in run.values for run in runs)]
    return {name: float(np.mean([run.values[name] for run in runs])) for name in names}


def _by_popularity(own: Arrays) -> dict[str, float]:
    """Return the mean negative log-likelihood of rare, common and popular targets."""
    if "nll" not in own:
        return {}
    counts = own["count"]
    parts = {
        "never seen in training": counts == 0,
        "1 to 9 times": (counts > 0) & (counts < 10),
        "10 to 99 times": (counts >= 10) & (counts < 100),
        "100 times and more": counts >= 100,
    }
    return {
        name: float(cast(Floats, own["nll"])[rows].mean())
        for name, rows in parts.items()
        if rows.any()
    }
