"""Histories become windows, windows become batches, and HF Trainer turns those into an adapter."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import get_last_checkpoint

from genrec.backbone import choose_device
from genrec.config import Config
from genrec.errors import ConfigError, DataError, RunError
from genrec.files import LOGS, write_text
from genrec.histories import Histories
from genrec.likelihood import CatalogueLikelihood, Targets, cumulative_mass, locate_targets
from genrec.priors import Prior
from genrec.prompts import Prompts

CHECKPOINT_PREFIX = "checkpoint-"  # HF Trainer's
TRAINABLE = "trainable.safetensors"
IDENTITY = "run.json"
SAVE_SECONDS = 60.0
MAY_CHANGE = {"minutes", "epochs", "save_steps", "report_to"}
"""Settings that a resumed run may change."""
BUDGET = "budget.json"
CALIBRATION = 32
"""Windows whose hidden states standardise the residual's input."""
ENDLESS = 1000.0
"""Epochs when only the wall clock ends training."""


@dataclass(frozen=True)
class Window:
    """Items ``start:stop`` of one training history; those from ``first`` on are targets."""

    row: int
    start: int
    first: int
    stop: int


class Windows(TorchDataset[Window]):
    """What one epoch sees.

    With a template that has nothing between history and target, a history is cut into windows of
    ``length`` targets, counted from its end, each with the one item before them.
    Otherwise each target has a window of its own. ``last`` keeps only that many windows of each
    history, the latest: what users do early differs from what they will do next.
    """

    def __init__(
        self,
        histories: Histories,
        length: int,
        *,
        every_position: bool,
        last: int | None = None,
    ) -> None:
        cut = _cut if every_position else _cut_one_target
        self.windows = [
            window
            for row, items in enumerate(np.diff(histories.offsets).tolist())
            for window in cut(row, items, length)[:last]
        ]
        if not self.windows:
            raise DataError("Nothing to train on: no user has two items before the held-out ones.")

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index]


def _cut(row: int, items: int, length: int) -> list[Window]:
    # One item before the first target, so that every target has a history; only a history's very
    # first item has none, as new users do.
    firsts = [(max(0, stop - length), stop) for stop in range(items, 0, -length)]
    return [Window(row, max(0, first - 1), first, stop) for first, stop in firsts]


def _cut_one_target(row: int, items: int, length: int) -> list[Window]:
    return [Window(row, max(0, stop - 1 - length), stop - 1, stop) for stop in range(items, 1, -1)]


class Collator:
    """Turns windows into padded token batches with the decisions to train."""

    def __init__(
        self,
        model: CatalogueLikelihood,
        prompts: Prompts,
        histories: Histories,
        prior: Prior | None,
        *,
        all_tokens: bool = False,
        seed: int = 0,
    ) -> None:
        self.model, self.prompts, self.histories, self.prior = model, prompts, histories, prior
        self.all_tokens = all_tokens
        self.seed = seed

    def __call__(self, windows: list[Window]) -> dict[str, Any]:
        sequences, rows, starts, items, masses = [], [], [], [], []
        for number, window in enumerate(windows):
            history = self.histories[window.row]
            tokens, window_starts = self._tokens(window)
            count = len(window_starts)  # the oldest targets may not fit into the context
            sequences.append(tokens)
            rows += [number] * count
            starts += window_starts
            items.append(history[window.stop - count : window.stop])
            if self.prior is not None:
                masses.append(
                    self.prior.training_probabilities(history, window.stop - count, window.stop)
                )
        input_ids = _pad(sequences, 0)
        if self.all_tokens:
            labels = _pad([sequence[1:] for sequence in sequences], -100, input_ids.shape[1])
            return {"input_ids": input_ids, "targets": None, "labels": labels}
        target_items = np.concatenate(items)
        sums = cumulative_mass(self.model.trie, np.concatenate(masses)) if masses else None
        targets = locate_targets(
            self.model.trie, target_items, np.array(rows), np.array(starts), sums
        )
        labels = torch.from_numpy(target_items.astype(np.int64))
        return {"input_ids": input_ids, "targets": targets, "labels": labels}

    def _tokens(self, window: Window) -> tuple[list[int], list[int]]:
        """A window's tokens and where each of its target titles starts."""
        titles, history = self.prompts.titles, self.histories[window.row]
        if self.prompts.every_position:
            tokens = self.prompts.encode(history[window.start : window.stop])
            lengths = [len(titles[item]) for item in history[window.first : window.stop]]
            starts = (len(tokens) - np.cumsum(lengths[::-1])[::-1]).tolist()
            return tokens, [start for start in starts if start >= len(self.prompts.prefixes[0])]
        target = titles[history[window.first]]
        # By place, not by turn: a resumed run then draws what an uninterrupted one draws.
        draw = np.random.default_rng((self.seed, window.row, window.stop))
        variant = int(draw.integers(len(self.prompts.prefixes)))
        before = history[window.start : window.first]
        tokens = self.prompts.encode(before, variant=variant, reserve=len(target))
        return [*tokens, *map(int, target)], [len(tokens)]


def _pad(sequences: list[list[int]], value: int, length: int | None = None) -> torch.Tensor:
    length = length or max(map(len, sequences))
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in sequences])


class Budget(TrainerCallback):
    """Ends training after a wall-clock budget, which a resumed run continues to spend."""

    def __init__(self, seconds: float | None, warmup_steps: int) -> None:
        self.seconds, self.warmup_steps = seconds, warmup_steps
        self.total_steps, self.spent = 1, 0.0
        self.started = self.saved = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training so far, earlier runs included."""
        return self.spent + time.monotonic() - self.started

    def progress(self, step: int) -> float:
        """Share of the budget used, by steps or by time, whichever is further; 0 to 1."""
        by_time = self.elapsed() / self.seconds if self.seconds else 0.0
        return min(1.0, max(step / self.total_steps, by_time))

    def learning_rate(self, step: int) -> float:
        """Factor of the peak rate: linear warm-up, then linear decay to zero with the budget."""
        return min(1.0, (step + 1) / (self.warmup_steps + 1)) * (1.0 - self.progress(step))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.total_steps = max(1, state.max_steps)
        self.started = self.saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        now = time.monotonic()
        if self.seconds and self.elapsed() >= self.seconds:
            control.should_training_stop = control.should_save = True
        elif now - self.saved > SAVE_SECONDS:  # steps can be slow: a kill costs a minute at most
            control.should_save, self.saved = True, now


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


class LikelihoodTrainer(Trainer):
    """HF Trainer whose checkpoints hold only what is trained, not the frozen backbone."""

    def __init__(self, *, budget: Budget, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.budget = budget
        self.targets_seen = self.targets_before = 0

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        if self.lr_scheduler is None:
            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.budget.total_steps = max(1, num_training_steps)
            self.lr_scheduler = LambdaLR(chosen, self.budget.learning_rate)
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any) -> torch.Tensor:
        targets: Targets | None = inputs["targets"]
        self.targets_seen += targets.titles if targets is not None else len(inputs["input_ids"])
        return super().training_step(model, inputs, *args)

    def items_per_second(self) -> float:
        """Supervised items per second since this process began to train."""
        seen = self.targets_seen - self.targets_before
        return seen / max(1e-9, time.monotonic() - self.budget.started)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        assert self.model is not None
        save_file(trainable_state(self.model), folder / TRAINABLE)
        spent = {"seconds": self.budget.elapsed(), "targets": self.targets_seen}
        (folder / BUDGET).write_text(json.dumps(spent))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        try:
            module = model or self.model
            assert isinstance(module, torch.nn.Module)
            module.load_state_dict(load_file(folder / TRAINABLE), strict=False)
            spent = json.loads((folder / BUDGET).read_text())
            self.budget.spent = float(spent["seconds"])
            self.targets_seen = self.targets_before = int(spent["targets"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise RunError(
                f"{folder}: cannot resume from this checkpoint ({error}). "
                "Delete it to go on from an earlier one, or start over with --restart."
            ) from None


def trainable_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that training changes, by parameter name."""
    return {
        name: tensor.detach().contiguous()
        for name, tensor in model.named_parameters()
        if tensor.requires_grad
    }


@dataclass(frozen=True)
class TrainingResult:
    """What a training run did: its log (one entry per logged step) and its totals."""

    log: list[dict[str, float]]
    steps: int
    seconds: float
    targets: int


def train(
    model: CatalogueLikelihood,
    prompts: Prompts,
    histories: Histories,
    prior: Prior | None,
    config: Config,
    *,
    checkpoints: Path,
    fingerprint: str,
    progress: bool = True,
) -> TrainingResult:
    """Train the adapter, the residual and the prior's weight on the histories' windows.

    Args:
        checkpoints: folder for checkpoints; training goes on from the last one in it.
        fingerprint: of the training data; checkpoints made from other data are refused.
    """
    _claim(checkpoints, {**config.model_dump(mode="json", exclude=MAY_CHANGE), "data": fingerprint})
    length = config.window if prompts.every_position else config.history_length
    windows = Windows(
        histories,
        length,
        every_position=prompts.every_position,
        last=config.windows_per_user,
    )
    collate = Collator(
        model, prompts, histories, prior, all_tokens=config.loss == "all-tokens", seed=config.seed
    )
    if prior is not None:
        sample = np.random.default_rng(config.seed).permutation(len(windows))[:CALIBRATION]
        batch = collate([windows[int(index)] for index in sample])
        model.calibrate(batch["input_ids"], batch["targets"])
    budget = Budget(config.minutes and config.minutes * 60, config.warmup_steps)
    trainer = LikelihoodTrainer(
        budget=budget,
        model=model,
        args=_arguments(config, checkpoints, len(windows)),
        train_dataset=windows,
        data_collator=collate,
        callbacks=[budget, *_trackers(config, checkpoints.parent / LOGS)],
    )
    trainer.remove_callback(PrinterCallback)
    bar = ProgressBar(budget, trainer.items_per_second)
    if progress:
        trainer.add_callback(bar)
    try:
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(checkpoints))
    finally:
        bar.stop()
    model.eval()
    state = trainer.state
    log = [entry for entry in state.log_history if "loss" in entry]
    return TrainingResult(log, state.global_step, budget.elapsed(), trainer.targets_seen)


def _claim(checkpoints: Path, identity: dict[str, Any]) -> None:
    """Note whose checkpoints these are, or refuse those of a different run."""
    path = checkpoints / IDENTITY
    if path.is_file() and _last_whole_checkpoint(checkpoints):
        noted = json.loads(path.read_text())
        differing = sorted(key for key in identity if noted.get(key) != identity[key])
        if differing:
            raise RunError(
                f"{checkpoints}: a run with other settings ({', '.join(differing)}) was cut off "
                "here. Repeat its settings to go on, or drop its checkpoints with --restart."
            )
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(identity))


def _last_whole_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    while last := cast(str | None, get_last_checkpoint(str(checkpoints))):
        try:  # HF Trainer writes this file last
            json.loads((Path(last) / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(last)
        else:
            return last
    return None


def _trackers(config: Config, logs: Path) -> list[TrainerCallback]:
    """TensorBoard's files belong beside the checkpoints, which go when a run is complete."""
    if "tensorboard" not in config.report_to:
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            'report_to=tensorboard needs the extra "tracking": pip install "genrec[tracking]".'
        ) from None
    return [TensorBoardCallback(SummaryWriter(str(logs)))]


def _arguments(config: Config, folder: Path, windows: int) -> TrainingArguments:
    microbatch = min(config.microbatch_size, config.batch_size, windows)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=max(1, config.batch_size // config.microbatch_size),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        num_train_epochs=config.epochs or (ENDLESS if config.minutes else 1.0),
        logging_steps=1,
        save_steps=config.save_steps,
        save_total_limit=2,
        seed=config.seed,
        data_seed=config.seed,
        report_to=[name for name in config.report_to if name != "tensorboard"] or "none",
        use_cpu=choose_device().type == "cpu",
        fp16=config.dtype == "float16",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        log_level="error",
    )
    if arguments.n_gpu > 1:  # several GPUs are for torchrun; DataParallel cannot split our targets
        arguments._n_gpu = 1
    return arguments
