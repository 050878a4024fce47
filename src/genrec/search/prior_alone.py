"""Ranking where the language model adds nothing to its prior: the prior's own order is exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.arrays import Floats, Mask
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.prior_mass import LEAST_MASS
from genrec.language_model.trie import Trie
from genrec.recommender import top_k
from genrec.search.exact import SearchResult
from genrec.search.key_values import KeyValues


def adds_nothing(model: CatalogueLikelihood) -> bool:
    """Return whether p(item | history) is the prior itself."""
    weight = model.prior_weight
    return weight is not None and float(weight.detach()) == 1.0 and model.lm_weight == 0.0


def prior_log_probs(trie: Trie, probabilities: Floats | None) -> Floats:
    """Return log p of every item that can be recommended, -inf for the others.

    Along a title's path the prior's masses cancel, so that its share of the trie's mass is left.

    Args:
        trie: the titles that can be recommended.
        probabilities: the prior q for each row, shape [rows, items].
    """
    assert probabilities is not None  # adds_nothing was asked first
    found = np.full(probabilities.shape, -np.inf)
    mass = np.maximum(probabilities[:, trie.items], LEAST_MASS)
    found[:, trie.items] = np.log(mass / mass.sum(axis=1, keepdims=True))
    return found


def prior_lists(
    trie: Trie,
    probabilities: Floats | None,
    k: int,
    candidates: Mask | None,
    key_values: Sequence[KeyValues],
) -> SearchResult:
    """Return the k most probable items of each row; see :func:`genrec.search.exact.search`.

    Args:
        trie: the titles that can be recommended.
        probabilities: the prior q for each row, shape [rows, items].
        k: length of the lists.
        candidates: items that may be recommended, shape [rows, items]; all if ``None``.
        key_values: what the result gives back for each row.
    """
    log_probs = prior_log_probs(trie, probabilities)
    if candidates is not None:
        log_probs[~np.broadcast_to(candidates, log_probs.shape)] = -np.inf
    top = top_k(log_probs, k)
    return SearchResult(top.items, top.scores, rounds=0, tokens=0, key_values=list(key_values))
