"""Cache of the recommendation lists of each model in a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.arrays import Floats, Items
from genrec.evaluation.leakage import Finding
from genrec.files import UNREADABLE, read_arrays, write_arrays


@dataclass(frozen=True, eq=False)
class CachedLists:
    """The results of one fitted model.

    Attributes:
        items: recommended item indices, best first, int32 [users, k].
        nll: negative log-likelihood of each target in nats, float64 [users], or ``None``.
        seconds: time to recommend for all users.
        fit_seconds: time to fit the model.
        note: short description of the model for tables.
        findings: findings of the leak checks.
    """

    items: Items
    nll: Floats | None
    seconds: float
    fit_seconds: float
    note: str
    findings: list[Finding]

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write one npz file, atomically.

        Args:
            path: the file to write.
            identity: everything the results depend on, as JSON values.
        """
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
        """Read what :meth:`save` wrote.

        Returns:
            The results, or ``None`` if the file is missing, damaged or has another identity.
        """
        if not path.is_file():
            return None
        try:
            arrays, head = read_arrays(path)
            items, nll = arrays["items"], arrays.get("nll")
        except UNREADABLE:
            return None  # the file is damaged, so the results are computed again
        if head.pop("identity") != json.loads(json.dumps(identity)):
            return None
        findings = [Finding(**each) for each in head.pop("findings")]
        return cls(items=items, nll=nll, findings=findings, **head)
