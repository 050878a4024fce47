"""Warm start: training that begins with the weights of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from peft import PeftModel
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from genrec.assets.known import lasting_name
from genrec.config import Config
from genrec.errors import ConfigError, RunError
from genrec.language_model.backbone import Backbone
from genrec.model.hub import local_folder
from genrec.model.ranker import Ranker
from genrec.model.run_folder import read_head, renamed_settings

SOURCES = "the folder of a trained run or of a published adapter"
"""What weights can be read from, for messages."""
FITTING = (
    "backbone",
    "layers",
    "context_layers",
    "template",
    "history_order",
    "separator",
    "ratings",
    "titles",
    "residual_rank",
    "tuning",
    "trained_layers",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "rslora",
)
"""Settings that weights belong to: their shapes, and the prompts that they were trained on."""


def own_weights(config: Config) -> Path | None:
    """Return the folder with the earlier run's whole backbone, if that was trained.

    Raises:
        RunError: ``config.init_from`` holds no trained weights.
    """
    if config.init_from is None or config.tuning != "full":
        return None
    folder = local_folder(config.init_from) / "backbone"
    if not folder.is_dir():
        raise RunError(
            f"{config.init_from}: the run has no weights of its own in backbone/; name a run that "
            "was trained with tuning=full, or set tuning=lora."
        )
    return folder


def first_lm_weight(config: Config) -> float:
    """Return the weight of the language model before it is fitted: the earlier run's, or 1.

    Raises:
        RunError: ``config.init_from`` holds no settings.
    """
    if config.lm_weight != "auto":
        return config.lm_weight
    earlier = None if config.init_from is None else _settings(local_folder(config.init_from))
    if earlier is None or earlier.lm_weight == "auto":
        return 1.0
    # What was left out of the earlier run shall be heard while it is trained further.
    return earlier.lm_weight or float(config.epochs != 0)


def check_weights(config: Config) -> None:
    """Check that the weights that ``config.init_from`` names, if any, belong to these settings.

    Args:
        config: the resolved settings.

    Raises:
        RunError: The folder is missing or incomplete.
        ConfigError: The weights belong to other settings.
    """
    if config.init_from is None:
        return
    folder = local_folder(config.init_from)
    _check_settings(config, _settings(folder))
    needed = [_adapter(folder)] if config.tuning == "lora" else []
    needed += [folder / "head.safetensors"] if config.prior != "none" else []
    for path in needed:
        if not path.is_file():
            raise RunError(f"{path} is missing; give init_from {SOURCES}.")


def load_weights(ranker: Ranker) -> Ranker:
    """Give a trainable ranker the weights that ``config.init_from`` names, if any.

    Raises:
        RunError: A file is damaged.
    """
    config = ranker.config
    if config.init_from is None:
        return ranker
    folder = local_folder(config.init_from)
    if config.tuning == "lora":
        _load_lora(ranker.backbone, _adapter(folder))
    if ranker.prior is not None:
        read_head(folder, ranker.likelihood)
    return ranker


def _adapter(folder: Path) -> Path:
    """Return the adapter's file, in a run folder or in a folder of its own."""
    inside = folder / "adapter"
    return (inside if inside.is_dir() else folder) / "adapter_model.safetensors"


def _settings(folder: Path) -> Config:
    path = folder / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text())
        if not isinstance(settings, dict):
            raise ValueError("it holds no settings")
        return Config.create(**renamed_settings(settings))
    except (OSError, ValueError, yaml.YAMLError, ConfigError) as error:
        raise RunError(
            f"{path}: no settings can be read ({error}); give init_from {SOURCES}."
        ) from None


def _check_settings(config: Config, earlier: Config) -> None:
    """Refuse weights of other settings, and say how to set them."""
    ours, theirs = (
        each.model_dump(mode="json") | {"backbone": lasting_name(each.backbone)}
        for each in (config, earlier)
    )
    if (earlier.prior == "none") != (config.prior == "none"):
        raise ConfigError(
            f"init_from={config.init_from}: these weights were trained with "
            f"prior={earlier.prior}, which does not go with prior={config.prior}; set "
            f"prior={earlier.prior}."
        )
    names = FITTING if config.tuning == "lora" else FITTING[: FITTING.index("tuning") + 1]
    other = [name for name in names if theirs[name] != ours[name]]
    if other:
        wanted = ", ".join(f"{name}={_as_text(theirs[name])}" for name in other)
        raise ConfigError(
            f"init_from={config.init_from}: these weights were trained with other settings; set "
            f"{wanted}."
        )


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "null" if value is None else str(value)


def _load_lora(backbone: Backbone, path: Path) -> None:
    assert isinstance(backbone.model, PeftModel)
    try:
        left: Any = set_peft_model_state_dict(backbone.model, load_file(path))
        strange = [*left.unexpected_keys, *(key for key in left.missing_keys if "lora_" in key)]
        if strange:
            raise ValueError(f"{strange[0]} does not match")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{path} is no adapter for these settings ({reason}); give init_from {SOURCES}."
        ) from None
