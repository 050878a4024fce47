"""The trainable part of the backbone: a LoRA adapter, or the layers themselves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from genrec.config import Config
from genrec.errors import BackboneError, RunError
from genrec.language_model.backbone import Backbone
from genrec.language_model.packed import pack_linear


def make_trainable(backbone: Backbone, config: Config) -> None:
    """Prepare the last ``config.trained_layers`` of the layers that see the history for training.

    With ``tuning="full"`` the layers themselves become trainable. Otherwise they get a new LoRA
    adapter, which is zero-initialised, so that outputs do not change yet.
    """
    total = len(backbone.blocks)
    # Title states are computed before training, so the layers below must stay as they are.
    limits = (config.trained_layers, config.context_layers)
    first = total - min([total, *(limit for limit in limits if isinstance(limit, int))])
    if config.tuning == "full":
        _unfreeze(backbone, first)
    else:
        _add_lora(backbone, config, first)
    if config.gradient_checkpointing:
        _recompute_activations(backbone.causal_lm)
    # No gradient reaches the layers below the first trained one, so they can be packed.
    for layer in () if backbone.sharded else backbone.blocks[:first]:
        pack_linear(layer)


def _recompute_activations(model: Any) -> None:
    """Switch on what transformers calls activation checkpointing from 5.23 on."""
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def _unfreeze(backbone: Backbone, first: int) -> None:
    if not first:
        backbone.causal_lm.requires_grad_(True)
        return
    for _, module in backbone.final_norms:
        module.requires_grad_(True)
    for layer in backbone.blocks[first:]:
        layer.requires_grad_(True)


def _add_lora(backbone: Backbone, config: Config, first: int) -> None:
    targets = config.lora_targets
    if targets == "all-linear" and first:
        targets = _linear_names(backbone.causal_lm)  # PEFT selects layers by module names only
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=list(range(first, len(backbone.blocks))) if first else None,
        use_rslora=config.rslora,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():  # PEFT uses a deprecated name of transformers
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT sets it for Conv1D
            backbone.model = get_peft_model(backbone.causal_lm, settings)
    except ValueError as error:
        raise BackboneError(
            f"LoRA does not fit backbone {backbone.name!r}: {error}. Change lora_targets."
        ) from None
    for module in backbone.model.modules():
        if isinstance(module, LoraLayer):  # autocast casts; PEFT's cast to float32 would cost time
            module.cast_input_dtype_enabled = False


def load_adapter(backbone: Backbone, folder: Path) -> None:
    """Load an adapter that :meth:`Backbone.save_adapter` wrote.

    Raises:
        RunError: the adapter is missing or belongs to another backbone.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing. Train the run again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            backbone.model = PeftModel.from_pretrained(backbone.causal_lm, str(folder))
    except (RuntimeError, ValueError, OSError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{folder} is not an adapter of {backbone.name!r} ({reason}). Train the run again."
        ) from None


def _linear_names(model: PreTrainedModel) -> tuple[str, ...]:
    modules = model.get_decoder().named_modules()
    linear = (nn.Linear, Conv1D)
    return tuple(sorted({name.split(".")[-1] for name, m in modules if isinstance(m, linear)}))
