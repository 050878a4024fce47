"""Training in several processes (torchrun, accelerate launch): roles, values and announcements.

Without a launcher there is one process, which is the main one and exchanges values with itself.
The main process announces the stages of long work to the logger ``genrec``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

from genrec.errors import ConfigError

T = TypeVar("T")


log = logging.getLogger("genrec")
progress_log = logging.getLogger("genrec.progress")
"""Lines that a progress bar replaces on a terminal."""


REPORT_SECONDS = 20.0
"""Time between two lines about the progress of a stage."""
SHORT_SECONDS = 5.0
"""A stage that ends sooner than this needs no line about its progress."""


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
        from accelerate import PartialState

        PartialState(cpu=cpu)


def _group() -> Any:
    """Return torch's module for process groups if several processes are connected, else ``None``.

    It takes seconds to import, and models without a language model do not need it.
    """
    if process_count() < 2:
        return None
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None


def broadcast_from_main(value: T) -> T:
    """Return the main process's value in all processes."""
    if (dist := _group()) is None:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def sum_over_processes(value: int) -> int:
    """Return the sum of a value over all processes."""
    if (dist := _group()) is None:
        return value
    values = [0] * process_count()
    dist.all_gather_object(values, value)
    return sum(values)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Let numpy's and scipy's linear algebra use one thread inside a block.

    After a product, idle threads of OpenBLAS keep their cores busy for a while. The language model,
    which runs next, then loses half of its speed on two cores.
    """
    return cast(AbstractContextManager[Any], _openblas().limit(limits=1))


@cache
def _openblas() -> Any:
    return ThreadpoolController().select(internal_api="openblas")


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Announce a stage of long work, and how long it took.

    Args:
        what: the stage, e.g. ``"fitting the prior"``.
    """
    if not is_main():
        yield
        return
    log.info("%s …", what)
    started = time.monotonic()
    yield
    log.info("%s: done in %s", what, duration(time.monotonic() - started))


def duration(seconds: float) -> str:
    """Format a time in the unit that people would choose: 450 µs, 12.5 ms, 2.6 s, 14 min, 3.2 h."""
    if seconds < 0.9995:
        return f"{1e6 * seconds:.3g} µs" if seconds < 0.0009995 else f"{1e3 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class ProgressLines:
    """Reports now and then how much of a stage is done and how long the rest will take."""

    def __init__(self, what: str) -> None:
        """Prepare the reports.

        Args:
            what: the stage and its unit, e.g. ``"evaluated users"``.
        """
        self.what = what
        self.start = (0.0, 0)  # time and number of the first call of a stage
        self.reported, self.last = 0.0, 0

    def __call__(self, done: int, total: int) -> None:
        """Report ``done`` of ``total``, unless the last report is recent."""
        now = time.monotonic()
        if done <= self.last or not self.last:  # a stage begins; the second call can estimate
            self.start, self.reported = (now, done), now - REPORT_SECONDS
        elif is_main() and done < total and now - self.reported >= REPORT_SECONDS:
            left = (now - self.start[0]) / (done - self.start[1]) * (total - done)
            if left >= SHORT_SECONDS:
                self.reported = now
                rest = duration(left)
                progress_log.info("%s: %d of %d, about %s left", self.what, done, total, rest)
        self.last = done
