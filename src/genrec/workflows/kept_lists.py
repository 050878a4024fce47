"""What each model of a comparison recommended, kept so that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.arrays import Floats, Items
from genrec.evaluation.leakage import Finding
from genrec.files import UNREADABLE, read_arrays, write_arrays

# -- what is kept of each model ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CachedLists:
    """What one fitted model said: lists int32 [users, k], nll [users] or None, times, findings."""

    items: Items
    nll: Floats | None
    seconds: float
    fit_seconds: float
    note: str
    findings: list[Finding]

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write one npz file, all of it or nothing."""
        head = {
            "identity": identity,
            "seconds": self.seconds,
            "fit_seconds": self.fit_seconds,
            "note": self.note,
            "findings": [vars(each) for each in self.findings],
        }
        nll = {} if self.nll is None else {"nll": self.nll}
        write_arrays(path, {"items": self.items, **nll}, head)

    @classmethod
    def load(cls, path: Path, identity: Mapping[str, Any]) -> CachedLists | None:
        """What :meth:`save` wrote, or None where there is nothing of this identity."""
        if not path.is_file():
            return None
        try:
            arrays, head = read_arrays(path)
            items, nll = arrays["items"], arrays.get("nll")
        except UNREADABLE:
            return None  # damaged: made again
        if head.pop("identity") != json.loads(json.dumps(identity)):
            return None
        findings = [Finding(**each) for each in head.pop("findings")]
        return cls(items=items, nll=nll, findings=findings, **head)
