"""Layouts: which positions the language model runs for histories, titles and trie nodes.

There are two. :class:`TokenLayout` runs every token of every title through all layers, as in
arXiv 2307.00457. :class:`TitleLayout` runs one position for each title of a history, and one for
each node of the trie, through the context layers alone; the lower layers have read the titles
before (:mod:`genrec.language_model.title_states`).

Training, scoring, search, sessions and explanations take their positions from here. A position is
named by an integer id: a token, or a row of the table of title states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import DynamicCache

from genrec.arrays import Ints, Items, Mask
from genrec.language_model.attention import Rows, attends_in_rows
from genrec.language_model.backbone import Backbone
from genrec.language_model.prompts import Prompts
from genrec.language_model.title_states import TitleStates
from genrec.language_model.titles import TitleTokens
from genrec.language_model.trie import Trie

Block = tuple[Ints, Ints, Ints, Mask]


@dataclass(frozen=True)
class Sequences:
    """Positions of some histories with their targets, and where decisions are predicted.

    Decisions are ordered by target, and from the root downwards for each target.

    Attributes:
        ids: ids of the positions, int64 [rows, positions], padded on the right with 0.
        lengths: number of positions of each row, without padding.
        row: row of the state that predicts each decision, shape [decisions].
        position: position of that state, shape [decisions].
        positions: place of each position in its prompt, of the shape of ``ids``; ``None`` counts.
        visible: positions that each position sees, shape [rows, 1, positions, positions]; ``None``
            stands for all earlier ones.
        rows: rows for attention, if the histories share one row of ``ids``; ``visible`` then has
            the shape [rows, 1, places, places].
    """

    ids: torch.Tensor
    lengths: Ints
    row: Ints
    position: Ints
    positions: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    rows: Rows | None = None

    @classmethod
    def one_row(
        cls, ids: Ints, places: Ints, visible: Mask, position: Ints, rows: Rows | None = None
    ) -> Self:
        """Return positions that share one row.

        Args:
            ids: ids of the positions, shape [positions].
            places: place of each in its prompt, shape [positions].
            visible: positions that each sees, shape [positions, positions], or [rows, places,
                places] with ``rows``.
            position: position of the state that predicts each decision, shape [decisions].
            rows: rows for attention.
        """
        return cls(
            torch.from_numpy(ids)[None],
            np.array([len(ids)]),
            np.zeros(len(position), np.int64),
            position,
            torch.from_numpy(places)[None],
            torch.from_numpy(visible).view(-1, 1, *visible.shape[-2:]),
            rows,
        )


@dataclass(frozen=True)
class Supervised:
    """A history whose last items are targets.

    Attributes:
        items: the items, oldest first.
        targets: number of targets.
        variant: index of the template's prefix.
        levels: level of each item's rating (see :class:`genrec.language_model.prompts.Ratings`).
    """

    items: Items
    targets: int
    variant: int = 0
    levels: Ints | None = None


class Layout(ABC):
    """The positions of a catalogue's histories, titles and nodes.

    Attributes:
        backbone: the language model.
        trie: the items that can be recommended.
        prompts: the template and the titles, in ids.
        sees_path: whether a node sees the nodes above it; if not, its own position holds its title.
        pads: whether :meth:`sequences` pads short histories.
    """

    sees_path: bool
    pads: bool

    def __init__(self, backbone: Backbone, trie: Trie, prompts: Prompts) -> None:
        self.backbone, self.trie, self.prompts = backbone, trie, prompts

    @abstractmethod
    def edge(self, child: int) -> Ints:
        """Return the ids to run for the node below a child."""

    @abstractmethod
    def edge_length(self, child: int) -> int:
        """Return the number of ids of :meth:`edge`."""

    @abstractmethod
    def path(self, item: int) -> tuple[Ints, Ints]:
        """Return what scoring an item runs after a prompt.

        Returns:
            The ids, and for each decision the index of the id whose state predicts it; -1 is the
            prompt's last position.
        """

    @abstractmethod
    def sequences(self, parts: Sequence[Supervised]) -> Sequences:
        """Lay out histories with their targets, for training and scoring."""

    def hidden(
        self,
        ids: torch.Tensor,
        *,
        positions: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
        rows: Rows | None = None,
        cache: DynamicCache | None = None,
    ) -> torch.Tensor:
        """Run positions.

        Args:
            ids: ids of the positions, int64 [rows, positions].
            positions: place of each position in its prompt; counted after the cache if ``None``.
            visible: positions that each position sees, bool [rows, 1, positions, cached +
                positions]; all earlier ones if ``None``.
            rows: rows for attention; ``visible`` is then [rows, 1, places, places].
            cache: keys and values of earlier positions; it grows by these.

        Returns:
            Final hidden states, shape [rows, positions, hidden].
        """
        device, more = self.backbone.device, {}
        if rows is not None and attends_in_rows(self.backbone.causal_lm):
            more["rows"] = rows.to(device)
        elif rows is not None and visible is not None:
            visible = rows.together(visible)
        return self._run(
            ids,
            position_ids=None if positions is None else positions.to(device),
            attention_mask=None if visible is None else self._mask(visible),
            past_key_values=cache,
            **more,
        )

    @abstractmethod
    def _run(self, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Run ids with further arguments of the decoder."""

    def _mask(self, visible: torch.Tensor) -> torch.Tensor:
        dtype, device = self.backbone.output_weight.dtype, self.backbone.device
        mask = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype, device=device)
        return mask.masked_fill_(visible.to(device), 0.0)


class TokenLayout(Layout):
    """Every token of every title is a position of all layers."""

    sees_path = True
    pads = True

    def edge(self, child: int) -> Ints:
        return self.trie.edge(child).astype(np.int64)

    def edge_length(self, child: int) -> int:
        trie = self.trie
        return int(trie.depth[trie.child_node[child]] - trie.depth[trie.child_parent[child]])

    def path(self, item: int) -> tuple[Ints, Ints]:
        places = self.trie.depth[self.trie.child_parent[self.trie.decisions(item)]] - 1
        return self.trie.titles[item][: places[-1] + 1].astype(np.int64), places.astype(np.int64)

    def sequences(self, parts: Sequence[Supervised]) -> Sequences:
        titles, rows, row, position = self.trie.titles, [], [], []
        for number, part in enumerate(parts):
            first, levels = len(part.items) - part.targets, part.levels
            said = None if levels is None else levels[:first]
            tokens = self.prompts.encode(part.items[:first], said, variant=part.variant)
            for place, item in enumerate(part.items[first:], first):
                if place > first:  # what stands between the title before and this one
                    level = 0 if levels is None else int(levels[place - 1])
                    tokens += self.prompts.after(place - 1, level)
                _, places = self.path(item)
                row += [number] * len(places)
                position += (len(tokens) + places).tolist()
                tokens += titles[item].tolist()
            rows.append(tokens)
        lengths = np.array([len(tokens) for tokens in rows])
        ids = torch.tensor([[*each, *[0] * (lengths.max() - len(each))] for each in rows])
        return Sequences(ids, lengths, np.array(row), np.array(position))

    def _run(self, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        cached = inputs["past_key_values"] is not None
        return self.backbone.hidden(ids.to(self.backbone.device), use_cache=cached, **inputs)


class TitleLayout(Layout):
    """One position for each title and node, seen by the context layers alone.

    A position of a history sees the prefix and the titles up to its own. A node sees the prefix,
    the whole history and itself: the lower layers have put its title's beginning into its state.
    The first decision of a title is predicted by the end of the title before it.

    Attributes:
        states: the table of title states, whose rows are the ids.
    """

    sees_path = False
    pads = False

    def __init__(self, trie: Trie, states: TitleStates) -> None:
        ratings = states.prompts.ratings
        prompts = replace(
            states.prompts,
            titles=_single(states.end_rows),
            prefixes=[states.prefix_rows.tolist()],
            suffix=states.suffix_rows.tolist(),
            ratings=ratings and replace(ratings, tokens=_single(states.rating_rows)),
        )
        super().__init__(states.split.backbone, trie, prompts)
        self.states, self._node_rows = states, states.node_rows(trie)

    def edge(self, child: int) -> Ints:
        node = self.trie.child_node[child]
        return self._node_rows[node : node + 1]

    def edge_length(self, child: int) -> int:
        return 1

    def path(self, item: int) -> tuple[Ints, Ints]:
        nodes = self.trie.child_parent[self.trie.decisions(item)]
        return self._node_rows[nodes[1:]], np.arange(len(nodes)) - 1

    def sequences(self, parts: Sequence[Supervised]) -> Sequences:
        """Lay out all histories in one row, behind one prefix that all of them see."""
        prefix, suffix = self.prompts.prefixes[0], self.prompts.suffix
        predictors, end = [], len(prefix)
        step = 1 if self.prompts.ratings is None else 2  # positions of one item of a history
        blocks = [_block(prefix, -1, np.arange(end), context=True)]
        for number, part in enumerate(parts):
            before = len(part.items) - part.targets
            context = self._context(part)
            target, child = self.trie.paths(part.items[before:])
            node = self.trie.child_parent[child]
            inner = np.flatnonzero(np.append(False, target[1:] == target[:-1]))
            # The first target is predicted by what precedes the history if it has no context.
            predictor = end + step * (before + target) + len(suffix) - 1
            predictor[predictor < end] = len(prefix) - 1
            predictor[inner] = end + len(context) + np.arange(len(inner))
            seen = len(prefix) + step * (before + target[inner]) + len(suffix)
            places = len(prefix) + np.arange(len(context))
            blocks.append(_block(context, number, places, context=True))
            blocks.append(_block(self._node_rows[node[inner]], number, seen, context=False))
            predictors.append(predictor)
            end += len(context) + len(inner)
        ids, owner, place, context = (np.concatenate(each) for each in zip(*blocks, strict=True))
        rows = Rows.of(owner)
        taken = rows.taken.numpy()
        earlier = place[taken][:, None] < place[taken][:, :, None]
        seen = earlier & (context[taken] & (taken >= 0))[:, None]
        visible = seen | np.eye(taken.shape[1], dtype=bool)
        return Sequences.one_row(ids, place, visible, np.concatenate(predictors), rows)

    def _context(self, part: Supervised) -> Ints:
        """Return the rows that a target sees: titles, their ratings, and the suffix."""
        rows = self.states.first_end + part.items[:-1].astype(np.int64)
        if self.prompts.ratings is not None:
            levels = part.levels if part.levels is not None else np.zeros(len(part.items), np.int64)
            rows = np.stack([rows, self.states.rating_rows[levels[:-1]]], axis=1)
        rows = rows[::-1] if self.prompts.newest_first else rows
        return np.append(rows.ravel(), np.array(self.prompts.suffix, np.int64))

    def _run(self, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        return self.states.split.upper(self.states(ids.cpu().numpy()), **inputs)


def _single(rows: Ints) -> TitleTokens:
    """Return rows as titles of one position each."""
    return TitleTokens(rows.astype(np.int32), np.arange(len(rows) + 1))


def _block(ids: ArrayLike, owner: int, places: Ints, *, context: bool) -> Block:
    """Describe positions of one history.

    Args:
        ids: their ids.
        owner: number of the history; -1 is the prefix of all.
        places: place of each in its prompt.
        context: whether later positions see them.

    Returns:
        Ids, owners, places and whether they are context, one entry for each position.
    """
    rows = np.asarray(ids, np.int64)
    return rows, np.full(len(rows), owner), places, np.full(len(rows), context)
