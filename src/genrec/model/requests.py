"""Requests to a fitted model: recommendations, sessions and explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genrec.arrays import Floats, Items, Mask
from genrec.collaborative.words import checked_words
from genrec.data.catalogue import By
from genrec.data.histories import Histories
from genrec.data.statistics import excludes_seen
from genrec.errors import ConfigError
from genrec.model.changeable import ChangeableModel
from genrec.model.ranker import Ranker
from genrec.model.session import KeyValueStore, Session
from genrec.recommender import Influence, Recommendation, TopK, recommendations
from genrec.search.frontier import SearchOptions


def words_effects(ranker: Ranker, history: Histories, targets: Sequence[int]) -> list[float]:
    """Return how the words of a request change the log-probability of some items, in nats.

    Args:
        ranker: the ranker.
        history: the only row, with words.
        targets: item indices.
    """
    rows, wanted = history.select([0] * len(targets)), np.array(targets, np.int32)
    plain = ranker.log_likelihood(replace(rows, words=None), wanted)
    effects: list[float] = (ranker.log_likelihood(rows, wanted) - plain).tolist()
    return effects


class RequestModel(ChangeableModel):
    """A fitted model that answers requests.

    Attributes:
        session_bytes: maximum memory in bytes for the cached keys and values of all sessions
            together; set it before the first session.
    """

    session_bytes: int = 2**30
    _store: KeyValueStore | None = None

    @property
    def item_counts(self) -> Floats | None:
        """Training interactions of each item, float [items]; ``None`` if there is no prior."""
        return None if self.ranker.prior is None else self.ranker.prior.item_counts

    @property
    def excludes_seen(self) -> bool:
        """Whether lists leave out the history's items, unless a call says otherwise.

        They do if the training histories seldom repeat items.
        """
        return excludes_seen(self.info.get("data", {}).get("repeat_share", 0.0))

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        ratings: Sequence[float | None] | None = None,
        words: str | None = None,
        by: By = "either",
        exclude_seen: bool | None = None,
        candidates: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> list[Recommendation]:
        """Recommend the k most probable next items for a history.

        Args:
            history: titles or item ids, oldest first.
            k: number of recommendations; there are fewer if fewer candidates are left.
            ratings: the user's rating of each history item, ``None`` where unknown; they count if
                the model was trained with ``ratings``.
            words: what the user asks for, such as ``"a light comedy from the nineties"``. Items
                whose title, metadata or decade are like the words become likelier.
            by: whether ``history`` holds titles (``"title"``), ids (``"id"``) or ``"either"``.
            exclude_seen: leave out the items of the history; :attr:`excludes_seen` if ``None``.
            candidates: mask of the items that may be recommended, bool [items]; see
                :meth:`Catalogue.mask`.
            exact: exact search; ``False`` uses a beam search, which is faster for very large
                catalogues but may miss items.
            width: nodes of the trie that the beam search keeps per level.

        Returns:
            Recommendations with rank, title, id and probability, best first.

        Raises:
            UnknownItemError: An entry of the history is not in the catalogue, or names two items.
            ConfigError: ``k`` or ``width`` is below 1, or decoding=beam cannot do what is asked.
            DataError: ``candidates`` has another shape.
            NotFittedError: The model is neither fitted nor loaded.
        """
        if words or not exact:
            self._check_decoding("Words and a search of another width need")
        top = self.recommend_batch(
            self._histories(history, ratings, words, by),
            k,
            exclude_seen=self.excludes_seen if exclude_seen is None else exclude_seen,
            candidates=candidates,
            exact=exact,
            width=width,
        )
        return recommendations(self.catalogue, top.items[0], top.scores[0])

    def _check_decoding(self, what: str) -> None:
        if self.ranker.config.decoding == "beam":
            raise ConfigError(f"{what} decoding=exact, but this model has decoding=beam.")

    def _histories(
        self,
        history: Sequence[str],
        ratings: Sequence[float | None] | None,
        words: str | None,
        by: By,
    ) -> Histories:
        items, asked = self.catalogue.indices(history, by=by), checked_words(words)
        said = None if ratings is None else [ratings]
        return Histories.from_lists([items], said, None if asked is None else [asked])

    def recommend_batch(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> TopK:
        """Recommend for many histories at once; see :meth:`recommend`.

        Args:
            histories: one row per user, with item indices of :attr:`catalogue`.
            k: number of recommendations per row.
            exclude_seen: leave out the items of each history.
            candidates: mask of the items that may be recommended, bool [items] or [rows, items].
            exact: exact search instead of a beam search.
            width: nodes of the trie that the beam search keeps per level.

        Returns:
            Item indices, -1 where fewer than k candidates are left, and scores log p(item |
            history), both [rows, k].
        """
        return self.ranker.recommend_batch(
            histories,
            k,
            exclude_seen=exclude_seen,
            candidates=candidates,
            options=None if exact else SearchOptions(beam=width),
        )

    @property
    def has_likelihood(self) -> bool:
        """Whether the lists follow a distribution over the catalogue; free beams do not."""
        return self.ranker.config.decoding != "beam"

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """Return log p(target | history) over the whole catalogue, in nats, float64 [rows].

        Args:
            histories: one row per user.
            targets: the item index of each row's target, int32 [rows].

        Raises:
            DataError: A target was removed from the catalogue.
        """
        return self.ranker.log_likelihood(histories, targets)

    def session(
        self,
        history: Sequence[str] = (),
        *,
        ratings: Sequence[float | None] | None = None,
        by: By = "either",
    ) -> Session:
        """Open a session: a history that grows item by item and caches its keys and values.

        Each new item costs only the computation of its own title.

        Args:
            history: titles or item ids, oldest first.
            ratings: the user's rating of each history item, ``None`` where unknown.
            by: whether ``history`` holds titles, ids or either.

        Raises:
            ConfigError: The model has decoding=beam.
            UnknownItemError: An entry of the history is not in the catalogue, or names two items.
        """
        ranker = self.ranker
        self._check_decoding("A session needs")
        if self._store is None:
            self._store = KeyValueStore(self.session_bytes)
        items = self.catalogue.indices(history, by=by)
        seen = self.excludes_seen
        return Session(ranker, self._store, lambda: self.ranker, items, ratings, excludes_seen=seen)

    def explain(
        self,
        history: Sequence[str],
        entries: Sequence[str],
        *,
        ratings: Sequence[float | None] | None = None,
        words: str | None = None,
        by: By = "either",
    ) -> list[list[Influence]]:
        """Compute how each history item changes the log-probability of some items.

        Args:
            history: titles or item ids, oldest first.
            entries: titles or ids of the items to explain.
            ratings: the user's rating of each history item, ``None`` where unknown.
            words: the words of the request; :meth:`words_effects` tells their own effect.
            by: whether both hold titles, ids or either.

        Returns:
            For each entry, the effects of the history items in nats, strongest first; see
            :meth:`genrec.model.ranker.Ranker.influences`.

        Raises:
            UnknownItemError: An entry is not in the catalogue, or names two items.
        """
        rows = self._histories(history, ratings, words, by)
        return self.ranker.influences(rows, self.catalogue.indices(entries, by=by))

    def words_effects(
        self, history: Sequence[str], entries: Sequence[str], words: str, *, by: By = "either"
    ) -> list[float]:
        """Compute how the words of a request change the log-probability of some items.

        Args:
            history: titles or item ids, oldest first.
            entries: titles or ids of the items.
            words: the words.
            by: whether both hold titles, ids or either.

        Returns:
            For each entry, log p with the words minus log p without them, in nats.
        """
        rows = self._histories(history, None, words, by)
        return words_effects(self.ranker, rows, self.catalogue.indices(entries, by=by))

    def known_words(self, words: str) -> list[str]:
        """Return those of some words that are understood, by themselves or by a related word."""
        return self.ranker.word_index.known(words)

    def related_words(self, words: str) -> dict[str, str]:
        """Return the related words of words that few items hold, such as comedy for funny.

        A related word is one that many titles or metadata hold. It is found by the language model's
        embeddings, and counts like a word of the request.
        """
        return self.ranker.word_index.related(words)

    def prompt_text(
        self,
        history: Sequence[str],
        *,
        ratings: Sequence[float | None] | None = None,
        by: By = "either",
    ) -> str:
        """Return the prompt of a history, as the language model reads it.

        Args:
            history: titles or item ids, oldest first.
            ratings: the user's rating of each history item, ``None`` where unknown.
            by: whether ``history`` holds titles, ids or either.
        """
        one = self._histories(history, ratings, None, by)
        return self.ranker.prompt_text(one[0], one.ratings_of(0))
