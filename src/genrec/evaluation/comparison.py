"""What a comparison found: one entry for each model, on the same users, and how they differ."""

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
from genrec.evaluation.results import LEVEL, Evaluation, compare_paired, table_text
from genrec.evaluation.slices import Slice
from genrec.metrics import PairedDifference


@dataclass(frozen=True, eq=False)
class Entry:
    """How one model did.

    note: what a reader should know of it, e.g. its size and training. findings: leaks of this model
    alone. fit_seconds: wall time of fitting, mean over runs.
    """

    evaluation: Evaluation
    note: str
    findings: tuple[Finding, ...]
    fit_seconds: float

    @property
    def name(self) -> str:
        return self.evaluation.name

    @property
    def nll(self) -> Floats | None:
        return self.evaluation.nll

    @property
    def runs(self) -> int:
        """How many seeds it was trained with."""
        return 1 if self.evaluation.ranks.ndim == 1 else len(self.evaluation.ranks)

    @property
    def leaks(self) -> bool:
        """Whether it knows answers that it should not."""
        return any(each.leak for each in self.findings)

    @property
    def milliseconds(self) -> float:
        """Wall time of one list, in ms."""
        return 1000 * self.evaluation.seconds / self.evaluation.users


@dataclass(frozen=True, eq=False)
class Comparison:
    """Entries in table order, and all that is needed to read them.

    data, split: names. facts: of the data set and the split. counts: int [items], training
    interactions. findings: of the data. hourly_cost: of on this machine, or None.
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

    @property
    def metric(self) -> str:
        """What models are ranked by: NDCG at the largest k."""
        return f"NDCG@{self.cut}"

    @property
    def cut(self) -> int:
        return max(self.entries[0].evaluation.k)

    @cached_property
    def reference(self) -> Entry:
        """The model the others are paired with: the named one, or the best without a leak."""
        named = [each for each in self.entries if each.name == self.reference_name]
        if self.reference_name is not None and not named:
            known = ", ".join(each.name for each in self.entries)
            raise ConfigError(f"No model {self.reference_name!r} is compared; there are {known}.")
        honest = [each for each in self.entries if not each.leaks] or list(self.entries)
        return (named or [max(honest, key=lambda each: each.evaluation.metrics[self.metric])])[0]

    def table(self) -> str:
        """The metrics of all models as text, for ``print``."""
        return table_text([entry.evaluation for entry in self.entries])

    def paired(self, entry: Entry) -> PairedDifference:
        """Reference minus entry, in :attr:`metric`, user by user."""
        return compare_paired(
            self.reference.evaluation, entry.evaluation, self.metric, seed=self.seed
        )

    def paired_nll(self, entry: Entry) -> PairedDifference | None:
        """The entry's negative log-likelihood minus the reference's, user by user, in nats."""
        if entry.nll is None or self.reference.nll is None:
            return None
        return metrics.paired_difference(entry.nll, self.reference.nll, self.seed, level=LEVEL)

    def in_slice(self, entry: Entry, part: Slice, metric: str) -> tuple[float, float, float]:
        """Mean of a metric over a slice's users, and the ends of its interval."""
        values = entry.evaluation.values(metric)[part.rows]
        return float(values.mean()), *metrics.bootstrap_interval(values, self.seed, level=LEVEL)

    def beyond_accuracy(self, entry: Entry) -> dict[str, float]:
        """What the lists cover, how evenly, and how surprising they are, at each k."""
        size = len(self.train.catalogue)
        counts = np.bincount(self.train.histories.items, minlength=size)
        found = dict(entry.evaluation.coverage)
        for cut in entry.evaluation.k:
            items = entry.evaluation.items[..., :cut]
            found[f"gini@{cut}"] = metrics.gini(items, size)
            found[f"novelty@{cut}"] = metrics.novelty(items, counts)
        return found

    def rates(self, entry: Entry) -> dict[str, float]:
        """Shares of all places in lists that hold no item, or one twice, or a seen one."""
        counts, places = entry.evaluation.counts, entry.evaluation.items.size
        return {
            f"{name}_rate": counts[name] / places
            for name in ("invalid", "duplicates", "seen", "unfilled")
        }

    def cost(self, entry: Entry) -> dict[str, float]:
        """Time and, where a price is known, money for 1,000 lists."""
        found = {"ms_per_list": entry.milliseconds, "seconds_per_1000": entry.milliseconds}
        if self.hourly_cost is not None:
            found["cost_per_1000"] = entry.milliseconds / 3600 * self.hourly_cost
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers, strings, lists and dicts; models by name."""
        return {
            "dataset": self.data,
            "split": self.split,
            "facts": dict(self.facts),
            "findings": [vars(each) for each in self.findings],
            "models": {entry.name: self._entry_json(entry) for entry in self.entries},
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
                    "users": int(part.rows.sum()),
                    self.metric: self.in_slice(entry, part, self.metric),
                }
                for part in self.slices
            ],
        }
