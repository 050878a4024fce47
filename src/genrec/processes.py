"""Several processes train one model (torchrun, accelerate launch): who writes, what they share.

Alone, a process is the main one and agrees with itself.
"""

from __future__ import annotations

import os
from typing import TypeVar

import torch.distributed as dist
from accelerate import PartialState

from genrec.errors import ConfigError

T = TypeVar("T")


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0


def process_count() -> int:
    """Processes that train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def init_processes(*, cpu: bool) -> None:
    """Let the processes know of each other, if there are several.

    Raises:
        ConfigError: accelerate was told to shard the model itself.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError(
            "accelerate's own FSDP would shard what GenRec reads whole: launch without it, "
            "and set fsdp=true."
        )
    if process_count() > 1:
        PartialState(cpu=cpu)


def broadcast_from_main(value: T) -> T:
    """The main process's value, in all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def sum_over_processes(value: int) -> int:
    """The sum over all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    values = [0] * process_count()
    dist.all_gather_object(values, value)
    return sum(values)
