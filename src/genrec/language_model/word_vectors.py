"""Vectors of single words, from the input embeddings that the backbone has anyway."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from genrec.arrays import Floats32

SAMPLE = 2**13
"""Most tokens from which the covariance of the embeddings is estimated."""
SHRINKAGE = 0.1
"""Share of the mean variance that is added to each direction's, so that none is blown up."""


class WordVectors:
    """Whitened input embeddings, in which words of like meaning lie close to each other.

    Raw embeddings share a few large directions that say how frequent a token is. Whitening takes
    them away (as Mu & Viswanath, arXiv 1702.01417, do by removing them).

    Args:
        tokenizer: the language model's tokenizer.
        embeddings: its input embeddings.
    """

    def __init__(self, tokenizer: Any, embeddings: nn.Embedding) -> None:
        self._tokenizer, self._weight = tokenizer, embeddings.weight

    def __call__(self, words: Sequence[str]) -> Floats32:
        """Return a vector of length 1 for each word that is one token, and zeros for others.

        Args:
            words: words in lower case.

        Returns:
            Shape [words, hidden].
        """
        tokens = [self._token(word) for word in words]
        known = [row for row, token in enumerate(tokens) if token is not None]
        vectors = np.zeros((len(words), self._weight.shape[1]), np.float32)
        if not known:
            return vectors
        mean, whitening = self._whitening
        raw = self._rows([token for token in tokens if token is not None])
        whitened = (raw - mean) @ whitening
        lengths = np.linalg.norm(whitened, axis=1, keepdims=True)
        vectors[known] = whitened / np.maximum(lengths, 1e-12)
        return vectors

    def _token(self, word: str) -> int | None:
        for text in (f" {word}", word):  # tokenizers differ in what the first word begins with
            tokens: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
            if len(tokens) == 1 and tokens[0] != self._tokenizer.unk_token_id:
                return tokens[0]
        return None

    def _rows(self, tokens: Sequence[int]) -> Floats32:
        rows: Floats32 = self._weight.detach()[list(tokens)].float().cpu().numpy()
        return rows

    @cached_property
    def _whitening(self) -> tuple[Floats32, Floats32]:
        """Mean of the embeddings, and the matrix that gives all directions the same variance."""
        step = -(-len(self._weight) // SAMPLE)
        sample = self._rows(range(0, len(self._weight), step))
        mean = sample.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov((sample - mean).T))
        scale = np.sqrt(np.maximum(variances, 0) + SHRINKAGE * variances.mean())
        return mean, (directions / scale).astype(np.float32)
