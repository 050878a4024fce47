"""Models of a comparison by name: baselines, four variants of GenRec, and run folders."""

from __future__ import annotations

import difflib
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from genrec.assets.known import lasting_name
from genrec.baselines import BASELINES, make_baseline
from genrec.baselines.registry import OLD_NAMES
from genrec.collaborative.pool import PooledSASRec
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout, Split
from genrec.errors import ConfigError, RunError
from genrec.evaluation.leakage import Finding, check_fitted, check_numbers, check_same_training
from genrec.model.genrec import GenRec
from genrec.recommender import Recommender

if TYPE_CHECKING:
    from genrec.collaborative.sasrec import SASRec

FORMS: Mapping[str, Mapping[str, Any]] = {
    "genrec-zero-shot": {"prior": "none"},
    "genrec-paper": {"recipe": "paper"},
    "genrec-no-prior": {"prior": "none"},
    "genrec": {},
}
"""Settings of GenRec's variants by name; the first variant is not trained."""
ALL = (*BASELINES, *FORMS)
"""Names of all models."""
WITH_SASREC = ("sasrec", "pooled-sasrec")
"""Names of the models that begin with the same fit of SASRec."""
SEEDED = (*WITH_SASREC, "p5-sequential", "p5-shuffled", *list(FORMS)[1:])
"""Names of the models whose results depend on the seed."""


@dataclass(frozen=True, eq=False)
class FitContext:
    """The data and settings with which the models of a comparison are fitted.

    Attributes:
        data: the complete data set.
        split: the split with the targets of the comparison.
        fitted: the data that models are fitted on.
        known: everything before the targets; a run may have been trained on it without a leak.
        valid: validation targets for early stopping; ``None`` if they are a part of ``fitted``.
        settings: settings of GenRec's variants.
        minutes: training time in minutes for each variant of GenRec and for P5.
        folder: folder for the runs of GenRec, from which an interrupted comparison resumes.
        sasrecs: SASRec as it was first fitted, by seed, and the seconds that this took.
    """

    data: Dataset
    split: Split
    fitted: Dataset
    known: Dataset
    valid: Holdout | None
    settings: Mapping[str, Any]
    minutes: float
    folder: Path
    sasrecs: dict[int, tuple[SASRec, float]] = field(default_factory=dict)

    @cached_property
    def weights(self) -> dict[str, int]:
        """Checksums of the local folders of weights that the settings name, by setting."""
        given = {key: Path(str(self.settings.get(key))) for key in ("backbone", "init_from")}
        return {
            key: _checksum(sorted(folder.rglob("*")))
            for key, folder in given.items()
            if folder.is_dir()
        }


BLOCK = 2**20
"""Bytes of a file that are read at once for its checksum."""
RESOLVED = (
    *("prior", "experts", "lm_weight", "words_weight", "ratings"),
    *("context_layers", "dtype", "microbatch_size"),
)
"""Settings whose value ``auto`` stands for another one in a fitted run."""


@runtime_checkable
class Refittable(Recommender, Protocol):
    """A recommender with early stopping that can then be refitted on the validation items too."""

    def refit(self, train: Dataset) -> Self:
        """Fit again with the number of steps that the last fit found best; returns itself."""
        ...


@dataclass(frozen=True)
class ModelSpec:
    """A model by name.

    Attributes:
        name: name of the model in tables.
        run: folder of a trained run, or ``None`` for a model that is fitted in the comparison.
    """

    name: str
    run: Path | None = None

    @property
    def seeded(self) -> bool:
        return self.run is None and self.name in SEEDED

    @property
    def slow(self) -> bool:
        """Whether recommending is slow enough to need a progress bar and small batches."""
        return self.run is not None or self.name in FORMS or self.name.startswith("p5-")

    def identity(self, task: FitContext, seed: int) -> dict[str, Any]:
        """Return what the results depend on besides data, split and users, as JSON values."""
        if self.run is not None:
            return {"run": str(self.run), "state": run_state(self.run)}
        own: dict[str, Any] = {"seed": seed if self.seeded else 0}
        if self.name in FORMS:
            own |= {"settings": {**task.settings, **FORMS[self.name]}, "weights": "validation"}
            own |= task.weights
        if self.slow:
            own |= {"minutes": task.minutes}
        return own

    def fit(self, task: FitContext, seed: int) -> tuple[Recommender, float]:
        """Fit the model, or load its run folder.

        Args:
            task: data and settings.
            seed: seed of all random numbers.

        Returns:
            The model, and the seconds that it takes to fit, also if a part was fitted before.

        Raises:
            RunError: The run folder cannot be read, or was trained on other data.
        """
        shares = self.run is None and self.name in WITH_SASREC and seed in task.sasrecs
        spared = task.sasrecs[seed][1] if shares else 0.0
        started = time.perf_counter()
        if self.run is not None:
            model: Recommender = _loaded(self, task)
        elif self.name in FORMS:
            model = _form(self.name, task, seed)
        else:
            model = _fitted_baseline(self.name, task, seed)
        return model, time.perf_counter() - started + spared


def fit_on(model: Recommender, split: Split, whole: Dataset | None) -> Recommender:
    """Fit a model on the training data, or on ``whole`` with settings found on validation.

    Args:
        model: an unfitted model.
        split: training data and validation targets.
        whole: the data that the model knows in the end; the training data if ``None``.
    """
    if whole is None:
        return model.fit(split.train, split.valid)
    if isinstance(model, Refittable):
        return model.fit(split.train, split.valid).refit(whole)
    return model.fit(whole)


def model_spec(name: str) -> ModelSpec:
    """Find a model by the name of a baseline or of a variant of GenRec, or by a run folder.

    Raises:
        ConfigError: The name is none of these; the message suggests a close one.
    """
    name = OLD_NAMES.get(name, name)
    if name in FORMS or name in BASELINES:
        return ModelSpec(name)
    if (Path(name) / "genrec.json").is_file():
        return ModelSpec(Path(name).name, Path(name))
    close = difflib.get_close_matches(name, ALL, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    known = ", ".join(ALL)
    raise ConfigError(f"Unknown model {name!r}{meant} Give a run folder or one of {known}.")


def check_model(
    model: Recommender, split: Split, fitted: Dataset, known: Dataset
) -> Iterator[Finding]:
    """Yield the leaks of one model: fitted on other data, or item ids in the order of the log.

    Args:
        model: the fitted model.
        split: the split of the comparison.
        fitted: the data that the other models are fitted on.
        known: everything before the targets.
    """
    yield from check_fitted(model, [fitted, split.train, known])
    yield from check_same_training(model, fitted)
    if (numbers := getattr(model, "numbers", None)) is not None:
        yield from check_numbers(np.asarray(numbers), split, f"{model.name}'s items")


def check_run(each: ModelSpec, task: FitContext) -> Iterator[Finding]:
    """Yield a finding if the weights of a run were fitted on the targets of the comparison."""
    if each.run is not None and task.split.info.evaluate_on == "valid":
        yield Finding(
            "fitted on these targets",
            False,
            f"{each.name} is a trained run, and training fits weights on validation users, whose "
            "targets are predicted here, so its results are too good: compare on test targets, or "
            "let the comparison train the model",
        )


def note(model: Recommender) -> str:
    """Return a short description of a model for tables."""
    if not isinstance(model, GenRec):
        return str(getattr(model, "note", ""))
    config, training = model.ranker.config, model.info.get("training")
    parts = [config.backbone, f"prior {config.prior}"]
    if training is None:
        return ", ".join([*parts, "not trained"])
    parts.append(f"{training['targets']:,} targets in {training['seconds'] / 60:.0f} min")
    return ", ".join(parts)


def run_state(run: Path) -> int:
    """Return a checksum of the files on which the recommendations of a run depend."""
    names = ("genrec.json", "config.yaml", "catalogue.parquet", "prior.npz", "head.safetensors")
    folders = ("adapter", "backbone", "index", "prior")
    parts = (file for name in folders for file in sorted((run / name).glob("*")))
    return _checksum([*(run / name for name in names), *parts])


def _checksum(paths: Iterable[Path]) -> int:
    """Return a checksum of the contents of those paths that are files, however large."""
    state = 0
    for path in filter(Path.is_file, paths):
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                state = zlib.crc32(block, state)
    return state


def _fitted_baseline(name: str, task: FitContext, seed: int) -> Recommender:
    whole = task.fitted if task.valid is None else None
    if name in WITH_SASREC:
        model = _with_sasrec(name, task, seed)
        return model if whole is None else model.refit(whole)
    return fit_on(_baseline(name, task, seed), task.split, whole)


def _with_sasrec(name: str, task: FitContext, seed: int) -> SASRec | PooledSASRec:
    """Fit SASRec or the pool with it to the training data; both share one fit of SASRec."""
    from genrec.collaborative.sasrec import SASRec

    train, valid = task.split.train, task.split.valid
    if seed not in task.sasrecs:
        started = time.perf_counter()
        fitted = SASRec(seed=seed).fit(train, valid)
        task.sasrecs[seed] = fitted, time.perf_counter() - started
    fitted = copy(task.sasrecs[seed][0])  # a refit leaves the original as it is
    return fitted if name == "sasrec" else PooledSASRec(seed, fitted).fit(train, valid)


def _baseline(name: str, task: FitContext, seed: int) -> Recommender:
    if not name.startswith("p5-"):
        return make_baseline(name, seed)
    from genrec.baselines.p5 import P5
    from genrec.baselines.p5_settings import P5Settings

    # P5 as published numbers items in the order of the whole log, which the report marks as a leak.
    indexing: Any = name.removeprefix("p5-")
    settings = P5Settings(minutes=task.minutes, seed=seed)
    return P5(indexing, task.data.histories, settings)


def _form(name: str, task: FitContext, seed: int) -> GenRec:
    settings = {**task.settings, **FORMS[name], "seed": seed}
    model = GenRec(config=Config.create(**settings))
    model.name = name
    if name == "genrec-zero-shot":
        return model.build(task.fitted)
    folder = task.folder / f"{name}-seed{seed}"
    if (kept := _kept_run(folder, model, task)) is not None:
        kept.name = name
        return kept
    minutes = _minutes(model, task)
    if task.valid is None and model.config.prior != "none":
        # The weights are fitted on validation users, which the prior learns from afterwards.
        model.fit(task.split.train, task.split.valid, minutes=minutes, output=folder)
        model.refit_prior(task.fitted)
    else:
        model.fit(task.fitted, task.valid, minutes=minutes, output=folder)
    model.save_pretrained(folder)
    return model


def _kept_run(folder: Path, wanted: GenRec, task: FitContext) -> GenRec | None:
    """Return the run of an earlier comparison if it has the same settings and data, else None.

    This avoids training again if only the evaluation was interrupted.
    """
    if not (folder / "genrec.json").is_file() or wanted.config.init_from is not None:
        return None
    kept = GenRec.from_pretrained(folder)
    auto = [key for key in RESOLVED if getattr(wanted.config, key) == "auto"]
    resolved = {key: getattr(kept.config, key) for key in auto}
    own = {"minutes": _minutes(wanted, task), "backbone": lasting_name(wanted.config.backbone)}
    same = wanted.config.model_copy(update={**own, **resolved})
    weighed = kept.info.get("valid_log_likelihood") != [None, None]
    fitted = kept.info["data"].get("fitted", "train") == task.fitted.provenance.train_on
    same_run = kept.config == same and fitted and (weighed or wanted.config.prior == "none")
    return kept if same_run and _trained_on(kept, task) else None


def _minutes(model: GenRec, task: FitContext) -> float | None:
    """Return the training time in minutes, if the model is trained at all."""
    return None if model.config.epochs == 0 else task.minutes


def _loaded(which: ModelSpec, task: FitContext) -> GenRec:
    assert which.run is not None
    model = GenRec.from_pretrained(which.run)
    if not _trained_on(model, task):
        noted = model.info["data"]
        raise RunError(
            f"{which.run}: the run was trained on {noted['name']}, split {noted.get('split')}, "
            f"fingerprint {noted['fingerprint'][:16]}, but the comparison tests on "
            f"{task.data.name}, split {task.split.info.name}, fingerprint "
            f"{task.data.fingerprint[:16]}; the run may have been trained on test targets. Train a "
            "run on this split."
        )
    model.name = which.name
    return model


def _trained_on(model: GenRec, task: FitContext) -> bool:
    noted = model.info["data"]
    if task.split.info.evaluate_on == "valid" and noted.get("fitted") == "train+valid":
        return False  # the run was trained on the validation targets, which are predicted here
    same_data = noted["fingerprint"] == task.data.fingerprint
    info = task.split.info
    same_split = noted.get("split") == info.name and info.has_tables_of(noted)
    return bool(same_data and same_split)
