"""Training in several processes (torchrun, accelerate launch): roles and exchanged values.

Without a launcher there is one process, which is the main one and exchanges values with itself.
"""

from __future__ import annotations

import os
from typing import TypeVar

import torch.distributed as dist
from accelerate import PartialState

from genrec.errors import ConfigError

T = TypeVar("T")


def is_main() -> bool:
    """Return whether this process is the main one, which writes files and prints."""
    return int(os.environ.get("RANK", 0)) == 0


def process_count() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def init_processes(*, cpu: bool) -> None:
    """Connect the processes with each other, if there are several.

    Args:
        cpu: whether training runs on CPUs.

    Raises:
        ConfigError: accelerate was configured to shard the model itself.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError(
            "accelerate's own FSDP shards weights that GenRec reads in full. Launch without it "
            "and set fsdp=true."
        )
    if process_count() > 1:
        PartialState(cpu=cpu)


def broadcast_from_main(value: T) -> T:
    """Return the main process's value in all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def sum_over_processes(value: int) -> int:
    """Return the sum of a value over all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    values = [0] * process_count()
    dist.all_gather_object(values, value)
    return sum(values)
