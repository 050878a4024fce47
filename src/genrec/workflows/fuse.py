"""Late fusion of a run: its experts and weights, fitted again without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genrec.data.splits import before_test
from genrec.errors import ConfigError, RunError
from genrec.files import CHECKPOINTS
from genrec.model.genrec import GenRec
from genrec.model.saving import check_folder
from genrec.training.checkpoints import refuse_checkpoints
from genrec.workflows.plan import TRAIN_ON
from genrec.workflows.runs import load_run, run_split


def fuse_run(
    folder: Path, out: Path, *, experts: Sequence[str] | None = None, train_on: str = "train"
) -> GenRec:
    """Fit the experts and weights of a run again, and write it.

    Args:
        folder: run folder.
        out: run folder to write; it may be the same.
        experts: names of the experts; those of the run if ``None``.
        train_on: ``"train"``, or ``"train+valid"`` to refit the experts on everything before the
            test targets once the weights are found.

    Raises:
        RunError: The run cannot be read, its data have changed, its prior knows the validation
            targets already, or ``out`` holds something else.
        ConfigError: The run's prior is not pooled, or a name is unknown.
    """
    if train_on not in TRAIN_ON:
        raise ConfigError(f"train_on is {train_on!r}; give one of {', '.join(TRAIN_ON)}.")
    check_folder(out)
    if out.resolve() != folder.resolve():
        refuse_checkpoints(out / CHECKPOINTS, "a fused run replaces them")
    model, data = load_run(folder)
    if model.info["data"].get("fitted", "train") != "train":
        raise RunError(
            f"{folder}: this run has learned from the validation targets already, so no weights "
            "can be fitted on them; fuse the run that it was made from, or train one."
        )
    split = run_split(model, data)
    model.fuse(split.train, split.valid, experts=experts)
    if train_on == "train+valid":
        model.refit_prior(before_test(split))
    model.save_pretrained(out)
    return model
