"""A history that grows while its user looks on: each click costs one title, not the history."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Protocol

from cachetools import LRUCache

from genrec.arrays import Mask
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories
from genrec.errors import UnknownItemError
from genrec.recommender import Influence, Recommendation, recommendations
from genrec.search.exact import SearchResult
from genrec.search.key_values import KeyValues

_numbers = count()


class KeyValueStore(LRUCache[int, KeyValues]):
    """Keys and values of sessions, bounded in bytes; the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda known: known.nbytes)


class Searcher(Protocol):
    """What a session needs of a model."""

    @property
    def catalogue(self) -> Catalogue: ...

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool,
        among: Mask | None,
        known: Sequence[KeyValues | None],
        keep: bool,
    ) -> SearchResult: ...

    def influences(
        self, items: Sequence[int], targets: Sequence[int], known: KeyValues | None
    ) -> list[list[Influence]]: ...


class Session:
    """One user's history and, as long as there is room, its keys and values.

    Answers are those of ``model.recommend`` on the same history. When the store has dropped the
    keys and values of a session, its next answer costs a whole prompt again and nothing else.
    """

    def __init__(self, model: Searcher, store: KeyValueStore, history: Sequence[str] = ()) -> None:
        self._model, self._store, self._key = model, store, next(_numbers)
        self._items = [model.catalogue.index_of(entry) for entry in history]

    @property
    def history(self) -> list[str]:
        """Titles, oldest first."""
        return [self._model.catalogue.titles[item] for item in self._items]

    def add(self, entry: str) -> None:
        """Append an item, given by title or id.

        Raises:
            UnknownItemError: it is not in the catalogue.
        """
        self._items.append(self._model.catalogue.index_of(entry))

    def remove(self, entry: str) -> None:
        """Take the latest occurrence of an item out of the history.

        Raises:
            UnknownItemError: the history does not hold it.
        """
        item = self._model.catalogue.index_of(entry)
        if item not in self._items:
            raise UnknownItemError(f"{entry!r} is not in this session's history.")
        del self._items[len(self._items) - 1 - self._items[::-1].index(item)]

    def recommend(
        self, k: int = 10, *, exclude_seen: bool = True, among: Mask | None = None
    ) -> list[Recommendation]:
        """The k most probable next items; see :meth:`genrec.GenRec.recommend`."""
        found = self._model.search(
            Histories.from_lists([self._items]),
            k,
            exclude_seen=exclude_seen,
            among=among,
            known=[self._store.get(self._key)],
            keep=True,
        )
        known = found.key_values[0]
        if known.nbytes <= self._store.maxsize:
            self._store[self._key] = known
        return recommendations(self._model.catalogue, found.items[0], found.log_probs[0])

    def explain(self, entry: str) -> list[Influence]:
        """What moved an item's log-probability; see :meth:`genrec.GenRec.explain`."""
        target = self._model.catalogue.index_of(entry)
        return self._model.influences(self._items, [target], self._store.get(self._key))[0]

    def close(self) -> None:
        """Free the keys and values now, not when others need the room."""
        self._store.pop(self._key, None)
