"""The prior protocol: an item distribution that needs no language model.

A prior gives every item a probability q(item | history). The title trie turns these probabilities
into a mass for each child of a node (a difference of prefix sums). The language model's logits then
correct that mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

from genrec.arrays import Arrays, Floating, Floats
from genrec.collaborative.sparse import SparseDistributions
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories

OLD_NAMES = {"kernel": "transitions"}
"""Former names of priors that saved runs and ``--prior`` may still use."""


class Prior(Protocol):
    """A distribution over the catalogue that needs no language model.

    Attributes:
        kind: name of the prior in the registry and in saved files.
    """

    kind: ClassVar[str]

    @property
    def item_counts(self) -> Floats:
        """Training interactions of each item, shape [items]."""
        ...

    def probabilities(self, histories: Histories) -> Floats:
        """Return q(item | history) for each history.

        Returns:
            Shape [rows, items]. Every entry is positive and each row sums to 1.
        """
        ...

    def training_probabilities(self, history: Histories, start: int, stop: int) -> Floating:
        """Return q at positions of one training history, without that user's own counts.

        If the user's counts stayed in, they would reveal each target to the model in training.

        Args:
            history: one training history as the only row.
            start: first position.
            stop: end of the positions, exclusive.

        Returns:
            Shape [stop - start, items]. The row of position ``t`` is conditioned on the first ``t``
            items.
        """
        ...

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        """Return a copy of the prior with further items at its end.

        Args:
            like: one entry per new item, the existing item whose statistics it takes over. An item
                with ``None`` gets the mean number of interactions and no transitions.
            catalogue: the catalogue with the new items at its end.
        """
        ...

    def arrays(self) -> Arrays:
        """Return the fitted state as the arrays that :func:`save_prior` writes."""
        ...

    def restore(self, arrays: Arrays) -> Self:
        """Load the state that :meth:`arrays` returned.

        Returns:
            The prior itself.
        """
        ...


@runtime_checkable
class SparsePrior(Prior, Protocol):
    """A prior whose training distributions share one base and differ from it in few items."""

    def training_shares(self, history: Histories, start: int, stop: int) -> SparseDistributions:
        """Return :meth:`Prior.training_probabilities` as sparse changes to one shared base."""
        ...
