"""Sessions: histories that grow item by item and cache their keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from cachetools import LRUCache

from genrec.arrays import Mask
from genrec.collaborative.words import checked_words
from genrec.data.catalogue import By
from genrec.data.histories import Histories
from genrec.errors import UnknownItemError
from genrec.model.ranker import Ranker
from genrec.recommender import Influence, Recommendation, recommendations
from genrec.search.key_values import KeyValues

_numbers = count()


class KeyValueStore(LRUCache[int, KeyValues]):
    """A cache of the keys and values of sessions.

    The cache is limited in bytes and drops the least recently used entries first.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda known: known.nbytes)


class Session:
    """The history of one user, with its keys and values in a cache.

    Recommendations are the same as those of ``model.recommend`` for the same history. If the cache
    has dropped the keys and values, the next call computes the whole prompt again.

    A session keeps the weights with which it was opened, because cached keys and values belong to
    them. It follows changes of the catalogue, but not a second ``fit`` of the model.
    """

    def __init__(
        self,
        ranker: Ranker,
        store: KeyValueStore,
        latest: Callable[[], Ranker],
        items: Sequence[int] = (),
        ratings: Sequence[float | None] | None = None,
        *,
        excludes_seen: bool = True,
    ) -> None:
        """Open a session.

        Args:
            ranker: the ranker that computes the recommendations.
            store: the cache of keys and values.
            latest: returns the model's current ranker, whose catalogue may have changed.
            items: item indices of the history, oldest first.
            ratings: the user's rating of each item, ``None`` where unknown.
            excludes_seen: whether lists leave out the history, unless a call says otherwise.
        """
        self._excludes_seen = excludes_seen
        self._current, self._store, self._latest = ranker, store, latest
        self._key, self._items = next(_numbers), list(items)
        none: list[float | None] = [None] * len(self._items)
        self._ratings = none if ratings is None or len(ratings) == 0 else list(ratings)

    @property
    def _ranker(self) -> Ranker:
        latest = self._latest()
        if latest.backbone is self._current.backbone:
            self._current = latest
        return self._current

    @property
    def history(self) -> list[str]:
        """Titles of the history, oldest first."""
        return [self._ranker.catalogue.titles[item] for item in self._items]

    def add(self, entry: str, *, rating: float | None = None, by: By = "either") -> None:
        """Append an item to the history.

        Args:
            entry: title or id of the item.
            rating: the user's rating, if known; it counts if the model was trained with ratings.
            by: whether ``entry`` is a title, an id or either.

        Raises:
            UnknownItemError: The item is not in the catalogue, or ``entry`` names two items.
        """
        self._items.append(self._ranker.catalogue.index_of(entry, by=by))
        self._ratings.append(rating)

    def remove(self, entry: str, *, by: By = "either") -> None:
        """Remove the latest occurrence of an item from the history.

        Args:
            entry: title or id of the item.
            by: whether ``entry`` is a title, an id or either.

        Raises:
            UnknownItemError: The history does not contain the item.
        """
        item = self._ranker.catalogue.index_of(entry, by=by)
        if item not in self._items:
            raise UnknownItemError(
                f"{entry!r} is not in this session's history, so it cannot be removed."
            )
        place = len(self._items) - 1 - self._items[::-1].index(item)
        del self._items[place], self._ratings[place]

    def recommend(
        self,
        k: int = 10,
        *,
        words: str | None = None,
        exclude_seen: bool | None = None,
        candidates: Mask | None = None,
    ) -> list[Recommendation]:
        """Recommend the k most probable next items; see :meth:`genrec.GenRec.recommend`."""
        ranker = self._ranker
        found = ranker.search(
            self._histories(words),
            k,
            exclude_seen=self._excludes_seen if exclude_seen is None else exclude_seen,
            candidates=candidates,
            known=[self._store.get(self._key)],
            keep=True,
        )
        known = found.key_values[0]
        if known.nbytes <= self._store.maxsize:
            self._store[self._key] = known
        return recommendations(ranker.catalogue, found.items[0], found.log_probs[0])

    def _histories(self, words: str | None) -> Histories:
        return Histories.from_lists([self._items], [self._ratings], [checked_words(words)])

    def explain(
        self, entry: str, *, words: str | None = None, by: By = "either"
    ) -> list[Influence]:
        """Compute how each history item changes an item's log-probability, strongest first.

        Args:
            entry: title or id of the item to explain.
            words: the words of the request.
            by: whether ``entry`` is a title, an id or either.

        Returns:
            The effects in nats; see :meth:`genrec.GenRec.explain`.
        """
        ranker = self._ranker
        target = ranker.catalogue.index_of(entry, by=by)
        known = self._store.get(self._key)
        return ranker.influences(self._histories(words), [target], known)[0]

    def close(self) -> None:
        """Remove the keys and values of this session from the cache now."""
        self._store.pop(self._key, None)
