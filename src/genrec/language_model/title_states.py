"""Title states: what the lower layers make of each title, read once per catalogue.

A title is read by itself, right after the template's prefix. The context layers need a few of its
positions only: its end, which stands for it in a history, and the last token before each decision
of the trie. Those states are kept in one table, which can be stored and memory-mapped.
(Blocks of a prompt encoded apart and joined above: Block-Attention, arXiv 2409.15355.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

from genrec.arrays import Ints, Mask
from genrec.assets.cache import cache_dir
from genrec.errors import RunError
from genrec.files import replacing
from genrec.language_model.caches import repeated
from genrec.language_model.prompts import Prompts
from genrec.language_model.split import SplitBackbone
from genrec.language_model.titles import TitleTokens
from genrec.language_model.trie import Trie, same_nodes
from genrec.processes import ProgressLines, broadcast_from_main, is_main, log, stage

READ_TOKENS = {"cpu": 1024, "cuda": 32_768}
"""Most tokens that are read together, with padding; 4096 on other devices."""
CACHED_BYTES = 4 * 2**30
"""Most bytes of title states in the cache; those that were not used for longest are deleted."""
LAZY_ITEMS = 100_000
"""Larger catalogues are read title by title when their states are first needed."""


class TitleStates:
    """The table of title states.

    Rows are, in this order: the tokens of the template's prefix, those of its suffix, what is said
    of each rating, the end of each title, and each node of the trie over all titles. The rows of a
    prompt therefore keep their numbers when items are added.

    Attributes:
        split: the backbone's two parts.
        prompts: the catalogue's title tokens and template.
        trie: the trie over all titles, including removed ones.
        table: the states, shape [rows, hidden].
        known: which rows have been read, shape [rows].
    """

    def __init__(self, split: SplitBackbone, prompts: Prompts, trie: Trie) -> None:
        """Start with an empty table; :meth:`read` fills it.

        Args:
            split: the backbone's two parts.
            prompts: the catalogue's title tokens and template.
            trie: the trie over all titles.
        """
        self.split, self.prompts, self.trie = split, prompts, trie
        weight = split.backbone.output_weight
        items, nodes, suffix = len(prompts.titles), len(trie.depth), len(prompts.suffix)
        said = TitleTokens.from_lists([]) if prompts.ratings is None else prompts.ratings.tokens
        self.first_rating = len(prompts.prefixes[0]) + suffix
        self.first_end = self.first_rating + len(said)
        self.first_node = self.first_end + items
        # The operating system provides memory only for rows that are written.
        self.table = torch.zeros(self.first_node + nodes, weight.shape[1], dtype=weight.dtype)
        self.known: Mask = np.zeros(len(self.table), bool)
        node_title = trie.items[trie.child_low[trie.child_offsets[:-1]]]
        self._sequences = prompts.titles + TitleTokens.from_lists([prompts.suffix]) + said
        self._sequence = np.concatenate(
            [
                np.full(len(prompts.prefixes[0]), -1),
                np.full(suffix, items),
                items + 1 + np.arange(len(said)),
                np.arange(items),
                node_title,
            ]
        )
        self._place = np.concatenate(
            [
                np.arange(len(prompts.prefixes[0])),
                np.arange(suffix),
                said.lengths - 1,
                prompts.titles.lengths - 1,
                np.maximum(trie.depth - 1, 0),  # the root's row is never used
            ]
        )

    @property
    def prefix_rows(self) -> Ints:
        """Rows of the template's prefix."""
        return np.arange(len(self.prompts.prefixes[0]))

    @property
    def suffix_rows(self) -> Ints:
        """Rows of the template's suffix."""
        return np.arange(len(self.prompts.prefixes[0]), self.first_rating)

    @property
    def rating_rows(self) -> Ints:
        """Row of what is said of each rating, an unknown one first; none if nothing is said."""
        return np.arange(self.first_rating, self.first_end)

    @property
    def end_rows(self) -> Ints:
        """Row of each title's end, shape [items]."""
        return np.arange(self.first_end, self.first_node)

    def node_rows(self, trie: Trie) -> Ints:
        """Return the row of each node of a trie over some of the titles, shape [nodes]."""
        return self.first_node + same_nodes(trie, self.trie)

    def __call__(self, rows: Ints) -> torch.Tensor:
        """Return the states of rows, shape [..., hidden]; rows that are not known are read."""
        wanted = rows[~self.known[rows]]
        if len(wanted):
            self.read(np.unique(wanted))
        return self.table[torch.from_numpy(rows)].to(self.split.backbone.device)

    @torch.inference_mode()
    def read(self, rows: Ints | None = None) -> None:
        """Run the lower layers for rows that are not known yet (all if ``None``)."""
        rows = np.flatnonzero(~self.known) if rows is None else rows[~self.known[rows]]
        backbone = self.split.backbone
        prefix, template = self.prompts.prefixes[0], DynamicCache()
        ids = torch.tensor([prefix], device=backbone.device)
        states = self.split.lower(ids, past_key_values=template, use_cache=True)[0]
        self.table[: len(prefix)] = states.to(self.table)
        self.known[: len(prefix)] = True
        rows = rows[self._sequence[rows] >= 0]
        report, done = ProgressLines("read titles"), 0
        number, inverse, sizes = np.unique(
            self._sequence[rows], return_inverse=True, return_counts=True
        )
        rows = rows[np.argsort(inverse, kind="stable")]
        starts = np.cumsum(sizes) - sizes
        lengths = np.maximum.reduceat(self._place[rows], starts) + 1 if len(rows) else sizes
        for batch in _batches(lengths, READ_TOKENS.get(backbone.device.type, 4096)):
            inside = np.concatenate(
                [np.arange(s, s + n) for s, n in zip(starts[batch], sizes[batch], strict=True)]
            )
            self._read_batch(number[batch], lengths[batch], sizes[batch], rows[inside], template)
            done += len(batch)
            report(done, len(number))

    def _read_batch(
        self, sequences: Ints, lengths: Ints, sizes: Ints, rows: Ints, template: DynamicCache
    ) -> None:
        """Read some titles and keep the states of some of their positions.

        Args:
            sequences: the titles, shape [titles].
            lengths: number of tokens to read of each, shape [titles].
            sizes: number of rows of each, shape [titles].
            rows: rows to fill, in the order of the titles.
            template: keys and values of the prefix.
        """
        ids = np.zeros((len(sequences), lengths.max()), np.int64)
        for place, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
            ids[place, :length] = self._sequences[sequence][:length]
        states = self.split.lower(
            torch.from_numpy(ids).to(self.split.backbone.device),
            past_key_values=repeated(template, len(ids)),
            use_cache=True,
        )
        owner = torch.from_numpy(np.repeat(np.arange(len(ids)), sizes))
        position = torch.from_numpy(self._place[rows])
        self.table[torch.from_numpy(rows)] = states.to(self.table)[owner, position]
        self.known[rows] = True

    def extended(self, prompts: Prompts, trie: Trie) -> TitleStates:
        """Return a table with further titles, which are read now.

        Args:
            prompts: the larger catalogue's prompts; its first titles are those of this table.
            trie: the trie over all titles of the larger catalogue.
        """
        other = TitleStates(self.split, prompts, trie)
        rows = np.append(np.arange(self.first_node), other.node_rows(self.trie))
        other.table[torch.from_numpy(rows)], other.known[rows] = self.table, self.known
        if self.known.all():
            other.read()
        return other

    # -- files -----------------------------------------------------------------------------------

    def identity(self) -> str | None:
        """Return a name for these states: backbone, layers, number format, template and titles.

        ``None`` if the backbone's weights have no fingerprint.
        """
        backbone, prompts = self.split.backbone, self.prompts
        weights = backbone.fingerprint() or getattr(backbone.causal_lm.config, "_commit_hash", None)
        if weights is None:
            return None
        kind = backbone.device.type  # devices round differently
        facts = (weights, backbone.dtype_name, backbone.quantized, self.split.lower_layers)
        device = () if kind == "cpu" else (kind,)
        digest = hashlib.sha256(
            repr((*facts, *device, prompts.prefixes[0], prompts.suffix)).encode()
        )
        digest.update(prompts.titles.tokens.tobytes())
        digest.update(prompts.titles.offsets.tobytes())
        if prompts.ratings is not None:
            digest.update(prompts.ratings.tokens.tokens.tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the table to a file; it must be complete."""
        assert self.known.all()
        with replacing(path) as partial:
            save_file({"states": self.table}, partial)

    def load(self, path: Path) -> None:
        """Memory-map a table that :meth:`save` wrote for the same backbone and titles.

        Raises:
            RunError: the file is damaged or belongs to another catalogue.
        """
        try:
            table = load_file(path)["states"]
        except (OSError, KeyError, SafetensorError) as error:
            raise RunError(f"{path} cannot be read ({error}). Train the run again.") from None
        if table.shape != self.table.shape:
            raise RunError(
                f"{path} holds states of shape {tuple(table.shape)}, but the run's titles need "
                f"{tuple(self.table.shape)}. Train the run again."
            )
        self.table = table.to(self.table.dtype)
        self.known[:] = True


def prepare_states(states: TitleStates) -> None:
    """Fill a table: from the cache of an earlier run, or by reading all titles.

    The cache is the folder ``title-states`` in GenRec's cache folder. Very large catalogues are
    not read here (see :data:`LAZY_ITEMS`).
    """
    titles = len(states.prompts.titles)
    if titles > LAZY_ITEMS:
        return
    name = states.identity()
    path = cache_dir() / "title-states" / f"{name}.safetensors"
    cached = broadcast_from_main(name is not None and _load(states, path))
    together = states.split.backbone.sharded  # then no process can read alone
    if not cached and (is_main() or together):
        with stage(f"reading {titles:,} titles"):
            states.read()
        if name is not None and is_main():
            _keep(states, path)
    broadcast_from_main(None)  # the other processes wait for the file
    if not states.known.all() and not (name is not None and _load(states, path)):
        states.read()


def _load(states: TitleStates, path: Path) -> bool:
    try:
        states.load(path)
    except RunError:
        return False
    with suppress(OSError):
        path.touch()  # the cache keeps what was used lately
    return True


def _keep(states: TitleStates, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        states.save(path)
        _make_room(path)
    except OSError as error:
        log.warning("title states cannot be cached in %s (%s)", path.parent, error)


def _make_room(newest: Path) -> None:
    """Delete the title states that were not used for longest, until the cache is small enough."""
    files = [(file.stat(), file) for file in newest.parent.glob("*.safetensors")]
    left = sum(facts.st_size for facts, _ in files)
    for facts, file in sorted(files, key=lambda each: each[0].st_mtime):
        if left <= CACHED_BYTES:
            return
        if file != newest:
            file.unlink(missing_ok=True)
            left -= facts.st_size


def _batches(lengths: Ints, budget: int) -> Iterator[Ints]:
    """Group titles of similar length so that no batch exceeds the budget of tokens."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, budget // int(lengths[order[start]]))
        yield order[start:stop]
        start = stop
