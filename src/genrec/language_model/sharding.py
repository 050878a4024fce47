"""Frozen layers shared out among processes (FSDP)."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from genrec.errors import ConfigError
from genrec.processes import process_count


def shard(model: nn.Module, layers: nn.ModuleList, device: torch.device) -> None:
    """Share out the weights of a model's decoder layers among the processes (FSDP).

    A pass gathers one layer at a time. Embeddings and what LoRA adds stay whole in each process, so
    that likelihood and checkpoints need not know. The layers move to the device one by one:
    load the backbone on the CPU, and no device has to hold it whole.

    Raises:
        ConfigError: there is only one process.
    """
    if process_count() == 1:
        raise ConfigError("fsdp=true needs several processes: start it with torchrun.")
    mesh = init_device_mesh(device.type, (process_count(),))
    for block in layers:
        sharded = fully_shard(block, mesh=mesh, reshard_after_forward=True)
        # Gathered once before the first inference pass, whose tensors training could not reuse.
        sharded.unshard()
        sharded.reshard()
    model.to(device)


def sharded_names(module: nn.Module) -> list[str]:
    """Names of the parameters of which each process holds a share."""
    return [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]
