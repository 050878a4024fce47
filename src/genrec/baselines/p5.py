"""P5: recommendation as text-to-text generation with a T5 that reads and writes item numbers.

Source: arXiv 2203.13366, its sequential recommendation task; item numbering after arXiv 2305.06569.
Lists are exact: every item number of the catalogue is scored in one pass over the tree of number
tokens, where the published P5 uses beam search.

**The published numbering leaks the answers.** Items are numbered in the order in which a walk
through the users' whole sequences first meets them, held-out items included. If no earlier user has
a user's held-out item, its number is "the user's largest number plus one", and no recommender is
needed to find it. ``P5("sequential", order=data.histories)`` reproduces the leak.
``P5("shuffled")`` is the method without it.

Here, a *word* is a space-separated part of a prompt, such as an item number; a *piece* is a token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import chain
from typing import Any, Self, get_args

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from genrec.arrays import Arrays, Floats32, Integers, Ints, rows_and_places
from genrec.baselines.p5_network import (
    MOST_WORDS,
    IdTree,
    Network,
    OwnPieces,
    Pieces,
    PretrainedPieces,
    closed,
    from_scratch,
    pretrained,
)
from genrec.baselines.p5_settings import (
    FIRST,
    USER,
    WITH_USER,
    WITHOUT_USER,
    Indexing,
    P5Settings,
    draw_wording,
    number_items,
)
from genrec.collaborative.base import FromScores
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.data.statistics import excludes_seen, repeat_share
from genrec.errors import ConfigError, DataError
from genrec.metrics import ndcg, target_ranks
from genrec.recommender import top_k

Example = tuple[list[int], list[int], Pieces]
"""Tokens of the prompt, the index of each token's word, and tokens of the answer."""


WARM_UP = 0.05
"""Share of the budget in which the learning rate rises; afterwards it falls to zero."""


COPIED = 8
"""Most items in a list for the copying task."""


POOLED_BATCHES = 50
"""Number of batches that are sorted by length together."""


DECODER_POSITIONS = 8192
"""Most decoder positions that are scored at once."""


class P5(FromScores):
    """P5's sequential recommendation with the interface of :class:`.Recommender`.

    Args:
        indexing: "sequential" is the published numbering; "shuffled" permutes the same numbers
            with the seed.
        order: the histories that are walked through to number items and users. The histories of
            the whole data set (``data.histories``) reproduce the **leak** of the published
            numbers: held-out items are often "last number plus one". ``None`` walks through the
            training histories alone; items outside them get the remaining numbers at random.
        settings: sizes, budget, seed and device.

    Raises:
        ConfigError: the indexing is unknown.
    """

    def __init__(
        self,
        indexing: Indexing = "sequential",
        order: Histories | None = None,
        settings: P5Settings | None = None,
    ) -> None:
        if indexing not in get_args(Indexing):
            raise ConfigError(f"indexing must be 'sequential' or 'shuffled', got {indexing!r}.")
        self.indexing: Indexing = indexing
        self.settings = settings or P5Settings()
        self._order = order

    @property
    def name(self) -> str:
        """The name "p5-sequential" or "p5-shuffled"."""
        return f"p5-{self.indexing}"

    @property
    def numbers(self) -> Ints:
        """Number of each item, shape [items]; the leak check for item numbers reads it."""
        return self._numbers

    @property
    def note(self) -> str:
        """Remark for result tables: pretrained or from scratch, and the size."""
        own = self.settings
        if own.backbone is not None:
            return f"pretrained {own.backbone}"
        return f"from scratch, d_model {own.d_model}, {own.layers} + {own.layers} layers"

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        settings, histories = self.settings, train.histories
        walked = histories if self._order is None else self._order
        self._build(
            number_items(walked, len(train.catalogue), self.indexing, settings.seed),
            walked.user_ids,
        )
        with torch.random.fork_rng():  # leaves the caller's random state unchanged
            torch.manual_seed(settings.seed)
            self._network = self._untrained()
            drawn = valid and valid.sample_targets(settings.eval_users, settings.seed)
            self._train(histories, drawn)

    def _build(self, numbers: Ints, user_ids: Sequence[str]) -> None:
        """Set up everything that follows from the numbers and is not learned."""
        self._numbers, self._user_ids = numbers, list(user_ids)
        self._users = {user: place for place, user in enumerate(user_ids, start=1)}
        self._pieces = self._pieces_up_to(max(len(numbers) + FIRST, len(user_ids)))
        words = [str(FIRST + number) for number in numbers.tolist()]
        self._words = [self._pieces(word) for word in words]
        self._tree = IdTree(closed(self._words), self._pieces.start)

    def _pieces_up_to(self, most: int) -> OwnPieces | PretrainedPieces:
        if self.settings.backbone is not None:
            return PretrainedPieces(self.settings.backbone)
        names = {word for text in (*WITH_USER, *WITHOUT_USER) for word in text.split()}
        return OwnPieces([*sorted(names), USER], most)

    def _untrained(self) -> Network:
        own = self.settings
        if own.backbone is not None:
            network = pretrained(own.backbone, own.dropout)
        else:
            network = from_scratch(self._pieces.size, own.d_model, own.layers, own.dropout)
        return network.to(own.device)

    def _train(self, histories: Histories, holdout: Holdout | None) -> None:
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=self.settings.learning_rate)
        validation = _Validation(self, holdout, histories) if holdout is not None else None
        for share, batch in self._budgeted(histories):
            if validation is not None and validation(share):
                break
            for group in optimizer.param_groups:
                warm = min(share / WARM_UP, (1 - share) / (1 - WARM_UP))
                group["lr"] = self.settings.learning_rate * max(warm, 1e-3)
            self._network.train()
            loss = self._network.loss(*self._tensors(batch))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
            optimizer.step()
        if validation is not None:
            validation.keep_best()

    def _budgeted(self, histories: Histories) -> Iterator[tuple[float, list[Example]]]:
        """Yield batches until a budget ends, each with the share of the budget used so far."""
        settings, random = self.settings, np.random.default_rng(self.settings.seed)
        targets = _targets(histories, settings.last)
        if not len(targets):
            raise DataError(
                "P5 has nothing to learn from: no history has two items. Train on more data."
            )
        copying = 0.0 if settings.backbone else settings.copying
        steps = settings.epochs * -(-len(targets) // settings.batch)
        began, minutes = time.monotonic(), settings.minutes or np.inf
        batches = (
            [self._example(histories, row, place, random) for row, place in batch]
            for _ in range(settings.epochs)
            for batch in _batches(targets, settings.batch, random)
        )
        for done in range(steps):
            share = max(done / steps, (time.monotonic() - began) / 60 / minutes)
            if share >= 1:
                return
            copies = round(settings.batch * max(0.0, 1 - share / copying)) if copying else 0
            yield share, next(batches)[copies:] + self._copies(copies, random)

    def _example(
        self, histories: Histories, row: int, place: int, random: np.random.Generator
    ) -> Example:
        history = histories[row]
        prompt = self._prompt(draw_wording(random), histories.user_ids[row], history[:place])
        return *prompt, self._tree.ids[history[place]]

    def _copies(self, rows: int, random: np.random.Generator) -> list[Example]:
        """Return examples of the copying task: random lists whose last item is the answer."""
        found = []
        for length in random.integers(1, 1 + min(COPIED, self.settings.history), rows):
            items = random.integers(len(self._words), size=length)
            user = self._user_ids[random.integers(len(self._user_ids))]
            prompt = self._prompt(draw_wording(random), user, items)
            found.append((*prompt, self._tree.ids[items[-1]]))
        return found

    def _prompt(self, wording: str, user: str, history: Integers) -> tuple[list[int], list[int]]:
        """Return the prompt's tokens, closed by the end token, and the index of each token's word.

        Words are counted from the end, unlike in the published P5. The most recent item therefore
        has about the same index in every prompt.
        """
        words: list[Pieces] = []
        for word in wording.split():
            if word == "{items}":
                recent = history[-self.settings.history :].tolist()
                words += [self._words[item] for item in recent]
            else:
                words.append(self._pieces(word.format(user=f"{USER}{self._users.get(user, 0)}")))
        words.append((self._pieces.end,))
        ages = range(len(words) - 1, -1, -1)
        owner = [
            min(age, MOST_WORDS - 1) for age, word in zip(ages, words, strict=True) for _ in word
        ]
        return list(chain.from_iterable(words)), owner

    def _tensors(self, batch: Sequence[Example]) -> tuple[torch.Tensor, ...]:
        """Return tokens, word indices and answers, right-padded with -1 to the longest row."""
        columns = ([torch.tensor(row) for row in column] for column in zip(*batch, strict=True))
        padded = (pad_sequence(rows, batch_first=True, padding_value=-1) for rows in columns)
        return tuple(table.to(self.settings.device) for table in padded)

    def scores(self, histories: Histories) -> Floats32:
        """Return log-probabilities of each item's number after each history, [rows, items]."""
        self._network.eval()
        found = np.empty((len(histories), len(self._words)), np.float32)
        by_length = np.argsort(histories.lengths, kind="stable")
        for rows in _split(by_length, max(1, DECODER_POSITIONS // len(self._tree))):
            batch = [(*self._question(histories, row), ()) for row in rows.tolist()]
            pieces, words, _ = self._tensors(batch)
            found[rows] = self._network.item_scores(pieces, words, self._tree).cpu().numpy()
        return found

    def _question(self, histories: Histories, row: int) -> tuple[list[int], list[int]]:
        user = histories.user_ids[row]
        wording = (WITH_USER if user in self._users else WITHOUT_USER)[0]
        return self._prompt(wording, user, histories[row])

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments; :meth:`arrays` holds the rest."""
        return {"indexing": self.indexing}

    def arrays(self) -> Arrays:
        """Return settings, numbers, users and weights, for one ``.npz`` file."""
        settings = {"indexing": self.indexing, **asdict(self.settings)}
        own = {"numbers": self._numbers, "user_ids": np.array(self._user_ids, dtype=np.str_)}
        weights = {
            f"weights.{name}": value.detach().cpu().numpy()
            for name, value in self._network.named_parameters()
        }
        return {"settings": np.array(json.dumps(settings)), **own, **weights}

    def restore(self, arrays: Arrays) -> Self:
        """Load the state that :meth:`arrays` returned; the device stays this recommender's own."""
        settings = json.loads(str(arrays["settings"]))
        self.indexing = settings.pop("indexing")
        self.settings = replace(P5Settings(**settings), device=self.settings.device)
        self._build(arrays["numbers"], arrays["user_ids"].tolist())
        self._network = self._untrained()
        with torch.no_grad():
            for name, value in self._network.named_parameters():
                value.copy_(torch.from_numpy(arrays[f"weights.{name}"]))
        return self


class _Validation:
    """Early stopping: evaluates on the validation users at intervals and keeps the best weights."""

    def __init__(self, model: P5, holdout: Holdout, train: Histories) -> None:
        self._model, self._holdout = model, holdout
        self._seen = holdout.histories if excludes_seen(repeat_share(train)) else None
        self._best, self._since = -1.0, 0
        own = model.settings  # validation means little while batches still contain copying
        self._next = max(1 / own.evaluations, 0.0 if own.backbone else own.copying)
        self._kept: dict[str, torch.Tensor] = {}
        self.curve: list[float] = []

    def __call__(self, share: float) -> bool:
        """Evaluate if an evaluation step is due.

        Returns:
            Whether training should stop because patience is exhausted.
        """
        if share < self._next:
            return False
        self._next += 1 / self._model.settings.evaluations
        self._evaluate()
        return self._since >= self._model.settings.patience

    def _evaluate(self) -> None:
        top = top_k(self._model.scores(self._holdout.histories), 10, self._seen)
        self.curve.append(float(ndcg(target_ranks(top.items, self._holdout.targets), 10).mean()))
        self._since += 1
        if self.curve[-1] > self._best:
            self._best, self._since = self.curve[-1], 0
            self._kept = deepcopy(self._model._network.state_dict())

    def keep_best(self) -> None:
        """Evaluate once more, then restore the best weights."""
        self._evaluate()
        self._model._network.load_state_dict(self._kept)


def _targets(histories: Histories, last: int | None) -> Ints:
    """Return row and place of every item with a non-empty history before it, shape [targets, 2]."""
    rows, places = rows_and_places(histories.lengths)
    from_end = histories.lengths[rows] - places
    wanted = (places > 0) & (from_end <= (last or np.inf))
    return np.stack([rows[wanted], places[wanted]], axis=1)


def _batches(targets: Ints, size: int, random: np.random.Generator) -> Iterator[list[list[int]]]:
    """Yield all targets in random order, in batches with histories of similar length."""
    for pool in _split(random.permutation(targets), size * POOLED_BATCHES):
        by_length = pool[np.argsort(pool[:, 1], kind="stable")]
        batches = list(_split(by_length, size))
        for place in random.permutation(len(batches)):
            yield random.permutation(batches[place]).tolist()


def _split(rows: Ints, size: int) -> Iterator[Ints]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
