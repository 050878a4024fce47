"""The ranker: an immutable combination of a language model, a catalogue and a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import polars as pl
import torch

from genrec.arrays import Floats, Floats32, Ints, Items, Mask
from genrec.collaborative.prior import Prior
from genrec.collaborative.words import FIRST_WEIGHT, WordIndex, heard
from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories
from genrec.errors import ConfigError, DataError
from genrec.language_model.backbone import Backbone
from genrec.language_model.decisions import Targets, locate_targets
from genrec.language_model.devices import scored_rows
from genrec.language_model.layouts import Layout, Supervised, TitleLayout
from genrec.language_model.likelihood import CatalogueLikelihood, title_log_probs
from genrec.language_model.prior_mass import cumulative_mass
from genrec.language_model.prompts import Prompts
from genrec.language_model.title_index import TitleIndex
from genrec.language_model.title_states import TitleStates
from genrec.model.candidates import candidate_mask, check_search
from genrec.model.reading import make_layout, make_prompts, title_settings
from genrec.processes import one_blas_thread
from genrec.recommender import Influence, TopK, row_blocks
from genrec.search.exact import SearchResult, search
from genrec.search.explain import hidden_log_probs
from genrec.search.free_beams import free_beams
from genrec.search.frontier import SearchOptions
from genrec.search.key_values import KeyValues, read_prompt
from genrec.search.prior_alone import adds_nothing, prior_lists, prior_log_probs


@dataclass(frozen=True, eq=False)
class Ranker:
    """The finished parts with which a fitted :class:`~genrec.GenRec` ranks items.

    A ranker always has all of its parts, and its methods do not change it. :meth:`with_items` and
    :meth:`without_items` return another ranker that shares the weights.

    Attributes:
        config: the resolved settings, without ``auto``.
        backbone: the language model with its adapter merged in.
        catalogue: the items, by index.
        index: the titles in the form that the model reads and writes, and the trie of the titles
            that can be recommended.
        prompts: turns histories into tokens.
        prior: the distribution that the language model corrects, or ``None``.
        likelihood: computes log p(item | history) over the trie.
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
        states: TitleStates | None = None,
    ) -> Self:
        """Build a ranker from its parts; the likelihood gets new weights.

        Args:
            config: the resolved settings.
            backbone: the language model.
            catalogue: the items.
            index: the titles of the catalogue and their trie.
            prior: the fitted prior, or ``None``.
            states: the title states, if the configuration has context layers.
        """
        prompts = make_prompts(config, backbone, index)
        likelihood = CatalogueLikelihood(
            make_layout(backbone, index, prompts, states),
            has_prior=prior is not None,
            rank=config.residual_rank,
            lm_weight=1.0 if config.lm_weight == "auto" else config.lm_weight,
            temperature=config.loss_temperature,
        ).eval()
        return cls(config, backbone, catalogue, index, prompts, prior, likelihood)

    def renewed(self) -> Ranker:
        """Build the ranker again after a change of the backbone, such as a new adapter.

        The likelihood gets new weights.
        """
        parts = (self.config, self.backbone, self.catalogue, self.index, self.prior, self.states)
        return Ranker.assemble(*parts)

    @property
    def layout(self) -> Layout:
        """The positions that the language model runs for histories, titles and nodes."""
        return self.likelihood.layout

    @property
    def states(self) -> TitleStates | None:
        """The table of title states; ``None`` if all layers read all tokens."""
        return self.layout.states if isinstance(self.layout, TitleLayout) else None

    def recommend_batch(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Mask | None = None,
        options: SearchOptions | None = None,
    ) -> TopK:
        """Recommend for each history, in batches; see :meth:`search` for the arguments.

        Returns:
            Item indices and scores log p(item | history), both [rows, k].
        """
        by_row = candidates is not None and candidates.shape[:-1] == (len(histories),)
        parts = []
        for rows in row_blocks(len(histories), len(self.catalogue)):
            part = histories.select(rows)
            mask = candidates[rows] if candidates is not None and by_row else candidates
            limits: dict[str, Any] = {"exclude_seen": exclude_seen, "candidates": mask}
            parts.append(self.search(part, k, **limits, options=options))
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
        """Search the k most probable items for each history; sessions and the service call it.

        Args:
            histories: one row per user, with indices of the catalogue.
            k: number of items per row.
            exclude_seen: leave out the items of each history.
            candidates: mask of the items that may be recommended, bool [items] or [rows, items].
            known: cached keys and values of each row from an earlier search, or ``None``.
            keep: return the keys and values of the prompts.
            options: options of the search; exact search if ``None``.

        Returns:
            The result of :func:`genrec.search.exact.search`.

        Raises:
            ConfigError: ``k`` or the beam width is below 1.
            DataError: ``candidates`` does not have the shape of the catalogue.
        """
        check_search(k, options)
        candidates = candidate_mask(histories, len(self.catalogue), exclude_seen, candidates)
        known = known or [None] * len(histories)
        if adds_nothing(self.likelihood) and (options is None or options.beam is None):
            log_probs = prior_log_probs(self.likelihood, self._prior_probabilities(histories))
            started = [each or self._template for each in known if keep]
            return prior_lists(log_probs, k, candidates, started)
        prompts = [self.prompt(row, histories.ratings_of(at)) for at, row in enumerate(histories)]
        if self.config.decoding == "beam":
            beams, offered = self.config.beams, self.index.offered
            return free_beams(self.backbone, self.prompts, prompts, beams, k, offered, candidates)
        return search(
            self.likelihood,
            prompts,
            k,
            probabilities=self._prior_probabilities(histories),
            candidates=candidates,
            known=[each or self._template for each in known],
            keep=keep,
            options=options,
        )

    def prompt(self, history: Items, ratings: Floats32 | None = None) -> list[int]:
        """Return the ids of the prompt's positions (see :mod:`genrec.language_model.layouts`).

        Args:
            history: item indices, oldest first.
            ratings: the rating of each item, NaN where unknown, if the prompt says ratings.
        """
        return self.layout.prompts.encode(*self._shown(history, ratings))

    def prompt_text(self, history: Items, ratings: Floats32 | None = None) -> str:
        """Return the prompt for a history as text; see :meth:`prompt`."""
        tokens = self.prompts.encode(*self._shown(history, ratings))
        return str(self.backbone.tokenizer.decode(tokens))

    def _shown(self, history: Items, ratings: Floats32 | None) -> tuple[Items, Ints | None]:
        """Return the items in the prompt of a history, and the levels of their ratings."""
        items = self.recent(history)
        said = None if ratings is None else ratings[len(history) - len(items) :]
        return items, self.layout.prompts.levels(said, len(items))

    def recent(self, history: Items) -> Items:
        """Return the most recent items of a history, those that fit into the prompt."""
        return self.layout.prompts.recent(history, self.config.history_length)

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """Return log p(target | history) over the whole catalogue, in nats, float64 [rows].

        Args:
            histories: one row per user.
            targets: the item index of each row's target, int32 [rows].

        Raises:
            DataError: A target was removed from the catalogue.
        """
        sizes = self.layout.prompts.item_tokens
        lengths = [sizes[self.recent(row)].sum() for row in histories]
        order = np.argsort(lengths, kind="stable")  # rows of like length need little padding
        found = np.empty(len(histories))
        size = scored_rows(self.backbone.device)
        for start in range(0, len(histories), size):
            rows = order[start : start + size]
            found[rows] = self._score(histories.select(rows), targets[rows])
        return found

    def influences(
        self, history: Histories, targets: Sequence[int], known: KeyValues | None = None
    ) -> list[list[Influence]]:
        """Compute how each history item changes the log-probability of some targets.

        The effect of an item is log p(target | history) minus the same log-probability with the
        item hidden from the language model and left out of the prior's history (see
        :mod:`genrec.search.explain`).

        Args:
            history: the only row.
            targets: indices of the items to explain.
            known: cached keys and values of the history's prompt, or ``None``.

        Returns:
            For each target, the effects in nats, strongest first. Items that are too old to be in
            the prompt are left out.

        Raises:
            DataError: A target was removed from the catalogue.
        """
        wanted = np.array(targets, np.int32)
        if not len(wanted):
            return []
        self.check_offered(wanted)
        shown, effects = self.recent(history[0]), self._effects(history, wanted, known)
        ids, titles = self.catalogue.item_ids, self.catalogue.titles
        return [
            [
                Influence(ids[shown[i]], titles[shown[i]], float(effect[i]))
                for i in np.argsort(-np.abs(effect), kind="stable")
            ]
            for effect in effects.T
        ]

    def _effects(self, history: Histories, wanted: Items, known: KeyValues | None) -> Floats:
        """Return the effect of each item in the prompt on each target, [shown, wanted]."""
        prompts, items = self.layout.prompts, history[0].tolist()
        shown, levels = self._shown(history[0], history.ratings_of(0))
        spans = [(0, 0), *prompts.spans(shown, levels)]
        places = range(len(items) - len(shown), len(items))
        rows = [items, *([*items[:place], *items[place + 1 :]] for place in places)]
        words = None if history.words is None else [*history.words] * len(rows)
        sums = self._cumulative_prior(Histories.from_lists(rows, words=words))
        ids = prompts.encode(shown, levels)
        read = read_prompt(self.likelihood, ids, known or self._template)
        log_probs = hidden_log_probs(self.likelihood, read, spans, wanted, sums)
        return cast(Floats, log_probs[0] - log_probs[1:])

    @cached_property
    def _template(self) -> KeyValues:
        """Keys and values of the beginning that all prompts share."""
        return read_prompt(self.likelihood, self.layout.prompts.prefixes[0])

    def _cumulative_prior(self, histories: Histories) -> Floats | None:
        q = self._prior_probabilities(histories)
        return None if q is None else cumulative_mass(self.index.trie, q)

    def _prior_probabilities(self, histories: Histories) -> Floats | None:
        asked = any(histories.words or ())
        if self.prior is None:
            if asked:
                raise ConfigError("words need a prior, but this model has prior=none.")
            return None
        with one_blas_thread():
            q = self.prior.probabilities(histories)
        return heard(q, histories, self.word_index, self.words_weight) if asked else q

    @cached_property
    def word_index(self) -> WordIndex:
        """The words of the items, to which those of a request are compared."""
        return WordIndex(self.catalogue, self.backbone.word_vectors)

    @property
    def words_weight(self) -> float:
        """Weight of the words of a request."""
        return FIRST_WEIGHT if (own := self.config.words_weight) == "auto" else own

    def check_offered(self, items: Items) -> None:
        """Refuse items that were removed from the catalogue, with a DataError."""
        for item in items[~self.index.offered[items]].tolist():
            raise DataError(
                f"{self.catalogue.titles[item]!r} was removed from the catalogue and has no "
                "probability; restore it with GenRec.restore_items in Python."
            )

    @torch.inference_mode()
    def _score(self, histories: Histories, targets: Items) -> Floats:
        if adds_nothing(self.likelihood):
            self.check_offered(targets)
            log_probs = prior_log_probs(self.likelihood, self._prior_probabilities(histories))
            return log_probs[np.arange(len(targets)), targets]
        states, located = self.decisions(histories, targets)
        return title_log_probs(self.likelihood, states, located).cpu().double().numpy()

    def decisions(self, histories: Histories, targets: Items) -> tuple[torch.Tensor, Targets]:
        """Return the hidden state at each decision of the targets, and the decisions."""
        self.check_offered(targets)
        parts = []
        for row, target in enumerate(targets):
            items, levels = self._shown(histories[row], histories.ratings_of(row))
            if levels is not None:
                levels = np.append(levels, 0)  # the target's rating is not known
            parts.append(Supervised(np.append(items, target), 1, levels=levels))
        states = self.likelihood.decision_states(self.layout.sequences(parts))
        sums = self._cumulative_prior(histories)
        return states, locate_targets(self.index.trie, targets, sums)

    def with_items(
        self,
        titles: Sequence[str],
        item_ids: Sequence[str],
        *,
        metadata: pl.DataFrame | None = None,
        like: Sequence[int | None],
    ) -> Ranker:
        """Return a ranker with new items appended; see :meth:`genrec.GenRec.add_items`.

        The short forms of the other titles do not change.

        Args:
            titles: titles of the new items.
            item_ids: ids of the new items.
            metadata: one row per new item.
            like: for each new item the index of a known item that it resembles, or ``None``.

        Raises:
            DataError: A title or an id is empty or taken.
        """
        catalogue = self.catalogue.extended(titles, item_ids, metadata)
        index = self.index.add(
            self.backbone.tokenizer,
            catalogue.titles[len(self.catalogue) :],
            **title_settings(self.config, self.backbone),
        )
        prior = None if self.prior is None else self.prior.extended(like, catalogue)
        return self._over(catalogue, index, prior)

    def without_items(self, items: Sequence[int]) -> Ranker:
        """Return a ranker that does not recommend some items; histories may still contain them."""
        return self._over(self.catalogue, self.index.offer(items, False), self.prior)

    def with_items_again(self, items: Sequence[int]) -> Ranker:
        """Return a ranker that recommends removed items again."""
        return self._over(self.catalogue, self.index.offer(items, True), self.prior)

    def _over(self, catalogue: Catalogue, index: TitleIndex, prior: Prior | None) -> Ranker:
        prompts, states = make_prompts(self.config, self.backbone, index), self.states
        if states is not None and len(index.texts) > len(self.index.texts):
            states = states.extended(prompts, index.whole_trie())
        layout = make_layout(self.backbone, index, prompts, states)
        return replace(
            self,
            catalogue=catalogue,
            index=index,
            prompts=prompts,
            prior=prior,
            likelihood=self.likelihood.over(layout),
        )
