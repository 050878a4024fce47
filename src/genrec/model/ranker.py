"""A language model, a catalogue and a prior as one whole that ranks items and never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import polars as pl
import torch

from genrec.arrays import Floats, Items, Mask
from genrec.collaborative.prior import Prior
from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories
from genrec.errors import ConfigError, DataError
from genrec.language_model.backbone import Backbone
from genrec.language_model.decisions import locate_targets
from genrec.language_model.likelihood import CatalogueLikelihood, title_log_probs
from genrec.language_model.prior_mass import cumulative_mass
from genrec.language_model.prompts import Prompts, build_prompts, end_token
from genrec.language_model.title_index import TitleIndex
from genrec.recommender import Influence, TopK
from genrec.search.exact import SearchResult, search
from genrec.search.explain import hidden_log_probs
from genrec.search.free_beams import as_lists, beam_titles
from genrec.search.frontier import SearchOptions
from genrec.search.key_values import KeyValues, read_prompt

SCORED_ROWS = 8
DENSE_CELLS = 2**24
"""Most entries of a rows x items table that one batch makes: 128 MiB of prior probabilities."""


@dataclass(frozen=True, eq=False)
class Ranker:
    """What a fitted :class:`~genrec.GenRec` ranks with.

    A ranker is always whole: there is none without a catalogue or weights. Its methods change
    nothing; :meth:`with_items` and :meth:`without_items` return another ranker that shares the
    weights.

    Attributes:
        config: the settings it was made with; nothing in them is ``auto`` any more.
        backbone: the language model, its adapter merged in.
        catalogue: the items, by index.
        index: their titles as the model reads and writes them, and the trie of those on offer.
        prompts: how a history becomes tokens.
        prior: the distribution that the language model corrects, or ``None``.
        likelihood: log p(item | history) over the trie.
    """

    config: Config
    backbone: Backbone
    catalogue: Catalogue
    index: TitleIndex
    prompts: Prompts
    prior: Prior | None
    likelihood: CatalogueLikelihood

    @classmethod
    def assemble(
        cls,
        config: Config,
        backbone: Backbone,
        catalogue: Catalogue,
        index: TitleIndex,
        prior: Prior | None,
    ) -> Self:
        """Put the parts together; the likelihood's own weights are fresh."""
        prompts = _prompts(config, backbone, index)
        likelihood = CatalogueLikelihood(
            backbone,
            index.trie,
            has_prior=prior is not None,
            rank=config.residual_rank,
            lm_weight=config.lm_weight,
            temperature=config.loss_temperature,
        ).eval()
        return cls(config, backbone, catalogue, index, prompts, prior, likelihood)

    def renewed(self) -> Ranker:
        """The same parts around the backbone as it is now, e.g. with an adapter to be trained.

        The likelihood's own weights are fresh.
        """
        parts = (self.config, self.backbone, self.catalogue, self.index, self.prior)
        return Ranker.assemble(*parts)

    # -- ranking ---------------------------------------------------------------------------------

    def recommend_batch(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Mask | None = None,
        options: SearchOptions | None = None,
    ) -> TopK:
        """Top-k for each history; scores are log p(item | history). See :meth:`search`."""
        rows = max(1, DENSE_CELLS // len(self.catalogue))
        parts = [
            self.search(
                histories.select(np.arange(start, min(start + rows, len(histories)))),
                k,
                exclude_seen=exclude_seen,
                candidates=candidates,
                options=options,
            )
            for start in range(0, max(1, len(histories)), rows)  # once for no histories at all
        ]
        return TopK(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.log_probs for part in parts]),
        )

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Mask | None = None,
        known: Sequence[KeyValues | None] = (),
        keep: bool = False,
        options: SearchOptions | None = None,
    ) -> SearchResult:
        """:func:`genrec.search.exact.search` for histories; sessions and servers call it.

        Args:
            candidates: items that may be recommended, shape [items] or [rows, items].
            known: keys and values that an earlier search for each row returned, if any.
            keep: return the prompts' keys and values.

        Raises:
            ConfigError: k or the beam width is below one.
            DataError: the candidates are of another catalogue.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        if options is not None and options.beam is not None and options.beam < 1:
            raise ConfigError(f"width must be at least 1, got {options.beam}.")
        candidates = self._candidates(histories, exclude_seen, candidates)
        prompts = [self.prompt(history) for history in histories]
        if self.config.decoding == "beam":
            return self._decode_beams(prompts, k, candidates)
        return search(
            self.likelihood,
            prompts,
            k,
            probabilities=None if self.prior is None else self.prior.probabilities(histories),
            candidates=candidates,
            known=[each or self._template for each in known or [None] * len(prompts)],
            keep=keep,
            options=options,
        )

    def prompt(self, history: Items) -> list[int]:
        """Tokens that the language model reads for a history."""
        return self.prompts.encode(self.recent(history))

    def recent(self, history: Items) -> Items:
        """The end of a history that a prompt shows."""
        return self.prompts.recent(history, self.config.history_length)

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """log p(target | history) over the whole catalogue, one value per row, in nats."""
        parts = [
            self._score(
                histories.select(np.arange(start, min(start + SCORED_ROWS, len(histories)))),
                targets[start : start + SCORED_ROWS],
            )
            for start in range(0, len(histories), SCORED_ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def influences(
        self, items: Sequence[int], targets: Sequence[int], known: KeyValues | None = None
    ) -> list[list[Influence]]:
        """For each target, what the items of a history did to its log-probability.

        An effect is log p(target | history) less what it is with that history item hidden from the
        language model and taken from the prior (see :mod:`genrec.search.explain`), in nats;
        strongest first. Items too old to be in the prompt are left out.

        Args:
            items: the history, oldest first.
            known: keys and values of the history's prompt, if there are.
        """
        wanted = np.array(targets, np.int32)
        if not len(wanted):
            return []
        self._check_offered(wanted)
        shown = self.recent(np.array(items, np.int32))
        effects = self._effects(list(items), shown, wanted, known)
        ids, titles = self.catalogue.item_ids, self.catalogue.titles
        return [
            [
                Influence(ids[shown[i]], titles[shown[i]], float(effect[i]))
                for i in np.argsort(-np.abs(effect), kind="stable")
            ]
            for effect in effects.T
        ]

    def _effects(
        self, items: list[int], shown: Items, wanted: Items, known: KeyValues | None
    ) -> Floats:
        """Effect of each shown item on each wanted one, shape [shown, wanted]."""
        ends = len(self.prompts.prefixes[0]) + np.cumsum([0, *self.prompts.titles.lengths[shown]])
        spans = [(0, 0), *zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
        older = len(items) - len(shown)
        rows = [items] + [
            [*items[:place], *items[place + 1 :]] for place in range(older, len(items))
        ]
        sums = self._cumulative_prior(Histories.from_lists(rows))
        prompt = self.prompts.encode(shown)
        read = read_prompt(self.likelihood, prompt, known or self._template)
        log_probs = hidden_log_probs(self.likelihood, read, spans, wanted, sums)
        return cast(Floats, log_probs[0] - log_probs[1:])

    @cached_property
    def _template(self) -> KeyValues:
        """Keys and values of what all prompts start with."""
        return read_prompt(self.likelihood, self.prompts.prefixes[0])

    def _candidates(
        self, histories: Histories, exclude_seen: bool, candidates: Mask | None
    ) -> Mask | None:
        size = len(self.catalogue)
        shapes = ((size,), (len(histories), size))
        if candidates is not None and candidates.shape not in shapes:
            raise DataError(
                f"candidates has shape {candidates.shape}, but the catalogue holds {size} items; "
                "make it with catalogue.mask(…)."
            )
        if candidates is not None:
            candidates = np.broadcast_to(candidates, (len(histories), size))
        if not exclude_seen:
            return candidates
        unseen = ~histories.seen(size)
        return unseen if candidates is None else unseen & candidates

    def _cumulative_prior(self, histories: Histories) -> Floats | None:
        if self.prior is None:
            return None
        return cumulative_mass(self.index.trie, self.prior.probabilities(histories))

    def _check_offered(self, items: Items) -> None:
        for item in items[~self.index.offered[items]].tolist():
            raise DataError(f"{self.catalogue.titles[item]!r} was removed: it has no probability.")

    def _decode_beams(
        self, prompts: list[list[int]], k: int, candidates: Mask | None
    ) -> SearchResult:
        lists = []
        for row, prompt in enumerate(prompts):
            found = beam_titles(self.backbone, self.prompts, prompt, self.config.beams)
            lists.append([pair for pair in found if candidates is None or candidates[row, pair[0]]])
        return SearchResult(*as_lists(lists, k), rounds=0, tokens=0, key_values=[])

    @torch.inference_mode()
    def _score(self, histories: Histories, targets: Items) -> Floats:
        self._check_offered(targets)
        prompts = [self.prompt(history) for history in histories]
        closed = [self.prompts.titles[item].tolist() for item in targets]
        width = max(len(p) + len(t) for p, t in zip(prompts, closed, strict=True))
        ids = np.zeros((len(prompts), width), np.int64)
        for row, (prompt, title) in enumerate(zip(prompts, closed, strict=True)):
            ids[row, : len(prompt) + len(title)] = [*prompt, *title]
        sums = self._cumulative_prior(histories)
        starts = np.array([len(prompt) for prompt in prompts])
        trie = self.index.trie
        located = locate_targets(trie, targets, np.arange(len(prompts)), starts, sums)
        hidden = self.backbone.hidden(torch.from_numpy(ids).to(self.backbone.device))
        return title_log_probs(self.likelihood, hidden, located).cpu().double().numpy()

    # -- other catalogues ------------------------------------------------------------------------

    def with_items(
        self,
        titles: Sequence[str],
        item_ids: Sequence[str],
        *,
        metadata: pl.DataFrame | None = None,
        like: Sequence[int | None],
    ) -> Ranker:
        """This ranker with further items, which keep the others' form; see ``GenRec.add_items``.

        Args:
            like: for each new item the index of a known one that the prior takes it for.

        Raises:
            DataError: a title or id is empty or taken.
        """
        catalogue = self.catalogue.extended(titles, item_ids, metadata)
        index = self.index.add(
            self.backbone.tokenizer,
            catalogue.titles[len(self.catalogue) :],
            **title_settings(self.config, self.backbone),
        )
        prior = None if self.prior is None else self.prior.extended(like)
        return self._over(catalogue, index, prior)

    def without_items(self, items: Sequence[int]) -> Ranker:
        """This ranker, recommending some items no longer; histories may still hold them."""
        return self._over(self.catalogue, self.index.offer(items, False), self.prior)

    def with_items_again(self, items: Sequence[int]) -> Ranker:
        """This ranker, recommending removed items again."""
        return self._over(self.catalogue, self.index.offer(items, True), self.prior)

    def _over(self, catalogue: Catalogue, index: TitleIndex, prior: Prior | None) -> Ranker:
        return replace(
            self,
            catalogue=catalogue,
            index=index,
            prompts=_prompts(self.config, self.backbone, index),
            prior=prior,
            likelihood=self.likelihood.over(index.trie),
        )


def _prompts(config: Config, backbone: Backbone, index: TitleIndex) -> Prompts:
    return build_prompts(
        backbone.tokenizer, index.titles, template=config.template, max_tokens=config.max_tokens
    )


def title_settings(config: Config, backbone: Backbone) -> dict[str, Any]:
    """How titles are shortened and closed: arguments of :meth:`TitleIndex.build`."""
    end = end_token(backbone.tokenizer)
    return {"form": config.titles, "limit": config.title_tokens, "end": end}
