"""The result of a comparison: one entry per model, on the same users, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from genrec import metrics
from genrec.arrays import Floats
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout
from genrec.errors import ConfigError
from genrec.evaluation.leakage import Finding
from genrec.evaluation.results import (
    LEVEL,
    Evaluation,
    compare_paired,
    compare_paired_nll,
    table_text,
)
from genrec.evaluation.slices import Slice
from genrec.metrics import PairedDifference


@dataclass(frozen=True, eq=False)
class Entry:
    """The results of one model.

    Attributes:
        evaluation: lists, metrics and intervals.
        note: remark for tables, such as the model's size and training.
        findings: leaks that concern this model alone.
        fit_seconds: wall time of fitting, in seconds, mean over runs.
    """

    evaluation: Evaluation
    note: str
    findings: tuple[Finding, ...]
    fit_seconds: float

    @property
    def name(self) -> str:
        """The model's name."""
        return self.evaluation.name

    @property
    def nll(self) -> Floats | None:
        """Negative log-likelihood of each user's target, shape [users], if the model has one."""
        return self.evaluation.nll

    @property
    def runs(self) -> int:
        """Number of seeds that the model was trained with."""
        return 1 if self.evaluation.ranks.ndim == 1 else len(self.evaluation.ranks)

    @property
    def leaks(self) -> bool:
        """Whether a leak was found, so that the model knows answers it should not know."""
        return any(each.leak for each in self.findings)

    @property
    def milliseconds(self) -> float:
        """Wall time per list, in milliseconds."""
        return 1000 * self.evaluation.seconds / self.evaluation.targets


@dataclass(frozen=True, eq=False)
class Comparison:
    """Entries in table order, and everything needed to read them.

    Attributes:
        data: name of the data set.
        split: name of the split.
        facts: facts about the data set and the split.
        test: the evaluated users.
        train: the training split.
        slices: groups of users with results of their own.
        entries: results of each model, in table order.
        findings: leaks and remarks that concern the data.
        environment: versions and hardware.
        seed: seed of the bootstrap.
        hourly_cost: cost of an hour on this machine, or ``None``.
        reference_name: model that the others are paired with; ``None`` takes the best.
        failures: why models did not run, by name.
    """

    data: str
    split: str
    facts: Mapping[str, Any]
    test: Holdout = field(repr=False)
    train: Dataset = field(repr=False)
    slices: Sequence[Slice] = field(repr=False)
    entries: Sequence[Entry]
    findings: Sequence[Finding]
    environment: Mapping[str, Any] = field(repr=False)
    seed: int = 0
    hourly_cost: float | None = None
    reference_name: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Metric that models are ranked by: NDCG at the largest k."""
        return f"NDCG@{self.cut}"

    @property
    def cut(self) -> int:
        """The largest k."""
        return max(self.entries[0].evaluation.k)

    @cached_property
    def reference(self) -> Entry:
        """The model that the others are paired with: the named one, or the best without a leak.

        Raises:
            ConfigError: there is no model of that name.
        """
        named = [each for each in self.entries if each.name == self.reference_name]
        if self.reference_name is not None and not named:
            known = ", ".join(each.name for each in self.entries)
            raise ConfigError(
                f"The reference {self.reference_name!r} is not among the compared models. Use one "
                f"of {known}."
            )
        honest = [each for each in self.entries if not each.leaks] or list(self.entries)
        return (named or [max(honest, key=lambda each: each.evaluation.metrics[self.metric])])[0]

    def table(self) -> str:
        """The metrics of all models as text, for ``print``."""
        return table_text([entry.evaluation for entry in self.entries])

    def paired(self, entry: Entry) -> PairedDifference:
        """Return the paired difference in :attr:`metric`, reference minus entry."""
        return compare_paired(
            self.reference.evaluation, entry.evaluation, self.metric, seed=self.seed
        )

    def paired_nll(self, entry: Entry) -> PairedDifference | None:
        """Return the paired difference in negative log-likelihood (nats), entry minus reference.

        It is ``None`` if either model has no likelihood.
        """
        return compare_paired_nll(self.reference.evaluation, entry.evaluation, seed=self.seed)

    def users_in(self, part: Slice) -> int:
        """Return the number of users of a slice."""
        owner = self.reference.evaluation.owner
        return int(part.rows.sum()) if owner is None else len(np.unique(owner[part.rows]))

    def in_slice(self, entry: Entry, part: Slice, metric: str) -> tuple[float, float, float]:
        """Return the mean of a metric over a slice's users, and the ends of its interval."""
        values, owner = entry.evaluation.values(metric)[part.rows], entry.evaluation.owner
        mine = None if owner is None else owner[part.rows]
        ends = metrics.bootstrap_interval(values, self.seed, level=LEVEL, owner=mine)
        return float(values.mean()), *ends

    def beyond_accuracy(self, entry: Entry) -> dict[str, float]:
        """Return coverage, Gini index and novelty of the lists at each k.

        Gini index and novelty are left out of lists without any item.
        """
        size = len(self.train.catalogue)
        counts = np.bincount(self.train.histories.items, minlength=size)
        found = dict(entry.evaluation.coverage)
        for cut in entry.evaluation.k:
            items = entry.evaluation.items[..., :cut]
            if not ((items >= 0) & (items < size)).any():
                continue
            found[f"gini@{cut}"] = metrics.gini(items, size)
            found[f"novelty@{cut}"] = metrics.novelty(items, counts)
        return found

    def rates(self, entry: Entry) -> dict[str, float]:
        """Return the shares of list places that are invalid, duplicate, seen or unfilled."""
        counts, places = entry.evaluation.counts, entry.evaluation.items.size
        return {
            f"{name}_rate": counts[name] / places
            for name in ("invalid", "duplicates", "seen", "unfilled")
        }

    def cost(self, entry: Entry) -> dict[str, float]:
        """Return the time per list and, if an hourly cost is known, the cost of 1,000 lists."""
        found = {"ms_per_list": entry.milliseconds, "seconds_per_1000": entry.milliseconds}
        if self.hourly_cost is not None:
            found["cost_per_1000"] = entry.milliseconds / 3600 * self.hourly_cost
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts, with models by name."""
        return {
            "dataset": self.data,
            "split": self.split,
            "facts": dict(self.facts),
            "findings": [vars(each) for each in self.findings],
            "models": {entry.name: self._entry_json(entry) for entry in self.entries},
            "failures": dict(self.failures),
            "reference": self.reference.name,
            "environment": dict(self.environment),
        }

    def _entry_json(self, entry: Entry) -> dict[str, Any]:
        paired = {} if entry is self.reference else {self.metric: list(self.paired(entry))}
        return {
            **entry.evaluation.to_json(),
            **self.beyond_accuracy(entry),
            **self.rates(entry),
            **self.cost(entry),
            "fit_seconds": entry.fit_seconds,
            "runs": entry.runs,
            "note": entry.note,
            "findings": [vars(each) for each in entry.findings],
            "reference_minus_this": paired,
            "slices": [
                {
                    "group": part.group,
                    "name": part.name,
                    "users": self.users_in(part),
                    self.metric: self.in_slice(entry, part, self.metric),
                }
                for part in self.slices
            ],
        }
