"""Training with the Trainer of transformers and a wall-clock budget, in one or more processes."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

from genrec.collaborative.prior import Prior
from genrec.config import Config
from genrec.data.histories import Histories
from genrec.errors import ConfigError, RunError
from genrec.files import LOGS
from genrec.language_model.devices import choose_device
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.sharding import sharded_names
from genrec.processes import broadcast_from_main, is_main, process_count, stage, sum_over_processes
from genrec.training.batches import Collator
from genrec.training.callbacks import Budget, Epochs, ProgressBar, trackers
from genrec.training.checkpoints import claim, last_whole_checkpoint
from genrec.training.order import training_order
from genrec.training.windows import Windows, training_windows

CHECKPOINT_PREFIX = "checkpoint-"
"""Prefix of checkpoint folders, as HF Trainer names them."""


TRAINABLE = "trainable.safetensors"
"""File of a checkpoint with the trained weights."""


METRIC = "NDCG@10"
"""Metric for early stopping."""


MAY_CHANGE = {"minutes", "epochs", "report_to"}
"""Settings that may change when a run is resumed."""


BUDGET = "budget.json"
"""File of a checkpoint with the time and targets used so far."""


CALIBRATION = 32
"""Number of windows whose hidden states standardise the residual's input."""


LOADERS = 4
"""Number of processes that collate batches for a GPU, which would otherwise wait for one."""


ENDLESS = 1000.0
"""Number of epochs if only the wall-clock budget ends training."""


class LikelihoodTrainer(Trainer):
    """HF Trainer whose checkpoints hold only the trained weights, not the frozen backbone.

    Args:
        budget: the wall-clock budget.
        order: the order of the windows in each epoch.
        evaluate: computes metrics on the validation users, for early stopping.
        arguments: arguments of the transformers Trainer.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        order: Sampler[int],
        evaluate: Callable[[], dict[str, float]] | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.budget, self.order, self.evaluate_users = budget, order, evaluate
        self.targets_seen = self.targets_before = 0
        self.targets_open = 0  # targets of the current step in this process

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        if self.lr_scheduler is None:
            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.budget.total_steps = max(1, num_training_steps)
            self.lr_scheduler = LambdaLR(chosen, self.budget.learning_rate)
        return self.lr_scheduler

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        self.targets_open += inputs.pop("titles")
        if self.accelerator.sync_gradients:
            self.targets_seen += sum_over_processes(self.targets_open)
            self.targets_open = 0
        return super().training_step(model, inputs, num_items_in_batch)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate on the validation users in the main process and send the result to the others.

        If the backbone is sharded, all processes must run it.
        """
        assert self.evaluate_users is not None
        measures = is_main() or self._likelihood.backbone.sharded
        found = broadcast_from_main(self.evaluate_users() if measures else {})
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def items_per_second(self) -> float:
        """Return supervised items per second since this process started to train."""
        seen = self.targets_seen - self.targets_before
        return seen / max(1e-9, time.monotonic() - self.budget.started)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._likelihood.trained(), folder / TRAINABLE)
        spent = {"seconds": self.budget.elapsed(), "targets": self.targets_seen}
        (folder / BUDGET).write_text(json.dumps(spent))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        try:
            self._load_trainable(folder)
            spent = json.loads((folder / BUDGET).read_text())
            self.budget.spent = float(spent["seconds"])
            self.targets_seen = self.targets_before = int(spent["targets"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise RunError(
                f"Training cannot resume from {folder} ({error}). Delete this checkpoint to "
                "resume from an earlier one, or its folder to start over."
            ) from None

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_trainable(Path(self.state.best_model_checkpoint))

    def _load_trainable(self, folder: Path) -> None:
        self._likelihood.load_state_dict(load_file(folder / TRAINABLE), strict=False)

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The weights in training."""
        return [each for each in self._likelihood.parameters() if each.requires_grad]

    @property
    def _likelihood(self) -> CatalogueLikelihood:
        return cast(CatalogueLikelihood, self.model)


@dataclass(frozen=True)
class TrainingResult:
    """Summary of a training run.

    Attributes:
        log: one entry per optimiser step, with its loss.
        evaluations: one entry per evaluation step on the validation users.
        best_step: step whose weights were kept, with early stopping; else ``None``.
        steps: number of optimiser steps.
        seconds: training time, including earlier, interrupted runs.
        targets: number of supervised items.
        processes: number of processes.
        parameters: number of trained weights.
    """

    log: Sequence[dict[str, float]] = ()
    evaluations: Sequence[dict[str, float]] = ()
    best_step: int | None = None
    steps: int = 0
    seconds: float = 0.0
    targets: int = 0
    processes: int = 1
    parameters: int = 0


def train(
    model: CatalogueLikelihood,
    histories: Histories,
    prior: Prior | None,
    config: Config,
    *,
    checkpoints: Path,
    fingerprint: str,
    evaluate: Callable[[], dict[str, float]] | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train the adapter, the residual and the prior's weight on the histories' windows.

    With several processes (torchrun), each takes its share of every batch, and only the main one
    writes files.

    Args:
        checkpoints: folder for checkpoints; training resumes from the last one in it.
        fingerprint: fingerprint of the training data; checkpoints of other data are refused.
        evaluate: computes metrics on the validation users, including :data:`METRIC`; required if
            ``config.patience`` is set.
        progress: show a progress bar.

    Raises:
        ConfigError: the batch size is not a multiple of the processes, or a tracker is missing.
        RunError: the checkpoints belong to another run or cannot be read.
    """
    windows = training_windows(histories, model.layout.prompts, config)
    collate = Collator(model.layout, histories, prior, loss=config.loss, seed=config.seed)
    if prior is not None and config.init_from is None:
        with stage("setting the scale of the correction of the prior"):
            _calibrate(model, windows, collate, config.seed)
    arguments = _arguments(config, checkpoints, len(windows))
    identity = {**config.model_dump(mode="json", exclude=MAY_CHANGE), "data": fingerprint}
    arguments.output_dir = claim(checkpoints, identity)
    trainer = _trainer(model, windows, collate, config, arguments, evaluate)
    for tracker in trackers(config, checkpoints.parent / LOGS):
        trainer.add_callback(tracker)
    bar = ProgressBar(trainer.budget, trainer.items_per_second, drawn=progress)
    if is_main():
        trainer.add_callback(bar)
    try:
        with stage(f"training {_extent(config, len(windows))}"):
            trainer.train(resume_from_checkpoint=last_whole_checkpoint(Path(arguments.output_dir)))
    finally:
        bar.stop()
    model.eval()
    return _result(trainer)


def _extent(config: Config, windows: int) -> str:
    """Return how long training may take at most."""
    epochs = f"{config.epochs or 1:g} epochs of {windows:,} windows"
    if not config.minutes:
        return f"for {epochs}"
    most = f"for at most {config.minutes:g} minutes, evaluation steps included"
    return f"{most}, or {epochs}" if config.epochs else most


def _calibrate(model: CatalogueLikelihood, windows: Windows, collate: Collator, seed: int) -> None:
    """Standardise the residual's input on some windows."""
    sample = np.random.default_rng(seed).permutation(len(windows))[:CALIBRATION]
    batch = collate([windows[int(index)] for index in sample])
    model.calibrate(batch["sequences"], batch["targets"])


def _trainer(
    model: CatalogueLikelihood,
    windows: Windows,
    collate: Collator,
    config: Config,
    arguments: TrainingArguments,
    evaluate: Callable[[], dict[str, float]] | None,
) -> LikelihoodTrainer:
    microbatch = arguments.per_device_train_batch_size
    step = microbatch * arguments.gradient_accumulation_steps * process_count()
    # FSDP handles the sharded weights; DDP sums the gradients of weights that are whole everywhere.
    leave_out = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    leave_out(model, sharded_names(model))  # type: ignore[no-untyped-call]
    order = training_order(windows, model.layout, microbatch, step, config.seed)
    budget = Budget(config.minutes and config.minutes * 60, config)
    try:
        trainer = LikelihoodTrainer(
            budget=budget,
            order=order,
            evaluate=evaluate,
            model=model,
            args=arguments,
            train_dataset=windows,
            eval_dataset=windows,  # HF Trainer requires one; LikelihoodTrainer.evaluate ignores it
            data_collator=collate,
            callbacks=[budget, Epochs(order, len(order) // step)],
        )
    except (RuntimeError, ImportError) as error:  # a tracker that is not installed
        if not config.report_to:
            raise
        raise ConfigError(
            f"report_to={','.join(config.report_to)} cannot be set up ({error}). Install "
            "the tracker's package or remove it from report_to."
        ) from None
    trainer.remove_callback(PrinterCallback)
    if config.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(config.patience))
    return trainer


def _result(trainer: LikelihoodTrainer) -> TrainingResult:
    state = trainer.state
    return TrainingResult(
        log=[entry for entry in state.log_history if "loss" in entry],
        evaluations=[entry for entry in state.log_history if f"eval_{METRIC}" in entry],
        best_step=state.best_global_step,
        steps=state.global_step,
        seconds=trainer.budget.elapsed(),
        targets=trainer.targets_seen,
        processes=process_count(),
        parameters=sum(each.numel() for each in trainer.trained),
    )


def _arguments(config: Config, folder: Path, windows: int) -> TrainingArguments:
    if config.batch_size % process_count():
        raise ConfigError(
            f"batch_size={config.batch_size} cannot be divided among {process_count()} processes. "
            f"Set it to a multiple of {process_count()}."
        )
    batch = min(config.batch_size, windows)
    assert config.microbatch_size != "auto"  # resolved with the backbone
    microbatch = max(1, min(config.microbatch_size, batch // process_count()))
    evaluation: dict[str, Any] = {}
    if config.patience is not None:
        evaluation = {
            "eval_strategy": "steps",
            "eval_steps": config.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": METRIC,
            "greater_is_better": True,
            "restore_callback_states_from_checkpoint": True,  # restores the patience counter
        }
    device = choose_device().type
    # Without fork each loader would get a copy of the model.
    forks = multiprocessing.get_start_method() == "fork"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=max(1, batch // (microbatch * process_count())),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        num_train_epochs=config.epochs or (ENDLESS if config.minutes else 1.0),
        logging_steps=1,
        save_steps=config.eval_steps if evaluation else config.save_steps,
        save_total_limit=2,
        seed=config.seed,
        data_seed=config.seed,
        report_to=[name for name in config.report_to if name != "tensorboard"] or "none",
        use_cpu=device == "cpu",
        fp16=config.dtype == "float16",
        dataloader_num_workers=LOADERS if device == "cuda" and forks else 0,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        **evaluation,
    )
    if arguments.n_gpu > 1:  # DataParallel cannot split Targets; several GPUs need torchrun
        arguments._n_gpu = 1
    return arguments
