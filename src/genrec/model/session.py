"""A history that grows while its user looks on: each click costs one title, not the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from cachetools import LRUCache

from genrec.arrays import Mask
from genrec.data.catalogue import By
from genrec.data.histories import Histories
from genrec.errors import UnknownItemError
from genrec.model.ranker import Ranker
from genrec.recommender import Influence, Recommendation, recommendations
from genrec.search.key_values import KeyValues

_numbers = count()


class KeyValueStore(LRUCache[int, KeyValues]):
    """Keys and values of sessions, bounded in bytes; the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda known: known.nbytes)


class Session:
    """One user's history and, as long as there is room, its keys and values.

    A session belongs to the weights it was opened with: it follows changes of the catalogue, and a
    model that is fitted again leaves it as it was, so that keys and values never meet other
    weights. Answers are those of ``model.recommend`` on the same history. When the store has
    dropped the keys and values of a session, its next answer costs a whole prompt again and
    nothing else.
    """

    def __init__(
        self,
        ranker: Ranker,
        store: KeyValueStore,
        latest: Callable[[], Ranker],
        items: Sequence[int] = (),
    ) -> None:
        """Open a session.

        Args:
            ranker: what answers.
            store: where keys and values are kept.
            latest: the model's ranker of the moment, whose catalogue may have changed.
            items: indices of the history, oldest first.
        """
        self._current, self._store, self._latest = ranker, store, latest
        self._key, self._items = next(_numbers), list(items)

    @property
    def _ranker(self) -> Ranker:
        latest = self._latest()
        if latest.backbone is self._current.backbone:
            self._current = latest
        return self._current

    @property
    def history(self) -> list[str]:
        """Titles, oldest first."""
        return [self._ranker.catalogue.titles[item] for item in self._items]

    def add(self, entry: str, *, by: By = "either") -> None:
        """Append an item, given by title or id.

        Raises:
            UnknownItemError: it is not in the catalogue, or the entry names two items.
        """
        self._items.append(self._ranker.catalogue.index_of(entry, by=by))

    def remove(self, entry: str, *, by: By = "either") -> None:
        """Take the latest occurrence of an item out of the history.

        Raises:
            UnknownItemError: the history does not hold it.
        """
        item = self._ranker.catalogue.index_of(entry, by=by)
        if item not in self._items:
            raise UnknownItemError(f"{entry!r} is not in this session's history.")
        del self._items[len(self._items) - 1 - self._items[::-1].index(item)]

    def recommend(
        self, k: int = 10, *, exclude_seen: bool = True, candidates: Mask | None = None
    ) -> list[Recommendation]:
        """The k most probable next items; see :meth:`genrec.GenRec.recommend`."""
        ranker = self._ranker
        found = ranker.search(
            Histories.from_lists([self._items]),
            k,
            exclude_seen=exclude_seen,
            candidates=candidates,
            known=[self._store.get(self._key)],
            keep=True,
        )
        known = found.key_values[0]
        if known.nbytes <= self._store.maxsize:
            self._store[self._key] = known
        return recommendations(ranker.catalogue, found.items[0], found.log_probs[0])

    def explain(self, entry: str, *, by: By = "either") -> list[Influence]:
        """What moved an item's log-probability; see :meth:`genrec.GenRec.explain`."""
        ranker = self._ranker
        target = ranker.catalogue.index_of(entry, by=by)
        return ranker.influences(self._items, [target], self._store.get(self._key))[0]

    def close(self) -> None:
        """Free the keys and values now, not when others need the room."""
        self._store.pop(self._key, None)
