"""Provenance of data: their source, preparation and split, as recorded in every artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class SplitInfo:
    """How a data set was split.

    Attributes:
        name: ``"leave-last-out"``, ``"global-time"``, either with options after commas, or the
            folder of a split made elsewhere.
        facts: details that JSON can hold, e.g. the numbers of users in each part and the cut times.
        evaluate_on: the targets that are predicted: ``"test"``, or ``"valid"`` for the validation
            targets, one step earlier.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    evaluate_on: str = "test"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict, as stored in ``dataset.json`` and reports."""
        earlier = {} if self.evaluate_on == "test" else {"asked": "validation targets"}
        return {"split": self.name, **self.facts, **earlier}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        facts = {key: value for key, value in found.items() if key not in ("split", "asked")}
        return cls(found["split"], facts, "valid" if "asked" in found else "test")

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the tables of a folder; ``None`` for splits that need none."""
        return self.facts.get("fingerprint")

    def has_tables_of(self, noted: Mapping[str, Any]) -> bool:
        """Return whether a run's data facts name these tables, or none (older runs)."""
        return noted.get("split_fingerprint") in (None, self.fingerprint)

    @property
    def kind(self) -> str:
        """The name without options."""
        return self.name.partition(",")[0]

    @property
    def label(self) -> str:
        """The name of the split, with a note if the validation targets are predicted."""
        return self.name if self.evaluate_on == "test" else f"{self.name}, validation targets"


@dataclass(frozen=True)
class Provenance:
    """The origin of a data set.

    Attributes:
        preparation: the facts in ``dataset.json``: files and columns, dropped rows by reason, the
            k-core, the rule for tied timestamps, and counts.
        folder: the data set folder that was loaded; ``None`` for a known data set and for data in
            memory.
        whole: fingerprint of the complete data set if this one is a part of it, else ``None``.
        split: how the complete data set was split, or ``None``.
        train_on: which part of the split this is: ``"train"``, ``"train+valid"`` or
            ``"before valid"``.
    """

    preparation: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    whole: str | None = None
    split: SplitInfo | None = None
    train_on: str = "train"

    def summary(self, *names: str) -> dict[str, Any]:
        """Return the named facts of the preparation that are present."""
        return {name: self.preparation[name] for name in names if name in self.preparation}

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict, as stored in ``dataset.json``; it does not contain the folder."""
        part: dict[str, Any] = {}
        if self.split is not None:
            part["split"] = self.split.to_json()
        if self.whole is not None:
            part["of"] = self.whole
        if self.train_on != "train":
            part["fitted"] = self.train_on
        return {**self.preparation, **part}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], folder: str | None = None) -> Self:
        """Inverse of :meth:`to_json`."""
        split = found.get("split")
        own = ("split", "of", "fitted")
        return cls(
            {key: value for key, value in found.items() if key not in own},
            folder,
            found.get("of"),
            None if split is None else SplitInfo.from_json(split),
            found.get("fitted", "train"),
        )
