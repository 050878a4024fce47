"""Ranking without the language model, where it adds nothing to its prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.arrays import Floats, Mask
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.prior_mass import LEAST_MASS, cumulative_mass
from genrec.language_model.trie import Trie
from genrec.recommender import top_k
from genrec.search.exact import SearchResult
from genrec.search.key_values import KeyValues

DECIMALS = 10
"""Digits of a log-probability that count. Sums along different paths differ in later ones, also
where the prior gives two items the same probability."""
CELLS = 2**20
"""Most rows times items whose paths are added up at once, which takes about 100 MiB."""


def adds_nothing(model: CatalogueLikelihood) -> bool:
    """Return whether p(item | history) depends on the prior alone."""
    return model.prior_weight is not None and model.lm_weight == 0.0


def prior_log_probs(model: CatalogueLikelihood, probabilities: Floats | None) -> Floats:
    """Return log p of every item, -inf for those that cannot be recommended, [rows, items].

    Args:
        model: a likelihood to which the language model :func:`adds_nothing`.
        probabilities: the prior q for each row, shape [rows, items].
    """
    assert model.prior_weight is not None
    assert probabilities is not None
    trie, found = model.layout.trie, np.full(probabilities.shape, -np.inf)
    weight, size = float(model.prior_weight.detach()), max(1, CELLS // max(1, len(trie)))
    for start in range(0, len(found) if len(trie) else 0, size):
        rows = slice(start, start + size)
        found[rows, trie.items] = _leaf_log_probs(trie, probabilities[rows], weight)
    return found


def _leaf_log_probs(trie: Trie, probabilities: Floats, weight: float) -> Floats:
    sums = cumulative_mass(trie, probabilities)
    mass = sums[:, trie.child_high] - sums[:, trie.child_low]
    logits = weight * np.log(np.maximum(mass, LEAST_MASS))
    first, sizes = trie.child_offsets[:-1], np.diff(trie.child_offsets)
    top = np.maximum.reduceat(logits, first, axis=1)
    odds = np.exp(logits - np.repeat(top, sizes, axis=1))
    total = top + np.log(np.add.reduceat(odds, first, axis=1))
    steps = logits - np.repeat(total, sizes, axis=1)  # log p of each child at its node
    return np.add.reduceat(steps[:, trie.path], trie.path_offsets[:-1], axis=1)


def prior_lists(
    log_probs: Floats, k: int, candidates: Mask | None, key_values: Sequence[KeyValues]
) -> SearchResult:
    """Return the k most probable items of each row; see :func:`genrec.search.exact.search`.

    Args:
        log_probs: what :func:`prior_log_probs` returns; it is changed.
        k: length of the lists.
        candidates: items that may be recommended, shape [rows, items]; all if ``None``.
        key_values: what the result gives back for each row.
    """
    if candidates is not None:
        log_probs[~candidates] = -np.inf
    top = top_k(np.round(log_probs, DECIMALS), k)
    return SearchResult(top.items, top.scores, rounds=0, tokens=0, key_values=list(key_values))
