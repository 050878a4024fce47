"""GenRec, the estimator: it fits a ranker and recommends with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from genrec.arrays import Floats, Items, Mask
from genrec.config import Config, Settings, constructor_signature
from genrec.data.catalogue import By
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.data.statistics import REPEATS
from genrec.errors import ConfigError
from genrec.language_model.adapters import make_trainable
from genrec.language_model.devices import isolated_random
from genrec.model.changeable import ChangeableModel
from genrec.model.fitting import (
    mean_log_likelihood,
    train_ranker,
    training_info,
    untrained_ranker,
)
from genrec.model.fusing import (
    add_experts,
    check_data,
    fused_after_training,
    with_refitted_prior,
)
from genrec.model.ranker import Ranker
from genrec.model.run_folder import checkpoint_folder, data_info
from genrec.model.session import KeyValueStore, Session
from genrec.recommender import Influence, Recommendation, TopK, recommendations
from genrec.search.frontier import SearchOptions

if TYPE_CHECKING:
    from genrec.training.trainer import TrainingResult


class GenRec(ChangeableModel):
    """A recommender that lets a language model generate titles of the catalogue, and only those.

    Any field of :class:`~genrec.Config` is a keyword argument, as in
    ``GenRec("smollm2-135m", prior="pooled", lora_rank=8)``. ``GenRec(config=Config(...))`` takes
    all settings at once.

    Args:
        backbone: the language model: a known name (``genrec data list``), a Hugging Face Hub id or
            a folder.
        name: name of this model in tables and reports.
        config: all settings at once, instead of ``backbone`` and single settings.
        settings: fields of :class:`~genrec.Config`, e.g. ``prior``, ``lora_rank``,
            ``learning_rate``, ``minutes``, ``history_length``, ``seed``.

    Raises:
        ConfigError: A setting is unknown or invalid, or both ``config`` and single settings are
            given.

    Attributes:
        config: the settings as given; fitting does not change them.
        info: the facts about the fitted model that ``genrec.json`` records.
        training: the result of the last training, or ``None``.
        session_bytes: maximum memory in bytes for the cached keys and values of all sessions
            together; set it before the first session.
    """

    session_bytes: int = 2**30

    def __init__(
        self,
        backbone: str | None = None,
        *,
        name: str = "genrec",
        config: Config | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        given: dict[str, Any] = {**settings}
        if backbone is not None:
            given["backbone"] = backbone
        if config is not None and given:
            raise ConfigError(f"Give config=… or single settings ({', '.join(given)}), not both.")
        super().__init__(name, config or Config.create(**given))
        self.training: TrainingResult | None = None
        self._store: KeyValueStore | None = None

    # -- fitting ---------------------------------------------------------------------------------

    def fit(
        self,
        train: Dataset,
        valid: Holdout | None = None,
        *,
        minutes: float | None = None,
        epochs: float | None = None,
        output: str | Path | None = None,
        progress: bool = True,
    ) -> Self:
        """Train on the titles in the training histories.

        Each history contributes its last windows (see ``Config.windows_per_user``). A second call
        starts from the untrained backbone again. Random numbers depend on ``Config.seed`` only, and
        the caller's random state is not changed.

        Args:
            train: training data; its catalogue becomes the model's.
            valid: validation users. Their mean log-likelihood per item is recorded before and after
                training; early stopping (``Config.patience``) needs them.
            minutes: maximum training time in minutes (wall clock), instead of the configured one.
            epochs: maximum number of epochs, instead of the configured one. With both limits,
                training ends at the first one reached.
            output: run folder for checkpoints; an interrupted training resumes from it.
            progress: draw a progress bar on standard error.

        Returns:
            The model itself.

        Raises:
            ConfigError: Early stopping is set and there are no validation users, or the settings do
                not fit the backbone or the data.
            DataError: ``train`` is no data set.
        """
        config = self.config.with_budget(minutes=minutes, epochs=epochs)
        check_data(config, train, valid)
        with isolated_random(config.seed):
            ranker = untrained_ranker(config, train, valid)
            before = mean_log_likelihood(ranker, valid)
            make_trainable(ranker.backbone, ranker.config)
            ranker = ranker.renewed()
            with checkpoint_folder(output) as checkpoints:
                self.training = train_ranker(ranker, train, valid, checkpoints, progress)
            ranker.backbone.merge_for_inference()
            ranker = fused_after_training(replace(ranker), config, train, valid)
        self._adopt(ranker, data_info(train))
        self.info["training"] = training_info(self.training)
        self.info["valid_log_likelihood"] = [before, mean_log_likelihood(self.ranker, valid)]
        return self

    def build(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Prepare the model without training: tokenise the titles, build the trie, fit the prior.

        The model then recommends with the untrained backbone.

        Args:
            train: data for the catalogue and the prior.
            valid: validation users, on which the weights of a pooled prior are fitted.

        Returns:
            The model itself.

        Raises:
            ConfigError: The settings do not fit the backbone or the data.
        """
        with isolated_random(self.config.seed):
            ranker = untrained_ranker(self.config, train, valid)
        ranker.backbone.merge_for_inference()
        self.training = None
        self._adopt(replace(ranker), data_info(train))
        return self

    def fuse(self, train: Dataset, valid: Holdout, *, experts: Sequence[str] | None = None) -> Self:
        """Fit the weights of all experts and of the language model to validation users again.

        Experts that the model does not have yet are fitted and join its prior; those that are not
        named leave it. The language model itself is not trained.

        Args:
            train: the data on which the model was trained.
            valid: validation users.
            experts: names of the experts; those of the model if ``None``.

        Returns:
            The model itself.

        Raises:
            ConfigError: The model's prior is not pooled, or a name is unknown.
        """
        names = self.ranker.config.experts if experts is None else experts
        with isolated_random(self.config.seed):
            self._ranker = add_experts(self.ranker, names, train, valid)
        return self

    def refit_prior(self, train: Dataset) -> Self:
        """Fit the prior to more data, such as training and validation data together.

        The language model and all weights stay as they are. This is the last step before a model
        goes into service.

        Args:
            train: the data; its catalogue is that of the model.

        Returns:
            The model itself.

        Raises:
            DataError: The catalogue is another one.
        """
        with isolated_random(self.config.seed):
            self._ranker = with_refitted_prior(self.ranker, train)
        self.info["data"] = data_info(train)
        return self

    def _adopt(self, ranker: Ranker, data: dict[str, Any]) -> None:
        self._ranker, self._store, self._folder = ranker, None, None
        self.info = {"data": data}

    # -- recommending ----------------------------------------------------------------------------

    @property
    def item_counts(self) -> Floats | None:
        """Training interactions of each item, float [items]; ``None`` if there is no prior."""
        return None if self.ranker.prior is None else self.ranker.prior.item_counts

    @property
    def excludes_seen(self) -> bool:
        """Whether lists leave out the history's items, unless a call says otherwise.

        They do if the training histories seldom repeat items.
        """
        return bool(self.info.get("data", {}).get("repeat_share", 0.0) < REPEATS)

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        ratings: Sequence[float | None] | None = None,
        by: By = "either",
        exclude_seen: bool | None = None,
        candidates: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> list[Recommendation]:
        """Recommend the k most probable next items for a history.

        Args:
            history: titles or item ids, oldest first.
            k: number of recommendations; there are fewer if fewer candidates are left.
            ratings: the user's rating of each history item, ``None`` where unknown; they count if
                the model was trained with ``ratings``.
            by: whether ``history`` holds titles (``"title"``), ids (``"id"``) or ``"either"``.
            exclude_seen: leave out the items of the history; :attr:`excludes_seen` if ``None``.
            candidates: mask of the items that may be recommended, bool [items]; see
                :meth:`Catalogue.mask`.
            exact: exact search; ``False`` uses a beam search, which is faster for very large
                catalogues but may miss items.
            width: nodes of the trie that the beam search keeps per level.

        Returns:
            Recommendations with rank, title, id and probability, best first.

        Raises:
            UnknownItemError: An entry of the history is not in the catalogue, or names two items.
            ConfigError: ``k`` or ``width`` is below 1.
            DataError: ``candidates`` has another shape.
            NotFittedError: The model is neither fitted nor loaded.
        """
        top = self.recommend_batch(
            self._histories(history, ratings, by),
            k,
            exclude_seen=self.excludes_seen if exclude_seen is None else exclude_seen,
            candidates=candidates,
            exact=exact,
            width=width,
        )
        return recommendations(self.catalogue, top.items[0], top.scores[0])

    def _histories(
        self, history: Sequence[str], ratings: Sequence[float | None] | None, by: By
    ) -> Histories:
        items = self.catalogue.indices(history, by=by)
        return Histories.from_lists([items], None if ratings is None else [ratings])

    def recommend_batch(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        candidates: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> TopK:
        """Recommend for many histories at once; see :meth:`recommend`.

        Args:
            histories: one row per user, with item indices of :attr:`catalogue`.
            k: number of recommendations per row.
            exclude_seen: leave out the items of each history.
            candidates: mask of the items that may be recommended, bool [items] or [rows, items].
            exact: exact search instead of a beam search.
            width: nodes of the trie that the beam search keeps per level.

        Returns:
            Item indices, -1 where fewer than k candidates are left, and scores log p(item |
            history), both [rows, k].
        """
        return self.ranker.recommend_batch(
            histories,
            k,
            exclude_seen=exclude_seen,
            candidates=candidates,
            options=None if exact else SearchOptions(beam=width),
        )

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """Return log p(target | history) over the whole catalogue, in nats, float64 [rows].

        Args:
            histories: one row per user.
            targets: the item index of each row's target, int32 [rows].

        Raises:
            DataError: A target was removed from the catalogue.
        """
        return self.ranker.log_likelihood(histories, targets)

    def session(
        self,
        history: Sequence[str] = (),
        *,
        ratings: Sequence[float | None] | None = None,
        by: By = "either",
    ) -> Session:
        """Open a session: a history that grows item by item and caches its keys and values.

        Each new item costs only the computation of its own title.

        Args:
            history: titles or item ids, oldest first.
            ratings: the user's rating of each history item, ``None`` where unknown.
            by: whether ``history`` holds titles, ids or either.

        Raises:
            ConfigError: The model has decoding=beam.
            UnknownItemError: An entry of the history is not in the catalogue, or names two items.
        """
        ranker = self.ranker
        if ranker.config.decoding == "beam":
            raise ConfigError(
                "A session needs decoding=exact, but this model has decoding=beam; use recommend()."
            )
        if self._store is None:
            self._store = KeyValueStore(self.session_bytes)
        items = self.catalogue.indices(history, by=by)
        seen = self.excludes_seen
        return Session(ranker, self._store, lambda: self.ranker, items, ratings, excludes_seen=seen)

    def explain(
        self,
        history: Sequence[str],
        entries: Sequence[str],
        *,
        ratings: Sequence[float | None] | None = None,
        by: By = "either",
    ) -> list[list[Influence]]:
        """Compute how each history item changes the log-probability of some items.

        Args:
            history: titles or item ids, oldest first.
            entries: titles or ids of the items to explain.
            ratings: the user's rating of each history item, ``None`` where unknown.
            by: whether both hold titles, ids or either.

        Returns:
            For each entry, the effects of the history items in nats, strongest first; see
            :meth:`genrec.model.ranker.Ranker.influences`.

        Raises:
            UnknownItemError: An entry is not in the catalogue, or names two items.
        """
        known = self.catalogue
        items, targets = known.indices(history, by=by), known.indices(entries, by=by)
        return self.ranker.influences(items, targets, ratings=ratings)

    def prompt_text(
        self,
        history: Sequence[str],
        *,
        ratings: Sequence[float | None] | None = None,
        by: By = "either",
    ) -> str:
        """Return the prompt of a history, as the language model reads it.

        Args:
            history: titles or item ids, oldest first.
            ratings: the user's rating of each history item, ``None`` where unknown.
            by: whether ``history`` holds titles, ids or either.
        """
        one = self._histories(history, ratings, by)
        return self.ranker.prompt_text(one[0], one.ratings_of(0))


# help() and editors then show every setting with its default instead of **settings.
GenRec.__signature__ = constructor_signature(  # type: ignore[attr-defined]
    backbone=None, name="genrec", config=None
)
