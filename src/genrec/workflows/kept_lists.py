"""Cache of the recommendation lists of each model in a comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec._version import __version__
from genrec.arrays import Floats, Items
from genrec.data.splits import Holdout
from genrec.evaluation.evaluate import Progress, evaluate
from genrec.evaluation.leakage import Finding, refuse_leaks
from genrec.files import UNREADABLE, read_arrays, write_arrays
from genrec.workflows.named_models import FitContext, ModelSpec, check_model, check_run, note
from genrec.workflows.plan import ComparisonConfig

KEPT = "models"
"""Subfolder with the cached recommendations of each model."""


BATCH_ROWS = 64
"""Users per batch of a slow model; progress is reported after each batch."""


FAST_BATCH_ROWS = 1024
"""Users per batch of a fast model."""


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


def lists_of(
    each: ModelSpec,
    task: FitContext,
    test: Holdout,
    plan: ComparisonConfig,
    seed: int,
    out: Path,
    progress: Progress | None,
) -> CachedLists:
    """Fit a model and let it recommend to the test users, unless the folder holds its results.

    Args:
        each: the model.
        task: data and settings.
        test: the targets and their users.
        plan: settings of the comparison.
        seed: seed of all random numbers.
        out: folder of the comparison.
        progress: called with (users done, users).

    Raises:
        LeakageError: the model was fitted on other data than the training split.
    """
    identity = {
        "genrec": __version__,
        "data": task.data.fingerprint,
        "split": task.split.info.to_json(),
        "train_on": plan.train_on,
        "fitted": task.fitted.fingerprint,
        "test": _digest(test),
        "k": max(plan.k),
        **({} if plan.exclude_seen else {"exclude_seen": False}),
        "nll": plan.nll,
        **each.identity(task, seed),
    }
    path = out / KEPT / f"{each.name}-seed{seed}.npz"
    if (known := CachedLists.load(path, identity)) is not None:
        return known
    made = _make(each, task, test, plan, seed, progress)
    made.save(path, identity)
    return made


def _digest(test: Holdout) -> str:
    users = "\n".join(test.histories.user_ids)
    return hashlib.sha256(users.encode() + test.targets.tobytes()).hexdigest()[:16]


def _make(
    each: ModelSpec,
    task: FitContext,
    test: Holdout,
    plan: ComparisonConfig,
    seed: int,
    progress: Progress | None,
) -> CachedLists:
    model, fit_seconds = each.fit(task, seed)
    findings = [
        *check_model(model, task.split, task.fitted, task.known),
        *check_run(each, task),
    ]
    if (
        any(finding.check == "fitted on other data" for finding in findings)
        and not plan.allow_leaks
    ):
        refuse_leaks(findings)
    rows = BATCH_ROWS if each.slow else FAST_BATCH_ROWS
    made = evaluate(
        model,
        test,
        [max(plan.k)],
        exclude_seen=bool(plan.exclude_seen),
        bootstrap=0,
        nll=plan.nll,
        progress=progress if each.slow else None,
        batch_rows=rows,
    )
    return CachedLists(made.items, made.nll, made.seconds, fit_seconds, note(model), findings)
