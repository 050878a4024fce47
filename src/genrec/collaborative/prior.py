"""What a prior is: an item distribution that needs no language model.

A prior gives every item a probability q(item | history). The trie turns it into a mass for each
child by a prefix-sum difference, which the language model's logits then correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

from genrec.arrays import Arrays, Floats, Items
from genrec.collaborative.sparse import SparseDistributions
from genrec.data.histories import Histories


class Prior(Protocol):
    """A distribution over the catalogue that no language model is needed for."""

    kind: ClassVar[str]

    @property
    def item_counts(self) -> Floats:
        """Interactions of each item that it was fitted on, shape [items]."""
        ...

    def fit(self, histories: Histories, n_items: int) -> Self:
        """Count interactions of the training split; returns itself."""
        ...

    def probabilities(self, histories: Histories) -> Floats:
        """q(item | history) for each row, shape [rows, items]; rows sum to 1, all positive."""
        ...

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        """q at positions of one training history, as if that user had not been counted.

        Without the subtraction the counts would leak each target to the model in training.

        Returns:
            Shape [stop - start, items]; the row of position ``t`` is given ``history[:t]``.
        """
        ...

    def extended(self, like: Sequence[int | None]) -> Self:
        """The prior with further items at its end, each as an item it is ``like``.

        An item that is like ``None`` gets the mean number of interactions and no transitions.
        """
        ...

    def arrays(self) -> Arrays:
        """What :func:`save_prior` writes."""
        ...

    def restore(self, arrays: Arrays) -> Self:
        """Inverse of :meth:`arrays`; returns itself."""
        ...


@runtime_checkable
class SparsePrior(Prior, Protocol):
    """A prior whose training distributions differ from one another in few items."""

    def training_shares(self, history: Items, start: int, stop: int) -> SparseDistributions:
        """:meth:`Prior.training_probabilities`, sparse; the base is that of every history."""
        ...
