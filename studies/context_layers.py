"""Compare ways to read titles once, at equal time or at an equal number of targets.

    python studies/context_layers.py --data ml-100k --set prior=none --minutes 3 >> found.jsonl
    python studies/context_layers.py --table found.jsonl

One run trains one variant on the training histories and measures the negative log-likelihood of
validation targets, in nats per item. Test items are not used. ``--history``, ``--nodes``,
``--places`` and ``--skip`` choose variants that GenRec itself does not offer; the other settings
are those of :class:`genrec.Config`. Losses and updates are those of ``genrec train``, without its
Trainer. The table gives paired differences to the first run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from genrec import leave_last_out, load_dataset
from genrec.arrays import Ints
from genrec.cli.options import parse_assignments
from genrec.config import Config
from genrec.language_model.adapters import make_trainable
from genrec.language_model.decisions import locate_targets
from genrec.language_model.layouts import Sequences, Supervised, TitleLayout
from genrec.language_model.likelihood import title_log_probs
from genrec.language_model.split import SplitBackbone
from genrec.language_model.title_states import TitleStates
from genrec.language_model.trie import Trie
from genrec.model.fitting import untrained_ranker
from genrec.model.ranker import Ranker
from genrec.training.batches import Collator
from genrec.training.order import ByLength
from genrec.training.windows import training_windows

SCORED = 8
"""Validation users that are scored together."""


class EveryToken(TitleStates):
    """A table of the states of every token of every title, instead of ends and nodes."""

    def __init__(self, states: TitleStates) -> None:
        super().__init__(states.split, states.prompts, states.trie)
        prefix, titles = len(self.prompts.prefixes[0]), self.prompts.titles
        rows = prefix + len(titles.tokens)
        self.table = torch.zeros(rows, self.table.shape[1], dtype=self.table.dtype)
        self.known = np.zeros(rows, bool)
        title = np.repeat(np.arange(len(titles)), titles.lengths)
        place = np.arange(len(titles.tokens)) - titles.offsets[title]
        self._sequence = np.append(np.full(prefix, -1), title)
        self._place = np.append(np.arange(prefix), place)

    def rows(self, item: int) -> Ints:
        """Return the rows of a title's tokens."""
        first, stop = self.prompts.titles.offsets[item : item + 2]
        return len(self.prompts.prefixes[0]) + np.arange(first, stop)


class VariantLayout(TitleLayout):
    """Title layouts that differ in what a history and a node consist of, and in their places.

    Attributes:
        history: ``"ends"`` or ``"all"`` tokens of each title.
        nodes: a node is its last token alone (``"self"``), or also sees its title's tokens
            (``"own"``).
        places: ``"number"`` of the title, or ``"offset"`` of the token in the whole prompt.
    """

    def __init__(
        self, trie: Trie, states: TitleStates, history: str, nodes: str, places: str
    ) -> None:
        super().__init__(trie, states)
        self.states = self.every = EveryToken(states)
        self.every.read()
        self.history, self.nodes, self.places_by = history, nodes, places

    def sequences(self, parts: Sequence[Supervised]) -> Sequences:
        start = len(self.every.prompts.prefixes[0])
        # id, owner, place, group (a target's own tokens), order within the history
        flat = [(each, -1, each, -1, each) for each in range(start)]
        predictors: list[int] = []
        for number, part in enumerate(parts):
            self._add(flat, predictors, number, part, start)
        ids, owner, place, group, order = np.array(flat).T
        own_history = (owner == owner[:, None]) | (owner == -1)
        visible = (group == -1) & own_history & (order <= order[:, None])
        if self.nodes == "own":
            places = np.arange(len(ids))
            visible |= (group >= 0) & (group == group[:, None]) & (places <= places[:, None])
        visible |= np.eye(len(ids), dtype=bool)
        return Sequences.one_row(ids, place, visible, np.array(predictors))

    def _add(
        self, flat: list[Any], predictors: list[int], number: int, part: Supervised, start: int
    ) -> None:
        first_target = len(part.items) - part.targets
        place, order, last, group = start, start, start - 1, len(flat)
        by_offset = self.places_by == "offset"
        for index, item in enumerate(part.items.tolist()):
            if index >= first_target:
                nodes = self.trie.child_parent[self.trie.decisions(item)]
                depths = self.trie.depth[nodes[1:]].tolist()
                predictors.append(last)
                group += 1
                wanted = range(1, depths[-1] + 1) if self.nodes == "own" and depths else depths
                for depth in wanted:
                    if depth in depths:
                        predictors.append(len(flat))
                    at = place + depth - 1 if by_offset else place
                    flat.append(
                        (int(self.every.rows(item)[depth - 1]), number, at, group, order - 1)
                    )
            if index == len(part.items) - 1:
                break
            rows = self.every.rows(item)
            length = len(rows)
            chosen = rows if self.history == "all" else rows[-1:]
            for step, row in enumerate(chosen.tolist(), length - len(chosen)):
                at = place + step if by_offset else place
                last = len(flat)
                flat.append((row, number, at, -1, order))
                order += 1
            place += length if by_offset else 1


def build(options: argparse.Namespace, settings: dict[str, Any]) -> tuple[Ranker, Any, float]:
    """Return an untrained ranker of the chosen variant, its data, and the seconds of reading."""
    split = leave_last_out(load_dataset(options.data))
    started = time.perf_counter()
    ranker = untrained_ranker(Config.create(**settings), split.train)
    taken = time.perf_counter() - started
    if options.skip:  # leave out layers between those that read titles and those that see histories
        ranker = skip_layers(ranker, options.skip)
    make_trainable(ranker.backbone, ranker.config)
    ranker = ranker.renewed()
    plain = (options.history, options.nodes, options.places) == ("ends", "self", "number")
    if ranker.states is not None and not plain:
        layout = VariantLayout(
            ranker.index.trie, ranker.states, options.history, options.nodes, options.places
        )
        ranker = replace(ranker, likelihood=ranker.likelihood.over(layout))
    return ranker, split, taken


def skip_layers(ranker: Ranker, count: int) -> Ranker:
    """Let the lower part end ``count`` layers earlier; the layers between are left out."""
    blocks = ranker.backbone.blocks
    n = ranker.config.context_layers
    assert isinstance(n, int)
    assert ranker.states is not None
    last = len(blocks) - n
    del blocks[last - count : last]
    ranker.backbone.causal_lm.config.num_hidden_layers = len(blocks)
    for place, block in enumerate(blocks):
        block.self_attn.layer_idx = place
    states = TitleStates(
        SplitBackbone(ranker.backbone, n), ranker.states.prompts, ranker.states.trie
    )
    states.read()
    return Ranker.assemble(
        ranker.config, ranker.backbone, ranker.catalogue, ranker.index, ranker.prior, states
    )


def batches(ranker: Ranker, data: Any) -> Iterator[dict[str, Any]]:
    """Yield microbatches forever."""
    config = ranker.config
    windows = training_windows(data.histories, ranker.layout.prompts, config)
    collate = Collator(ranker.layout, data.histories, ranker.prior, seed=config.seed)
    lengths = windows.title_tokens(ranker.prompts.titles)
    order = ByLength(lengths, config.microbatch_size, config.batch_size, config.seed)
    epoch = 0
    while True:
        order.set_epoch(epoch)
        drawn = np.array(list(order)).reshape(-1, config.microbatch_size)
        for rows in drawn:
            yield collate([windows[int(row)] for row in rows])
        epoch += 1


def train(ranker: Ranker, data: Any, options: argparse.Namespace) -> dict[str, float]:
    """Train for a number of minutes or targets, with a linear decay over that budget."""
    config, model = ranker.config, ranker.likelihood.train()
    source = batches(ranker, data)
    if ranker.prior is not None:
        found = next(source)
        model.calibrate(found["sequences"], found["targets"])
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    micro = max(1, config.batch_size // config.microbatch_size)
    targets, step, started = 0, 0, time.perf_counter()
    collating = 0.0
    while True:
        passed = time.perf_counter() - started
        done = targets / options.targets if options.targets else passed / (60 * options.minutes)
        if done >= 1:
            break
        begin = time.perf_counter()
        group = [next(source) for _ in range(micro)]
        collating += time.perf_counter() - begin
        count = sum(each["titles"] for each in group)
        for each in group:
            model(each["sequences"], each["targets"], each["labels"], count)["loss"].backward()
        rate = min(1.0, (step + 1) / (config.warmup_steps + 1)) * (1 - done)
        for each in optimizer.param_groups:
            each["lr"] = config.learning_rate * rate
        torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        targets, step = targets + count, step + 1
    model.eval()
    seconds = time.perf_counter() - started
    return {"targets": targets, "seconds": seconds, "steps": step, "collating": collating / seconds}


@torch.inference_mode()
def measure(ranker: Ranker, holdout: Any) -> tuple[npt.NDArray[np.float64], float]:
    """Return -log p(target | history) of each user, and the seconds it took."""
    started, found = time.perf_counter(), []
    model = ranker.likelihood.eval()
    length = ranker.config.history_length
    for start in range(0, len(holdout), SCORED):
        rows = np.arange(start, min(start + SCORED, len(holdout)))
        histories, targets = holdout.histories.select(rows), holdout.targets[rows]
        parts = [
            Supervised(np.append(history[-length:], target).astype(np.int32), 1)
            for history, target in zip(histories, targets, strict=True)
        ]
        states = model.decision_states(ranker.layout.sequences(parts))
        located = locate_targets(ranker.index.trie, targets, ranker._cumulative_prior(histories))
        found.append(-title_log_probs(model, states, located).double().numpy())
    return np.concatenate(found), time.perf_counter() - started


def run(options: argparse.Namespace) -> None:
    """Train and measure one variant, and print one JSON object."""
    torch.set_num_threads(1)
    settings = parse_assignments(options.set)
    torch.manual_seed(settings.get("seed", 0))
    ranker, split, reading = build(options, settings)
    holdout = split.valid
    if len(holdout) > options.users:
        holdout = holdout.sample(options.users, 0)
    before, _ = measure(ranker, holdout)
    facts = train(ranker, split.train, options) if options.targets or options.minutes else {}
    after, scoring = measure(ranker, holdout)
    shown = {
        "data": options.data,
        "settings": settings,
        **{key: getattr(options, key) for key in ("history", "nodes", "places", "skip", "note")},
        "dtype": ranker.backbone.dtype_name,
        "nll_untrained": float(before.mean()),
        "nll": float(after.mean()),
        **facts,
        "reading_seconds": reading,
        "scoring_seconds": scoring,
        "users": after.round(4).tolist(),
    }
    print(json.dumps(shown), flush=True)


def table(path: Path) -> None:
    """Print the runs of a file with paired differences to its first run."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    first = np.array(runs[0]["users"])
    for each in runs:
        gain = first - np.array(each["users"])
        half = 1.96 * gain.std() / len(gain) ** 0.5
        names = " ".join(f"{k}={v}" for k, v in each["settings"].items())
        variant = " ".join(
            str(each[k]) for k in ("history", "nodes", "places", "skip", "note") if each[k]
        )
        print(
            f"{names} {variant}: untrained {each['nll_untrained']:.3f} trained {each['nll']:.3f} "
            f"gain {gain.mean():+.3f} ± {half:.3f}, {each.get('targets', 0)} targets in "
            f"{each.get('seconds', 0):.0f} s (collating {each.get('collating', 0):.2f}), "
            f"scored in {each['scoring_seconds']:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="ml-100k", help="name or folder of the data set")
    parser.add_argument("--set", action="append", default=[], help="key=value of a setting")
    parser.add_argument("--history", choices=["ends", "all"], default="ends")
    parser.add_argument("--nodes", choices=["self", "own"], default="self")
    parser.add_argument("--places", choices=["number", "offset"], default="number")
    parser.add_argument("--skip", type=int, default=0, help="layers left out below the upper ones")
    parser.add_argument("--minutes", type=float, default=0.0, help="training time")
    parser.add_argument("--targets", type=int, default=0, help="training targets, instead of time")
    parser.add_argument("--users", type=int, default=1000, help="validation users")
    parser.add_argument("--note", default="", help="text for the table")
    parser.add_argument("--table", type=Path, help="print the runs of this file instead")
    options = parser.parse_args()
    if options.table:
        table(options.table)
    else:
        run(options)


if __name__ == "__main__":
    main()
