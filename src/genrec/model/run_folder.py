"""The run folder on disk: its files, and how it is written, replaced and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genrec._version import __version__
from genrec.assets.known import lasting_name
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.registry import load_prior, save_prior
from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.statistics import repeat_share
from genrec.errors import RunError
from genrec.files import CHECKPOINTS, write_text
from genrec.language_model.adapters import load_adapter
from genrec.language_model.backbone import Backbone, load_backbone, quiet_transformers
from genrec.language_model.devices import isolated_random, runnable_dtype
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.title_index import TitleIndex
from genrec.model.model_card import model_card
from genrec.model.ranker import Ranker
from genrec.model.reading import make_states
from genrec.model.saving import SHIPPED_PRIOR, STATES, interrupted_save

FORMAT = 3
"""Version of the run folder's layout."""
RENAMED_SETTINGS = {"look_steps": "eval_steps", "look_users": "eval_users"}
"""Former names of settings in the config.yaml of older runs, with their present names."""


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the facts and the settings of a complete run.

    Returns:
        The content of ``genrec.json``, and the settings in ``config.yaml``.

    Raises:
        RunError: The run is missing, incomplete, damaged or of another format version.
    """
    if not (folder / "genrec.json").is_file():
        if left := interrupted_save(folder):
            raise RunError(
                f"{folder}: saving a run was interrupted, unless a process is saving it now. The "
                f"run that was there before is in {left}: move its files back, or save a run to "
                "this folder again."
            )
        if (folder / CHECKPOINTS).is_dir():
            raise RunError(
                f"{folder}: training was interrupted; run the same `genrec train` command again to "
                "resume it."
            )
        raise RunError(
            f"{folder}: not a run folder (no genrec.json); make one with `genrec train`."
        )
    try:
        info = json.loads((folder / "genrec.json").read_text())
        settings = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{folder}: damaged run folder ({error}); train the run again.") from None
    if not (isinstance(info, dict) and isinstance(settings, dict) and "adapter" in info):
        raise RunError(
            f"{folder}: damaged run folder (invalid genrec.json or config.yaml); train the run "
            "again."
        )
    if info.get("format") != FORMAT:
        raise RunError(
            f"{folder}: the folder has run format {info.get('format')}, but this version of GenRec "
            f"reads format {FORMAT}; train the run again."
        )
    return info, renamed_settings(settings)


def renamed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, perhaps an older one, under their present names."""
    # Runs from before context layers read all tokens in all layers.
    return {"context_layers": None} | {
        RENAMED_SETTINGS.get(str(key), str(key)): value for key, value in settings.items()
    }


def write_run(folder: Path, *, ranker: Ranker, info: dict[str, Any]) -> None:
    """Write a run into an empty folder.

    Args:
        folder: an empty folder.
        ranker: the fitted ranker.
        info: facts about the run; it is updated with everything that ``genrec.json`` adds.
    """
    config, backbone = ranker.config, ranker.backbone
    ranker.catalogue.save(folder / "catalogue.parquet")
    settings = config.model_dump(mode="json") | {"backbone": lasting_name(config.backbone)}
    if config.init_from is not None:  # a start that another training shall not have by accident
        settings |= {"init_from": None, "epochs": config.epochs or None}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    ranker.index.save(folder / "index")
    if ranker.states is not None and ranker.states.known.all():
        ranker.states.save(folder / STATES)
    if backbone.adapter_files:
        backbone.save_adapter(folder / "adapter")
    own_weights = config.tuning == "full" and "training" in info
    if own_weights:
        backbone.export(folder / "backbone")
    if ranker.prior is not None:
        save_prior(ranker.prior, folder / "prior")
        save_file(ranker.likelihood.head(), folder / "head.safetensors")
        info["prior"] = _prior_facts(ranker)
    info |= {
        "format": FORMAT,
        "versions": versions(),
        "backbone": {"name": settings["backbone"], "sha256": backbone.fingerprint()},
        "adapter": (folder / "adapter").is_dir(),
        "own_weights": own_weights,
    }
    write_text(folder / "README.md", model_card(info, config, ranker.catalogue))
    (folder / "genrec.json").write_text(json.dumps(info, indent=2))


def _prior_facts(ranker: Ranker) -> dict[str, Any]:
    """Return what ``genrec.json`` records of a prior: its parts and their weights."""
    weight = ranker.likelihood.prior_weight
    facts: dict[str, Any] = {
        "kind": ranker.config.prior,
        "prior_weight": None if weight is None else round(float(weight.detach()), 4),
        "lm_weight": round(ranker.likelihood.lm_weight, 4),
    }
    if isinstance(ranker.prior, PooledPrior):
        facts |= ranker.prior.facts()
    return facts


def load_ranker(folder: Path, info: dict[str, Any], config: Config, dtype: str | None) -> Ranker:
    """Load the ranker of a run folder.

    Args:
        folder: run folder.
        info: content of its ``genrec.json``.
        config: the run's settings.
        dtype: number format of the weights, as in :class:`Config`; if ``None``, that of training,
            or a faster one if this machine is slow with it.

    Raises:
        RunError: A part is missing, damaged, or does not fit the others.
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
    prior = None if config.prior == "none" else load_prior(_prior_path(folder))
    catalogue, index = read_catalogue(folder)
    states = make_states(config, backbone, index)
    if states is not None and (folder / STATES).is_file():
        states.load(folder / STATES)
    with isolated_random(config.seed):  # the likelihood draws its weights before they are loaded
        ranker = Ranker.assemble(config, backbone, catalogue, index, prior, states)
    if prior is not None:
        read_head(folder, ranker.likelihood)
    return ranker


def _prior_path(folder: Path) -> Path:
    shipped = folder / SHIPPED_PRIOR
    return shipped if shipped.is_file() else folder / "prior"


def data_info(train: Dataset) -> dict[str, Any]:
    """Return a reference to the training data, with which the run can be evaluated later."""
    origin = train.provenance
    return {
        "name": train.name,
        "source": origin.folder or train.name,
        "fingerprint": origin.whole or train.fingerprint,
        "split": None if origin.split is None else origin.split.name,
        "fitted": origin.train_on,
        "repeat_share": repeat_share(train.histories),
        # Of the tables of a folder, which may be made anew under the same name.
        "split_fingerprint": None if origin.split is None else origin.split.fingerprint,
        **origin.summary("tie_rule", "tie_share", "counts"),
    }


def versions() -> dict[str, str]:
    """Return the versions of GenRec and of the libraries that a run depends on."""
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
    """Check that the backbone has the weights that a run was trained with.

    Raises:
        RunError: The weights differ.
    """
    noted, found = info.get("backbone", {}).get("sha256"), backbone.fingerprint()
    if noted and found and noted != found:
        raise RunError(
            f"{folder}: the run was trained with other weights of {backbone.name!r} than those "
            "found now; restore these weights, or train the run again."
        )


def read_catalogue(folder: Path) -> tuple[Catalogue, TitleIndex]:
    """Read the catalogue and the title index of a run.

    Raises:
        RunError: A file is damaged, or the two differ in the number of items.
    """
    catalogue = Catalogue.load(folder / "catalogue.parquet")
    index = TitleIndex.load(folder / "index")
    if len(index.texts) != len(catalogue):
        raise RunError(
            f"{folder}: catalogue.parquet has {len(catalogue)} items, but index has "
            f"{len(index.texts)}; train the run again."
        )
    return catalogue, index


def read_head(folder: Path, likelihood: CatalogueLikelihood) -> None:
    """Load the trained weights of the likelihood, which are not part of backbone or adapter.

    Raises:
        RunError: The file is missing, damaged, or holds other tensors.
    """
    path, needed = folder / "head.safetensors", set(likelihood.head())
    try:
        tensors = load_file(path)
        if set(tensors) != needed:
            raise ValueError(f"the file holds {sorted(tensors)}, not {sorted(needed)}")
        likelihood.load_state_dict(tensors, strict=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{path}: {error}; train the run again.") from None
