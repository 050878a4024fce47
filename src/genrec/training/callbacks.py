"""Trainer callbacks: the wall-clock budget, the epoch, a progress bar and trackers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from genrec.config import Config
from genrec.errors import ConfigError
from genrec.processes import REPORT_SECONDS, broadcast_from_main, duration, is_main, progress_log
from genrec.training.order import ByLength

SAVE_SECONDS = 60.0
"""Longest time between checkpoints, in seconds."""


class Budget(TrainerCallback):
    """Ends training after a wall-clock budget; a resumed run continues with what is left of it.

    All processes use the main process's clock, because their learning rates would differ otherwise.
    """

    def __init__(self, seconds: float | None, config: Config) -> None:
        self.seconds, self.config = seconds, config
        self.total_steps, self.started = 1, time.monotonic()
        self.spent = self.clock = self.saved_at = 0.0

    def elapsed(self) -> float:
        """Return the seconds of training so far, including earlier, interrupted runs."""
        return self.spent + time.monotonic() - self.started

    def progress(self, step: int) -> float:
        """Return the share of the budget used, 0 to 1: by steps or by time, whichever is larger."""
        by_time = self.clock / self.seconds if self.seconds else 0.0
        return min(1.0, max(step / self.total_steps, by_time))

    def learning_rate(self, step: int) -> float:
        """Return the factor of the peak learning rate.

        The rate warms up linearly and then follows the schedule to the end of the budget.
        """
        done = self.progress(step)
        factor = {
            "linear": 1.0 - done,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
            "constant": 1.0,
        }[self.config.schedule]
        return min(1.0, (step + 1) / (self.config.warmup_steps + 1)) * factor

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.total_steps = max(1, state.max_steps)
        self.started = time.monotonic()
        self.clock = self.saved_at = self.spent

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.clock = broadcast_from_main(self.elapsed())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        over = self.seconds is not None and self.clock >= self.seconds
        if over:
            control.should_training_stop = control.should_save = True
        elif self.clock - self.saved_at > SAVE_SECONDS:  # an interruption loses a minute at most
            control.should_save, self.saved_at = True, self.clock
        if over or state.global_step >= state.max_steps:  # also evaluate the final weights
            control.should_evaluate = self.config.patience is not None


class Epochs(TrainerCallback):
    """Sets the epoch of the window order, which a data loader omits when it resumes midway."""

    def __init__(self, order: ByLength, steps: int) -> None:
        self.order, self.steps = order, steps

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.order.set_epoch(state.global_step // self.steps)


class ProgressBar(TrainerCallback):
    """Shows loss, targets per second and remaining time.

    On a terminal they are on one line of standard error; now and then they are logged as well.
    """

    def __init__(self, budget: Budget, rate: Callable[[], float], *, drawn: bool) -> None:
        self.budget, self.rate = budget, rate
        columns = TextColumn("[bold]training"), BarColumn(), TextColumn("{task.description}")
        console = Console(stderr=True)
        self.bar = Progress(*columns, TimeElapsedColumn(), console=console)
        self.bar.disable = not (drawn and console.is_terminal)
        self.task = self.bar.add_task("starting", total=1.0)
        self.reported = -REPORT_SECONDS  # the first line gives an estimate soon

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        done = self.budget.progress(state.global_step)
        left = self.budget.elapsed() * (1 - done) / max(done, 1e-6)
        rate = self.rate()
        speed = f"{rate:.{0 if rate >= 10 else 1}f} targets/s"
        text = f"loss {logs['loss']:.3f} · {speed} · {duration(left)} left"
        self.bar.update(self.task, completed=done, description=text)
        if time.monotonic() - self.reported > REPORT_SECONDS:
            self.reported = time.monotonic()
            progress_log.info("training: step %d, %s", state.global_step, text)

    def stop(self) -> None:
        """Stop the bar and release the terminal."""
        self.bar.stop()


def trackers(config: Config, logs: Path) -> list[TrainerCallback]:
    """Return a TensorBoard callback if configured.

    It writes beside the checkpoints, because these are deleted when a run is complete.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    if "tensorboard" not in config.report_to or not is_main():
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "report_to=tensorboard needs the package tensorboard. Install it with: pip install "
            '"genrec[tracking]".'
        ) from None
    return [TensorBoardCallback(SummaryWriter(str(logs)))]
