"""Frozen layers sharded over processes with FSDP."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from genrec.errors import ConfigError
from genrec.processes import process_count


def shard(model: nn.Module, layers: nn.ModuleList, device: torch.device) -> None:
    """Shard the weights of a model's decoder layers over the processes (FSDP).

    A forward pass gathers one layer at a time. Embeddings and LoRA weights stay whole in each
    process, so that likelihood and checkpoints are unaffected. The layers move to the device one by
    one: load the backbone on the CPU, and no device ever holds all of it.

    Args:
        model: the whole model.
        layers: its decoder layers.
        device: this process's device.

    Raises:
        ConfigError: there is only one process.
    """
    if process_count() == 1:
        raise ConfigError("fsdp=true needs several processes. Start training with torchrun.")
    mesh = init_device_mesh(device.type, (process_count(),))
    for block in layers:
        sharded = fully_shard(block, mesh=mesh, reshard_after_forward=True)
        # The first gather must not happen in an inference pass: training cannot reuse its tensors.
        sharded.unshard()
        sharded.reshard()
    model.to(device)


def sharded_names(module: nn.Module) -> list[str]:
    """Return the names of the parameters of which each process holds a shard."""
    return [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]
