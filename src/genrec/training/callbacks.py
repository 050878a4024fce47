"""What happens beside a training step: the wall-clock budget, the epoch, a progress bar."""

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
from genrec.processes import broadcast_from_main, is_main
from genrec.training.order import ByLength

SAVE_SECONDS = 60.0


class Budget(TrainerCallback):
    """Ends training after a wall-clock budget, which a resumed run continues to spend.

    All processes go by the clock of the main one, or their learning rates would differ.
    """

    def __init__(self, seconds: float | None, config: Config) -> None:
        self.seconds, self.config = seconds, config
        self.total_steps, self.started = 1, time.monotonic()
        self.spent = self.clock = self.saved_at = 0.0

    def elapsed(self) -> float:
        """Seconds of training so far, earlier runs included."""
        return self.spent + time.monotonic() - self.started

    def progress(self, step: int) -> float:
        """Share of the budget used, by steps or by time, whichever is further; 0 to 1."""
        by_time = self.clock / self.seconds if self.seconds else 0.0
        return min(1.0, max(step / self.total_steps, by_time))

    def learning_rate(self, step: int) -> float:
        """Factor of the peak rate: linear warm-up, then the schedule down to the budget's end."""
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
        elif self.clock - self.saved_at > SAVE_SECONDS:  # a kill costs a minute at most
            control.should_save, self.saved_at = True, self.clock
        if over or state.global_step >= state.max_steps:  # the end is evaluated, too
            control.should_evaluate = self.config.patience is not None


class Epochs(TrainerCallback):
    """Tells the order which epoch it is; a data loader that skips a cut-off part does not."""

    def __init__(self, order: ByLength, steps: int) -> None:
        self.order, self.steps = order, steps

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.order.set_epoch(state.global_step // self.steps)


class ProgressBar(TrainerCallback):
    """Loss, targets per second and time left, on one line of standard error."""

    def __init__(self, budget: Budget, rate: Callable[[], float]) -> None:
        self.budget, self.rate = budget, rate
        columns = TextColumn("[bold]training"), BarColumn(), TextColumn("{task.description}")
        self.bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self.task = self.bar.add_task("starting", total=1.0)

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
        text = f"loss {logs['loss']:.3f} · {self.rate():.0f} items/s · {left / 60:.1f} min left"
        self.bar.update(self.task, completed=done, description=text)

    def stop(self) -> None:
        """Give the terminal back."""
        self.bar.stop()


def trackers(config: Config, logs: Path) -> list[TrainerCallback]:
    """TensorBoard's files belong beside the checkpoints, which go when a run is complete."""
    if "tensorboard" not in config.report_to or not is_main():
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            'report_to=tensorboard needs the extra "tracking": pip install "genrec[tracking]".'
        ) from None
    return [TensorBoardCallback(SummaryWriter(str(logs)))]
