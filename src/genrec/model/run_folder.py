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
from safetensors.torch import load_file, save_file

from genrec._version import __version__
from genrec.collaborative.registry import load_prior, save_prior
from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.errors import RunError
from genrec.files import CHECKPOINTS, LOGS, follow_umask, write_text
from genrec.language_model.adapters import load_adapter
from genrec.language_model.backbone import Backbone, load_backbone, quiet_transformers
from genrec.language_model.devices import isolated_random, runnable_dtype
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.title_index import TitleIndex
from genrec.model.model_card import model_card
from genrec.model.ranker import Ranker
from genrec.processes import is_main

FORMAT = 3
RENAMED_SETTINGS = {"look_steps": "eval_steps", "look_users": "eval_users"}
"""Settings in config.yaml that older runs have under another name."""
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
    return info, {
        RENAMED_SETTINGS.get(str(key), str(key)): value for key, value in settings.items()
    }


def write_run(folder: Path, *, ranker: Ranker, info: dict[str, Any]) -> None:
    """Write a run into an empty folder; ``info`` takes in what ``genrec.json`` adds to it."""
    config, backbone = ranker.config, ranker.backbone
    ranker.catalogue.save(folder / "catalogue.parquet")
    settings = config.model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    ranker.index.save(folder / "index")
    if backbone.adapter_files:
        backbone.save_adapter(folder / "adapter")
    own_weights = config.tuning == "full" and "training" in info
    if own_weights:
        backbone.export(folder / "backbone")
    if ranker.prior is not None:
        save_prior(ranker.prior, folder / "prior.npz")
        save_file(ranker.likelihood.head(), folder / "head.safetensors")
    info |= {
        "format": FORMAT,
        "versions": versions(),
        "backbone": {"name": config.backbone, "sha256": backbone.fingerprint()},
        "adapter": (folder / "adapter").is_dir(),
        "own_weights": own_weights,
    }
    write_text(folder / "README.md", model_card(info, config, ranker.catalogue))
    (folder / "genrec.json").write_text(json.dumps(info, indent=2))


def load_ranker(folder: Path, info: dict[str, Any], config: Config, dtype: str | None) -> Ranker:
    """The ranker of a run folder.

    Args:
        info: what its ``genrec.json`` holds.
        dtype: as in :class:`Config`, or ``None`` for that of training where this machine is not
            slow in it.

    Raises:
        RunError: a part is missing, damaged, or does not fit the others.
    """
    quiet_transformers()
    own = folder / "backbone" if info["own_weights"] else None
    backbone = load_backbone(
        config.backbone,
        dtype=dtype or runnable_dtype(config.dtype),
        layers=None if own else config.layers,
        quantization=config.quantization,
        folder=own,
    )
    if own is None:
        check_backbone(folder, info, backbone)
    if info["adapter"]:
        load_adapter(backbone, folder / "adapter")
    backbone.merge_for_inference()
    prior = None if config.prior == "none" else load_prior(folder / "prior.npz")
    catalogue, index = read_catalogue(folder)
    with isolated_random(config.seed):  # the likelihood's own weights are drawn, then read
        ranker = Ranker.assemble(config, backbone, catalogue, index, prior)
    if prior is not None:
        read_head(folder, ranker.likelihood)
    return ranker


def data_info(train: Dataset) -> dict[str, Any]:
    """What was trained on, so that the run can be evaluated on the same data again."""
    origin = train.provenance
    return {
        "name": train.name,
        "source": origin.folder or train.name,
        "fingerprint": origin.whole or train.fingerprint,
        "split": None if origin.split is None else origin.split.name,
        "fitted": origin.train_on,
        **origin.summary("tie_rule", "tie_share", "counts"),
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
