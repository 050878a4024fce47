"""Who can take part in a comparison: baselines, four forms of GenRec, and run folders, by name."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from genrec.baselines import BASELINES, make_baseline
from genrec.baselines.registry import OLD_NAMES
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout, Split
from genrec.errors import ConfigError, RunError
from genrec.evaluation.leakage import Finding, check_fitted, check_numbers
from genrec.model.genrec import GenRec
from genrec.recommender import Recommender

FORMS: Mapping[str, Mapping[str, Any]] = {
    "genrec-zero-shot": {"prior": "none"},
    "genrec-paper": {"recipe": "paper"},
    "genrec-no-prior": {"prior": "none"},
    "genrec": {},
}
"""Settings of GenRec's forms; the first one is not trained."""
ALL = (*BASELINES, *FORMS)
"""Everything that has a name."""
SEEDED = ("sasrec", "p5-sequential", "p5-shuffled", *list(FORMS)[1:])
"""Those that another seed makes another model of."""


@dataclass(frozen=True, eq=False)
class FitContext:
    """What a model is given.

    Attributes:
        data: the whole data set.
        split: what is compared on.
        fitted: what models learn from.
        known: all that precedes the targets; a run that learnt from it knows no answers.
        valid: for models that choose when to stop; ``None`` if it is a part of ``fitted``.
        settings: of GenRec's forms.
        minutes: training of each form and of P5.
        folder: where runs of GenRec are kept, so that a comparison that was cut off goes on.
    """

    data: Dataset
    split: Split
    fitted: Dataset
    known: Dataset
    valid: Holdout | None
    settings: Mapping[str, Any]
    minutes: float
    folder: Path


@runtime_checkable
class Refittable(Recommender, Protocol):
    """A recommender that stops by validation and can then learn from the validation items, too."""

    def refit(self, train: Dataset) -> Self:
        """Fit again, for as long as the last fit has found best; returns itself."""
        ...


@dataclass(frozen=True)
class ModelSpec:
    """A model by name. `run` is a run folder that was trained before, or None."""

    name: str
    run: Path | None = None

    @property
    def seeded(self) -> bool:
        return self.run is None and self.name in SEEDED

    @property
    def slow(self) -> bool:
        """Whether a list takes long enough to show progress."""
        return self.run is not None or self.name in FORMS or self.name.startswith("p5-")

    def identity(self, task: FitContext, seed: int) -> dict[str, Any]:
        """What its results depend on beside data, split and users."""
        if self.run is not None:
            state = (self.run / "genrec.json").read_bytes()
            return {"run": str(self.run), "state": zlib.crc32(state)}
        own: dict[str, Any] = {"seed": seed if self.seeded else 0}
        if self.name in FORMS:
            own |= {"settings": {**FORMS[self.name], **task.settings}}
        if self.slow:
            own |= {"minutes": task.minutes}
        return own

    def fit(self, task: FitContext, seed: int) -> Recommender:
        """Fit on the training split, or load what was fitted before."""
        if self.run is not None:
            return _loaded(self, task)
        if self.name in FORMS:
            return _form(self.name, task, seed)
        model = _baseline(self.name, task, seed)
        if task.valid is None and isinstance(model, Refittable):  # finds out first when to stop
            return model.fit(task.split.train, task.split.valid).refit(task.fitted)
        return model.fit(task.fitted, task.valid)


def model_spec(name: str) -> ModelSpec:
    """A baseline, a form of GenRec, or a run folder.

    Raises:
        ConfigError: none of these.
    """
    name = OLD_NAMES.get(name, name)
    if name in FORMS or name in BASELINES:
        return ModelSpec(name)
    if (Path(name) / "genrec.json").is_file():
        return ModelSpec(Path(name).name, Path(name))
    close = difflib.get_close_matches(name, ALL, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(ALL)
    raise ConfigError(f"Unknown model {name!r}; {meant}Give a run folder, or one of {known}.")


def check_model(model: Recommender, task: FitContext) -> Iterator[Finding]:
    """Leaks of one model: counts of other data, item numbers in the order of the log."""
    yield from check_fitted(model, [task.fitted, task.split.train, task.known])
    if (numbers := getattr(model, "numbers", None)) is not None:
        yield from check_numbers(np.asarray(numbers), task.split, f"{model.name}'s items")


def note(model: Recommender) -> str:
    """What a table says beside a model's name."""
    if not isinstance(model, GenRec):
        return str(getattr(model, "note", ""))
    config, training = model.ranker.config, model.info.get("training")
    parts = [config.backbone, f"prior {config.prior}"]
    if training is None:
        return ", ".join([*parts, "not trained"])
    parts.append(f"{training['targets']:,} targets in {training['seconds'] / 60:.0f} min")
    return ", ".join(parts)


def _baseline(name: str, task: FitContext, seed: int) -> Recommender:
    if not name.startswith("p5-"):
        return make_baseline(name, seed)
    from genrec.baselines.p5 import P5
    from genrec.baselines.p5_settings import P5Settings

    # The whole log's order is what P5 as published numbers items by; the report names the leak.
    indexing: Any = name.removeprefix("p5-")
    settings = P5Settings(minutes=task.minutes, seed=seed)
    return P5(indexing, task.data.histories, settings)


def _form(name: str, task: FitContext, seed: int) -> GenRec:
    settings = {**FORMS[name], "seed": seed, **task.settings}
    model = GenRec(config=Config.create(**settings))
    model.name = name
    if name == "genrec-zero-shot":
        return model.build(task.fitted)
    folder = task.folder / f"{name}-seed{seed}"
    if (kept := _kept_run(folder, model, task)) is not None:
        kept.name = name
        return kept
    model.fit(task.fitted, task.valid, minutes=task.minutes, output=folder)
    model.save_pretrained(folder)
    return model


def _kept_run(folder: Path, wanted: GenRec, task: FitContext) -> GenRec | None:
    """The run of an earlier comparison, if it is the same: then only evaluation was cut off."""
    if not (folder / "genrec.json").is_file():
        return None
    kept = GenRec.from_pretrained(folder)
    resolved = {key: getattr(kept.config, key) for key in ("prior", "dtype")}
    same = wanted.config.model_copy(update={"minutes": task.minutes, **resolved})
    fitted = kept.info["data"].get("fitted", "train") == task.fitted.provenance.train_on
    return kept if kept.config == same and fitted and _trained_on(kept, task) else None


def _loaded(which: ModelSpec, task: FitContext) -> GenRec:
    assert which.run is not None
    model = GenRec.from_pretrained(which.run)
    if not _trained_on(model, task):
        noted = model.info["data"]
        raise RunError(
            f"{which.run}: was trained on {noted['name']}, split {noted.get('split')}, fingerprint "
            f"{noted['fingerprint'][:16]}; this comparison tests on {task.data.name}, split "
            f"{task.split.info.name}, fingerprint {task.data.fingerprint[:16]}: it may have "
            "seen the answers. Train it on this split."
        )
    model.name = which.name
    return model


def _trained_on(model: GenRec, task: FitContext) -> bool:
    noted = model.info["data"]
    if task.split.info.evaluate_on == "valid" and noted.get("fitted") == "train+valid":
        return False  # it has learnt the validation targets
    same_data = noted["fingerprint"] == task.data.fingerprint
    return bool(same_data and noted.get("split") == task.split.info.name)
