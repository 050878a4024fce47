"""Compare training settings at an equal budget of targets.

    python studies/training_settings.py --targets 12000 --seed 0 --set lora_rank=4 >> found.jsonl
    python studies/training_settings.py --table found.jsonl

The last ten items of each training history, the late items, are held out of the fit of prior and
model. Test and validation items are not used. One run prints one JSON object with two metrics for
each late item: the negative log-likelihood in nats (exact, over the trie), and NDCG@10 over the
whole catalogue. For NDCG@10 the language model scores the children of the trie's root, and the
prior (with prior=none: popularity) scores the items below each child. The table gives paired
differences to the run with the default settings.

Only the last layers are trained, so the outputs of the frozen layers below them are computed once
per window and stored in a folder. Losses and updates are those of ``genrec train``, without its
Trainer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from genrec import Dataset, leave_last_out, load_dataset
from genrec.cli.options import parse_assignments
from genrec.collaborative.popularity import PopularityPrior
from genrec.collaborative.prior import Prior
from genrec.config import Config
from genrec.data.histories import Histories
from genrec.language_model.adapters import make_trainable
from genrec.language_model.backbone import Backbone, load_backbone
from genrec.language_model.decisions import Choices, Targets
from genrec.language_model.likelihood import CatalogueLikelihood, title_log_probs
from genrec.language_model.packed import pack_linear
from genrec.language_model.trie import ROOT, Trie
from genrec.metrics import ndcg
from genrec.model.fitting import untrained_ranker
from genrec.model.ranker import Ranker
from genrec.training.batches import Collator
from genrec.training.order import ByLength
from genrec.training.windows import Window, training_windows

LM_WEIGHTS = (0.25, 0.5, 1.0)
Values = npt.NDArray[np.float64]


class Recall(nn.Module):
    """A module that replaces the frozen layers and returns their stored outputs.

    Attributes:
        states: outputs of the frozen layers for the current batch, [windows, tokens, hidden].
    """

    states: torch.Tensor

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.states


class FrozenLayers:
    """Outputs of the first layers of a backbone for single windows, cached in files."""

    def __init__(self, ranker: Ranker, count: int, folder: Path) -> None:
        config = ranker.config
        form = f"{config.titles}-{config.title_tokens}"
        self.folder = folder / f"{config.backbone}-{config.dtype}-{form}-{count}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.backbone = load_backbone(config.backbone, dtype=config.dtype, layers=count)
        self.backbone.causal_lm.get_decoder().norm = nn.Identity()
        pack_linear(self.backbone.causal_lm.get_decoder())

    def __call__(self, name: str, tokens: list[int]) -> torch.Tensor:
        """Return the hidden states of one sequence, [tokens, hidden].

        Args:
            name: name of the cache file.
            tokens: the sequence.
        """
        path = self.folder / f"{name}.pt"
        if not path.exists():
            torch.save(self._compute(tokens), path)
        return torch.load(path)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _compute(self, tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self.backbone.device)
        return self.backbone.hidden(ids, use_cache=False)[0].clone()


class Weighted(nn.Module):
    """Learned factors in addition to the residual, selected by ``--weights``.

    Args:
        likelihood: the likelihood whose child logits are scaled.
        kind: ``"fast"`` is one factor of the prior for all decisions. ``"by-place"`` has one factor
            of the prior at the root and one inside titles. ``"temperature"`` has the same two
            places, but the factors scale prior and language model together.
    """

    def __init__(self, likelihood: CatalogueLikelihood, kind: str) -> None:
        super().__init__()
        self.kind, self.plain, self.place = kind, likelihood.child_logits, likelihood.is_inner
        self.logs = nn.Parameter(torch.zeros(1 if kind == "fast" else 2))

    def forward(
        self, hidden: torch.Tensor, chosen: Choices, prior: npt.NDArray[np.float32] | None
    ) -> torch.Tensor:
        """Compute child logits; replaces :meth:`CatalogueLikelihood.child_logits`."""
        logits = self.plain(hidden, chosen, prior)
        place = self.place(chosen)[torch.from_numpy(chosen.decision)] % len(self.logs)
        factor = self.logs.exp()[place]
        if self.kind == "temperature" or prior is None:
            return logits * factor
        return logits + (factor - 1) * torch.from_numpy(prior)


class Late:
    """A fitted prior, evaluated at positions of histories that it was not fitted on."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def training_probabilities(self, history: Histories, start: int, stop: int) -> Values:
        prefixes = [history.items[:end].tolist() for end in range(start, stop)]
        return self.prior.probabilities(Histories.from_lists(prefixes))


class Study:
    """A model with one configuration, its training and its measurement."""

    def __init__(self, options: argparse.Namespace, settings: dict[str, Any]) -> None:
        self.options = options
        data = leave_last_out(load_dataset(options.data)).train
        self.whole = data.histories
        rows = np.arange(len(self.whole))
        fitted = self.whole.head(rows, np.maximum(self.whole.lengths - options.late, 0))
        self.data = Dataset(data.name, data.catalogue, fitted, data.provenance)
        ranker = untrained_ranker(
            Config.create(**settings, seed=options.seed, context_layers=None), self.data
        )
        self.config, self.prompts, self.prior = ranker.config, ranker.prompts, ranker.prior
        self.recall = Recall()
        kept = len(ranker.backbone.blocks) - (self.config.trained_layers or 0)
        self.frozen = FrozenLayers(ranker, kept, options.cache / data.name)
        _forget(ranker.backbone, kept, self.recall)
        make_trainable(ranker.backbone, self.config)
        self.likelihood = ranker.renewed().likelihood
        if options.weights == "fixed":
            assert self.likelihood.prior_weight is not None
            self.likelihood.prior_weight.requires_grad = False
        elif options.weights:
            weighted = Weighted(self.likelihood, options.weights)
            self.likelihood.weighted = weighted  # registered as a submodule, so that it is trained
            vars(self.likelihood)["child_logits"] = weighted
        self.trie, self.end = self.likelihood.trie, self.prompts.end

    def batch(self, collate: Collator, windows: list[Window]) -> dict[str, Any]:
        """Collate windows and give the outputs of their frozen layers to the model."""
        states, batch = [], collate(windows)
        rows = zip(windows, batch["sequences"].ids, batch["sequences"].lengths, strict=True)
        for window, ids, length in rows:
            name = f"{window.row}-{window.start}-{window.stop}"
            states.append(self.frozen(name, ids[:length].tolist()))
        device = self.likelihood.backbone.device
        self.recall.states = nn.utils.rnn.pad_sequence(states, batch_first=True).to(device)
        return {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}

    def train(self) -> int:
        """Train on the budget of targets and return the number of targets that were used."""
        config, likelihood, histories = self.config, self.likelihood, self.data.histories
        layout = self.likelihood.layout
        collate = Collator(layout, histories, self.prior, loss=config.loss, seed=config.seed)
        self._calibrate(collate)
        named = [(k, v) for k, v in likelihood.named_parameters() if v.requires_grad]
        weights = [weight for _, weight in named]
        # With the common learning rate a factor would change by only .02 in fifty steps.
        fast = [{"params": [v], "speed": 20.0 if "logs" in k else 1.0} for k, v in named]
        optimizer = torch.optim.AdamW(fast, weight_decay=config.weight_decay)
        seen, likelihood = 0, likelihood.train()
        for step, microbatches in enumerate(self._steps()):
            if (done := seen / self.options.targets) >= 1:
                break
            warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
            for group in optimizer.param_groups:
                group["lr"] = group["speed"] * config.learning_rate * warm * (1 - done)
            seen += self._step(collate, microbatches)
            nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        likelihood.eval()
        return seen

    def _steps(self) -> Iterator[list[list[Window]]]:
        """Yield the microbatches of each optimiser step, epoch after epoch."""
        config, size = self.config, self.config.microbatch_size
        windows = training_windows(self.data.histories, self.prompts, config)
        lengths = windows.title_tokens(self.prompts.titles)
        order = ByLength(lengths, size, config.batch_size, config.seed)
        for epoch in range(1000):
            order.set_epoch(epoch)
            drawn = np.array(list(order)).reshape(-1, config.batch_size // size, size)
            for step in drawn.tolist():
                yield [[windows[index] for index in microbatch] for microbatch in step]

    def _step(self, collate: Collator, microbatches: list[list[Window]]) -> int:
        """Accumulate the gradients of one step and return its number of targets."""
        count = 0
        for windows in microbatches:
            batch = self.batch(collate, windows)
            targets, labels = batch["targets"], batch["labels"]
            if self.options.no_end_label:
                targets = without(targets, self.trie, self.end)
            loss = self.likelihood(batch["sequences"], targets, labels, num_items_in_batch=1)
            loss["loss"].backward()
            count += int((labels != -100).sum())  # number of titles, or of their tokens
        for weight in self.likelihood.parameters():
            if weight.grad is not None:
                weight.grad /= count
        return sum(window.stop - window.first for each in microbatches for window in each)

    def _calibrate(self, collate: Collator) -> None:
        if self.prior is not None:
            windows = [window for microbatch in next(self._steps()) for window in microbatch]
            batch = self.batch(collate, windows)
            self.likelihood.calibrate(batch["sequences"], batch["targets"])

    def measure(self) -> dict[str, Any]:
        """Compute nats and NDCG@10 of each late item, for each factor of the residual."""
        lengths, late = self.whole.lengths, self.options.late
        able = np.flatnonzero(lengths > late)
        rows = np.sort(np.random.default_rng(0).permutation(able)[: self.options.users])
        history = self.config.history_length
        windows = [
            Window(int(row), max(0, stop - late - history), stop - late, stop)
            for row, stop in zip(rows, lengths[rows].tolist(), strict=True)
        ]
        below = Late(self.prior or PopularityPrior().fit(self.data.histories, len(self.trie)))
        prior = cast(Prior, below) if self.prior else None
        collate = Collator(self.likelihood.layout, self.whole, prior)
        factors = LM_WEIGHTS if self.prior is not None else (1.0,)
        found: dict[str, Any] = {f"{factor:g}": {"nats": [], "ndcg": []} for factor in factors}
        for start in range(0, len(windows), 8):
            part = windows[start : start + 8]
            batch = self.batch(collate, part)
            shares = [
                below.training_probabilities(self.whole.select([w.row]), w.first, w.stop)
                for w in part
            ]
            self._measure(batch, part, np.concatenate(shares), found)
        return found

    @torch.inference_mode()
    def _measure(
        self, batch: dict[str, Any], windows: list[Window], below: Values, found: dict[str, Any]
    ) -> None:
        states, targets = self.likelihood.decision_states(batch["sequences"]), batch["targets"]
        wanted = np.concatenate([self.whole[w.row][w.first : w.stop] for w in windows])
        seen = np.zeros(below.shape, bool)
        ends = [(w.row, end) for w in windows for end in range(w.first, w.stop)]
        for place, (row, end) in enumerate(ends):
            seen[place, self.whole[row][:end]] = True
        for factor, values in found.items():
            self.likelihood.lm_weight = float(factor)
            log_probs = title_log_probs(self.likelihood, states, targets)
            values["nats"] += (-log_probs).double().round(decimals=4).tolist()
            scores = self._root_shares(states, targets)[:, root_of_items(self.trie)] + np.log(below)
            scores -= np.log(mass_of_root(self.trie, below))[:, root_of_items(self.trie)]
            scores[seen] = -np.inf
            rank = 1 + (scores > scores[np.arange(len(wanted)), wanted][:, None]).sum(axis=1)
            values["ndcg"] += ndcg(rank, 10).round(4).tolist()

    def _root_shares(self, states: torch.Tensor, targets: Targets) -> Values:
        """Return the log-probability of each child of the root, [titles, children]."""
        at_root = self.trie.child_parent[targets.choices.child[targets.target]] == ROOT
        root, states = only(targets, at_root), states[torch.from_numpy(at_root)]
        log_probs = self.likelihood.child_log_probs(states, root.choices, root.prior)
        return log_probs.cpu().double().reshape(len(states), -1).numpy()


def _forget(backbone: Backbone, count: int, recall: Recall) -> None:
    """Replace the first ``count`` layers of a backbone by ``recall``."""
    backbone.blocks[0] = recall
    del backbone.blocks[1:count]
    settings = backbone.causal_lm.config
    settings.num_hidden_layers = len(backbone.blocks)


def root_of_items(trie: Trie) -> npt.NDArray[np.int64]:
    """Return the child of the root that each item is below, int64 [items]."""
    root = trie.children(ROOT)
    counts = trie.child_high[root] - trie.child_low[root]
    found = np.empty(len(trie), np.int64)
    found[trie.items] = np.repeat(np.arange(len(counts)), counts)
    return found


def mass_of_root(trie: Trie, shares: Values) -> Values:
    """Return the sum of the items' probabilities below each child of the root, [rows, children].

    Args:
        trie: the trie.
        shares: probabilities, [rows, items].
    """
    return np.add.reduceat(shares[:, trie.items], trie.child_low[trie.children(ROOT)], axis=1)


def without(targets: Targets, trie: Trie, token: int) -> Targets:
    """Return the targets without the decisions whose correct child is ``token``."""
    return only(targets, trie.child_token[targets.choices.child[targets.target]] != token)


def only(targets: Targets, kept: npt.NDArray[np.bool_]) -> Targets:
    """Return the targets with some of the decisions only; ``kept`` is bool [decisions]."""
    options = targets.choices
    stay = kept[options.decision]
    counts = np.bincount(options.decision, minlength=len(kept))[kept]
    starts = np.cumsum(counts) - counts
    return replace(
        targets,
        choices=Choices(options.child[stay], np.repeat(np.arange(len(counts)), counts), starts),
        target=starts + (targets.target - options.starts)[kept],
        example=targets.example[kept],
        prior=None if targets.prior is None else targets.prior[stay],
    )


def table(path: Path) -> None:
    """Print the mean of each run and its paired difference to the default settings.

    The two runs of a pair have the same prior and the same seed.
    """
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    for run in runs:
        base = next(
            other
            for other in runs
            if other["name"] == "default"
            and (other["prior"], other["seed"]) == (run["prior"], run["seed"])
        )
        for factor, values in run["found"].items():
            print(f"{run['prior']:7} {run['seed']} {run['name'][:48]:48} {factor:>4}", end="")
            usual = base["found"]["0.5" if "0.5" in base["found"] else "1"]
            for metric, sign in (("nats", -1), ("ndcg", 1)):
                mean = np.mean(values[metric])
                gain = sign * (np.array(values[metric]) - usual[metric])
                # The late items of one user are correlated, so the interval is over users.
                users = gain.reshape(-1, run["late"]).mean(axis=1)
                half = 1.96 * users.std() / len(users) ** 0.5
                print(f"  {metric} {mean:.4f} {gain.mean():+.4f} ± {half:.4f}", end="")
            print(f"  {run['seconds']:4.0f} s")


def name_of(options: argparse.Namespace) -> str:
    """Return the settings that differ from the defaults, except the prior and the seed."""
    parts = [text for text in options.set if not text.startswith("prior=")]
    parts += [f"weights={options.weights}"] * bool(options.weights)
    parts += ["no-end-label"] * options.no_end_label + ["untrained"] * (not options.targets)
    return " ".join(parts) or "default"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="ml-100k", help="name or folder of the data set")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting of the model; repeatable",
    )
    parser.add_argument(
        "--targets", type=int, default=12_000, help="training budget, in targets; 0: untrained"
    )
    parser.add_argument(
        "--late", type=int, default=10, help="number of last items of each history held out"
    )
    parser.add_argument(
        "--users", type=int, default=400, help="number of users whose late items are predicted"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument(
        "--no-end-label", action="store_true", help="omit the loss at the end token of titles"
    )
    parser.add_argument(
        "--weights",
        choices=["fixed", "fast", "by-place", "temperature"],
        help="keep the prior's weight fixed, or learn further factors",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("frozen-layers"),
        help="folder for the outputs of the frozen layers",
    )
    parser.add_argument(
        "--table", type=Path, help="only print the table of the runs in this JSON lines file"
    )
    options = parser.parse_args()
    if options.table:
        table(options.table)
        return
    settings, started = parse_assignments(options.set), time.process_time()
    torch.manual_seed(options.seed)
    study = Study(options, settings)
    seen = study.train() if options.targets else 0
    result = {
        "name": name_of(options),
        "prior": study.config.prior,
        "seed": options.seed,
        "targets": seen,
        "late": options.late,
        "found": study.measure(),
        "seconds": time.process_time() - started,
    }
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
