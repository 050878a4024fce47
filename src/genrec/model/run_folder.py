"""The run folder on disk: what belongs to it, when it is complete, how it is read and replaced."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from genrec._version import __version__
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.errors import RunError
from genrec.files import CHECKPOINTS, LOGS, follow_umask
from genrec.language_model.backbone import Backbone
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.title_index import TitleIndex
from genrec.processes import is_main

FORMAT = 3
PARTS = (
    "genrec.json",
    "config.yaml",
    "catalogue.parquet",
    "index",
    "prior.npz",
    "head.safetensors",
    "adapter",
    "backbone",
    "metrics.json",
    "report.html",
    "report.md",
    "README.md",
)
"""What a run folder holds; older ones are removed when a run is saved over them."""


def check_folder(folder: Path) -> None:
    """Refuse to write a run over anything that is not one.

    Raises:
        RunError: it is a file, or a folder that holds other things.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; name another folder for the run.")
    ours = any((folder / name).exists() for name in ("genrec.json", CHECKPOINTS, LOGS))
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise RunError(f"{folder} is not empty and no run folder; name another one.")


def replace_run(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder, then put its parts in the place of the older ones.

    ``genrec.json`` is removed first and comes last: without it a run is not complete. Checkpoints
    are dropped at the end. Of several processes only the main one writes.

    Raises:
        RunError: the folder holds other things.
    """
    if not is_main():  # of several processes that trained together
        return
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".saving-*"):  # by a process that was killed
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    try:
        write(work)
        follow_umask(work)
        for name in PARTS:
            _remove(folder / name)
        for name in reversed(PARTS):
            if (work / name).exists():
                os.replace(work / name, folder / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``genrec.json`` and the settings of a complete run.

    Raises:
        RunError: it is missing, cut off, damaged or of another format.
    """
    if not (folder / "genrec.json").is_file():
        if (folder / CHECKPOINTS).is_dir():
            raise RunError(f"{folder}: training was cut off; run the same `genrec train` to go on.")
        raise RunError(
            f"{folder}: not a run folder (no genrec.json); make one with `genrec train`."
        )
    try:
        info = json.loads((folder / "genrec.json").read_text())
        settings = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{folder}: damaged run folder ({error}); train it again.") from None
    if not (isinstance(info, dict) and isinstance(settings, dict) and "adapter" in info):
        raise RunError(
            f"{folder}: damaged run folder (genrec.json or config.yaml); train it again."
        )
    if info.get("format") != FORMAT:
        raise RunError(
            f"{folder}: run format {info.get('format')}, but {FORMAT} is needed; train it again."
        )
    return info, settings


def data_info(train: Dataset) -> dict[str, Any]:
    """What was trained on, so that the run can be evaluated on the same data again."""
    split = train.info.get("split")
    split = split if isinstance(split, dict) else {}
    noted = ("tie_rule", "tie_share", "counts")
    return {
        "name": train.name,
        "source": train.info.get("folder", train.name),
        "fingerprint": train.info.get("of", train.fingerprint),
        "split": split.get("split"),
        "fitted": train.info.get("fitted", "train"),
        **{name: train.info[name] for name in noted if name in train.info},
    }


def versions() -> dict[str, str]:
    """Of what a run is made with."""
    import peft
    import transformers

    return {
        "genrec": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "numpy": np.__version__,
    }


def check_backbone(folder: Path, info: dict[str, Any], backbone: Backbone) -> None:
    """Refuse a backbone that is not the one a run was trained on.

    Raises:
        RunError: its weights differ.
    """
    noted, found = info.get("backbone", {}).get("sha256"), backbone.fingerprint()
    if noted and found and noted != found:
        raise RunError(
            f"{folder}: was trained on other weights of {backbone.name!r} than those found now; "
            "restore them, or train again."
        )


def read_catalogue(folder: Path) -> tuple[Catalogue, TitleIndex]:
    """The catalogue of a run and its titles as the model reads them.

    Raises:
        RunError: one of them is damaged, or they do not fit each other.
    """
    catalogue = Catalogue.load(folder / "catalogue.parquet")
    index = TitleIndex.load(folder / "index")
    if len(index.texts) != len(catalogue):
        raise RunError(f"{folder}: catalogue.parquet and index differ; train the run again.")
    return catalogue, index


def read_head(folder: Path, likelihood: CatalogueLikelihood) -> None:
    """Load what stands beside backbone and adapter.

    Raises:
        RunError: it is missing, damaged or of another form.
    """
    path, needed = folder / "head.safetensors", set(likelihood.head())
    try:
        tensors = load_file(path)
        if set(tensors) != needed:
            raise ValueError(f"it holds {sorted(tensors)}, not {sorted(needed)}")
        likelihood.load_state_dict(tensors, strict=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{path}: {error}; train the run again.") from None


@contextmanager
def checkpoint_folder(output: str | Path | None) -> Iterator[Path]:
    """Where training keeps its checkpoints: in the run folder, or else nowhere for long."""
    if output is not None:
        yield Path(output) / CHECKPOINTS
        return
    with tempfile.TemporaryDirectory(prefix="genrec-") as folder:
        yield Path(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
