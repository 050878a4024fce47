"""A fitted model whose catalogue can change without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genrec.data.catalogue import By
from genrec.data.frames import polars_frame
from genrec.errors import DataError
from genrec.model.pretrained import PretrainedModel


class ChangeableModel(PretrainedModel):
    """A model to which items can be added, and whose items can be withdrawn and restored."""

    def add_items(
        self,
        titles: Sequence[str],
        item_ids: Sequence[str] | None = None,
        *,
        metadata: Any = None,
        like: Sequence[str | None] | None = None,
        by: By = "either",
    ) -> None:
        """Add new items to the catalogue, which can be recommended at once without training.

        The short forms of the other titles, which the model was trained on, do not change.

        Args:
            titles: titles of the new items.
            item_ids: ids of the new items; the titles if ``None``.
            metadata: a Polars or pandas frame with one row per new item.
            like: for each new item a known item that it resembles, or ``None``. The prior treats
                both alike, except for its text. Without a known item, the prior gives the new one
                average popularity and no transitions from other items.
            by: whether ``like`` holds titles, ids or either.

        Raises:
            DataError: A title or an id is empty or taken, or ``like`` has another length.
            UnknownItemError: An entry of ``like`` is not in the catalogue, or names two items.
        """
        twins = [None] * len(titles) if like is None else list(like)
        if len(twins) != len(titles):
            raise DataError(
                f"like has {len(twins)} entries for {len(titles)} new items; give one entry (or "
                "None) per item."
            )
        if not len(titles):
            return
        known = self.catalogue
        self._change(
            self.ranker.with_items(
                titles,
                titles if item_ids is None else item_ids,
                metadata=None if metadata is None else polars_frame(metadata, "metadata"),
                like=[None if entry is None else known.index_of(entry, by=by) for entry in twins],
            )
        )

    def remove_items(self, entries: Sequence[str], *, by: By = "either") -> None:
        """Stop recommending items. Histories may still contain them.

        Args:
            entries: titles or ids of the items.
            by: whether ``entries`` holds titles, ids or either.

        Raises:
            UnknownItemError: An entry is not in the catalogue, or names two items.
        """
        self._change(self.ranker.without_items(self.catalogue.indices(entries, by=by)))

    def restore_items(self, entries: Sequence[str], *, by: By = "either") -> None:
        """Recommend removed items again; arguments and errors as in :meth:`remove_items`."""
        self._change(self.ranker.with_items_again(self.catalogue.indices(entries, by=by)))
