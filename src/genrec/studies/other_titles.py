"""Other titles for the same items: with metadata, permuted, meaningless, or ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genrec.arrays import Floats32, Ints
from genrec.data.dataset import Dataset
from genrec.errors import DataError
from genrec.language_model.titles import tell_apart

METADATA = ("genres", "genre", "categories", "category", "brand")
"""Columns that ``metadata`` adds to titles, the most telling ones first."""
VALUES = 4
"""Most values of one column in a title."""
LAST = 2
"""Most steps of a category path in a title."""
LEVELS, CODES = 3, 64
"""Numbers in a semantic id, and clusters at each level."""
DIMENSIONS = 64
"""Dimensions of the title vectors that semantic ids are made from."""


def _as_they_are(data: Dataset, seed: int) -> list[str]:
    return data.catalogue.titles


def _with_metadata(data: Dataset, seed: int) -> list[str]:
    """Return titles with genres, categories and brand in brackets."""
    table = data.catalogue.metadata
    columns = [name for name in METADATA if name in table.columns]
    if not columns:
        raise DataError(
            f"{data.name} has no metadata for titles; its items need one of the columns "
            f"{', '.join(METADATA)}."
        )
    texts = [_values(table[name].to_list()) for name in columns]
    titles = [
        f"{title} [{'; '.join(filter(None, parts))}]" if any(parts) else title
        for title, *parts in zip(data.catalogue.titles, *texts, strict=True)
    ]
    return tell_apart(titles, set())


def _values(column: Sequence[Any]) -> list[str]:
    """Return the first values of each cell as text; lists are written with ``|``."""
    return [", ".join(dict.fromkeys(_split(cell))) for cell in column]


def _split(cell: Any) -> list[str]:
    if cell is None:
        return []
    if isinstance(cell, str) and ">" in cell:  # a path: its end says most
        return [part.strip() for part in cell.split(">")][1:][-LAST:]
    if isinstance(cell, str):
        parts: list[Any] = cell.split("|")
    else:
        parts = list(cell) if isinstance(cell, list | tuple) else [cell]  # a number stays whole
    while parts and isinstance(parts[0], list | tuple):  # a list of paths: the first one counts
        parts = list(parts[0])
    return [str(part).strip() for part in parts][:VALUES]


def _permuted(data: Dataset, seed: int) -> list[str]:
    """Give each item the title of another one: the same tokens, but no meaning."""
    titles = data.catalogue.titles
    return [titles[item] for item in np.random.default_rng(seed).permutation(len(titles))]


def _random_words(data: Dataset, seed: int) -> list[str]:
    """Return titles of as many words as the real ones, drawn from all words of the catalogue."""
    rng = np.random.default_rng(seed)
    rows = [title.split() for title in data.catalogue.titles]
    words = rng.permutation([word for row in rows for word in row]).tolist()
    ends = np.cumsum([len(row) for row in rows]).tolist()
    drawn = [words[end - len(row) : end] for end, row in zip(ends, rows, strict=True)]
    return tell_apart([" ".join(title) or "?" for title in drawn], set())


def _sequential(data: Dataset, seed: int) -> list[str]:
    return [str(item + 1) for item in range(len(data.catalogue))]


def _shuffled(data: Dataset, seed: int) -> list[str]:
    numbers = np.random.default_rng(seed).permutation(len(data.catalogue)) + 1
    return [str(number) for number in numbers.tolist()]


def _semantic(data: Dataset, seed: int) -> list[str]:
    """Return semantic ids such as ``17 4 52``: clusters of title vectors, coarse to fine.

    The clusters of each level are those of what the levels before leave over (residual k-means, a
    simple stand-in for the residual-quantised autoencoder of TIGER, arXiv 2305.05065). A last
    number tells apart items with the same clusters.
    """
    vectors = title_vectors(data, seed)
    codes = np.stack(list(_residual_clusters(vectors, seed)), axis=1)
    seen: Counter[tuple[int, ...]] = Counter()
    ids = []
    for row in map(tuple, codes.tolist()):
        ids.append(" ".join(map(str, (*row, seen[row]))))
        seen[row] += 1
    return ids


def _residual_clusters(vectors: Floats32, seed: int) -> list[Ints]:
    from sklearn.cluster import MiniBatchKMeans

    found = []
    for level in range(LEVELS):
        clusters = min(CODES, len(vectors))
        fitted = MiniBatchKMeans(clusters, n_init=3, random_state=seed + level).fit(vectors)
        found.append(fitted.labels_.astype(np.int64))
        vectors = vectors - fitted.cluster_centers_[fitted.labels_].astype(np.float32)
    return found


def title_vectors(data: Dataset, seed: int) -> Floats32:
    """Return a vector for each title: its words' TF-IDF, reduced by a singular value decomposition.

    Returns:
        Unit vectors, float32 [items, dimensions].
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    texts = data.catalogue.titles
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+").fit_transform(texts)
    size = min(DIMENSIONS, *(side - 1 for side in words.shape))
    reduced = TruncatedSVD(max(1, size), random_state=seed).fit_transform(words)
    return np.asarray(normalize(reduced), np.float32)


TITLES: Mapping[str, Callable[[Dataset, int], list[str]]] = {
    "real": _as_they_are,
    "metadata": _with_metadata,
    "permuted": _permuted,
    "random-words": _random_words,
    "sequential": _sequential,
    "shuffled": _shuffled,
    "semantic": _semantic,
}
"""Functions from training data and a seed to the titles of all items, by name."""
