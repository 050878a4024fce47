"""Where data come from and how they were cut: what every artifact made of them records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class SplitInfo:
    """How a data set was split.

    Attributes:
        name: ``"leave-last-out"``, ``"global-time"``, or the folder of a split made elsewhere.
        facts: what JSON can hold of it, e.g. the users of each part and the cuts in time.
        evaluate_on: whether the test targets or, one step earlier, the validation targets are
            predicted.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    evaluate_on: str = "test"

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as ``dataset.json`` and reports hold it."""
        earlier = {} if self.evaluate_on == "test" else {"asked": "validation targets"}
        return {"split": self.name, **self.facts, **earlier}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        facts = {key: value for key, value in found.items() if key not in ("split", "asked")}
        return cls(found["split"], facts, "valid" if "asked" in found else "test")

    @property
    def label(self) -> str:
        """Its name, and what is predicted if that is not the test targets."""
        return self.name if self.evaluate_on == "test" else f"{self.name}, validation targets"


@dataclass(frozen=True)
class Provenance:
    """The origin of a data set.

    Attributes:
        preparation: what ``dataset.json`` records: files and columns, what was dropped and why, the
            k-core, the rule for tied timestamps, counts.
        folder: the data set folder it was loaded from; ``None`` for a known data set and for data
            in memory.
        whole: fingerprint of the data set that this one is a part of, or ``None``.
        split: how that data set was split, or ``None``.
        train_on: which part this is: ``"train"``, ``"train+valid"`` or ``"before valid"``.
    """

    preparation: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    whole: str | None = None
    split: SplitInfo | None = None
    train_on: str = "train"

    def summary(self, *names: str) -> dict[str, Any]:
        """The named facts of the preparation, as far as they are known."""
        return {name: self.preparation[name] for name in names if name in self.preparation}

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as ``dataset.json`` holds it; the folder is not in it."""
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
