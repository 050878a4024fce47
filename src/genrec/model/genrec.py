"""GenRec: the estimator. It fits a ranker, recommends with it, changes its catalogue, saves it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import polars as pl

from genrec.arrays import Floats, Items, Mask
from genrec.config import Config, Settings
from genrec.data.catalogue import By, Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError, NotFittedError
from genrec.files import write_new_folder
from genrec.language_model.adapters import make_trainable
from genrec.language_model.devices import isolated_random
from genrec.model import hub
from genrec.model.fitting import (
    mean_log_likelihood,
    train_ranker,
    training_info,
    untrained_ranker,
)
from genrec.model.ranker import Ranker
from genrec.model.run_folder import (
    checkpoint_folder,
    data_info,
    load_ranker,
    read_run,
    replace_run,
    write_run,
)
from genrec.model.session import KeyValueStore, Session
from genrec.recommender import Influence, Recommendation, TopK, recommendations
from genrec.search.frontier import SearchOptions

if TYPE_CHECKING:
    from genrec.training.trainer import TrainingResult


class GenRec:
    """An LLM recommender that generates catalogue titles, and only those.

    ``GenRec("smollm2-135m", prior="pooled", lora_rank=8)`` takes any field of
    :class:`~genrec.Config` as a keyword argument; ``GenRec(config=Config(...))`` takes them all at
    once. An unknown setting raises :class:`~genrec.errors.ConfigError`.

    Args:
        backbone: the language model: a known name (``genrec data list``), a Hub id or a folder.
        name: what tables and reports call this model.
        config: all settings at once, in the place of the other arguments.
        settings: fields of :class:`~genrec.Config`, e.g. ``prior``, ``lora_rank``,
            ``learning_rate``, ``minutes``, ``history_length``, ``seed``.

    Attributes:
        config: the settings as they were given; fitting does not change them.
        info: what ``genrec.json`` records of the fitted model.
        training: what the last training run did, or ``None``.
        session_bytes: most memory that the keys and values of all sessions together may hold; set
            it before the first session.
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
        self.name = name
        self.config = config or Config.create(**given)
        self.info: dict[str, Any] = {}
        self.training: TrainingResult | None = None
        self._ranker: Ranker | None = None
        self._store: KeyValueStore | None = None
        self._folder: Path | None = None  # where it was saved or loaded from

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
        """Train on the titles of the training histories (the last windows, see ``Config``).

        Fitting again starts afresh. Random numbers follow ``Config.seed``; the caller's random
        state is left as it was.

        Args:
            valid: if given, its mean log-likelihood per item is recorded before and after training;
                early stopping (``Config.patience``) needs it.
            minutes: budget of wall-clock time, in the place of the configured one.
            epochs: budget of epochs; with both, the first one reached ends training.
            output: run folder for checkpoints; training goes on from what is there.
            progress: draw a progress bar on standard error.

        Raises:
            ConfigError: early stopping without validation users, or settings that do not fit.
        """
        config = self.config.with_budget(minutes=minutes, epochs=epochs)
        if config.patience is not None and (valid is None or not len(valid)):
            raise ConfigError("patience needs validation users: call fit(train, valid=…).")
        with isolated_random(config.seed):
            ranker = untrained_ranker(config, train)
            before = mean_log_likelihood(ranker, valid)
            make_trainable(ranker.backbone, ranker.config)
            ranker = ranker.renewed()
            with checkpoint_folder(output) as checkpoints:
                self.training = train_ranker(ranker, train, valid, checkpoints, progress)
            ranker.backbone.merge_for_inference()
        self._adopt(replace(ranker), data_info(train))
        self.info["training"] = training_info(self.training)
        self.info["valid_log_likelihood"] = [before, mean_log_likelihood(self.ranker, valid)]
        return self

    def build(self, train: Dataset) -> Self:
        """Everything but training: tokenise the catalogue, build the trie, fit the prior.

        The result recommends with the backbone as it comes.
        """
        with isolated_random(self.config.seed):
            ranker = untrained_ranker(self.config, train)
        ranker.backbone.merge_for_inference()
        self.training = None
        self._adopt(replace(ranker), data_info(train))
        return self

    def _adopt(self, ranker: Ranker, data: dict[str, Any]) -> None:
        self._ranker, self._store, self._folder = ranker, None, None
        self.info = {"data": data}

    @property
    def fitted(self) -> bool:
        """Whether it was fitted or loaded."""
        return self._ranker is not None

    # -- recommending ----------------------------------------------------------------------------

    @property
    def ranker(self) -> Ranker:
        """The fitted whole: backbone, catalogue, prompts, prior and likelihood.

        Raises:
            NotFittedError: the model is neither fitted nor loaded.
        """
        if self._ranker is None:
            raise NotFittedError(
                f"This {type(self).__name__} is not fitted yet: call fit(train), or load a run "
                "with GenRec.from_pretrained(folder)."
            )
        return self._ranker

    @property
    def catalogue(self) -> Catalogue:
        """The items this model can recommend."""
        return self.ranker.catalogue

    @property
    def item_counts(self) -> Floats | None:
        """Training interactions of each item, as the prior counted them; ``None`` without one."""
        return None if self.ranker.prior is None else self.ranker.prior.item_counts

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        by: By = "either",
        exclude_seen: bool = True,
        candidates: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> list[Recommendation]:
        """The k most probable next items after a history, oldest first.

        Args:
            history: titles or item ids.
            by: read them as ``"title"``, as ``"id"``, or as ``"either"``.
            candidates: items that may be recommended, shape [items]; see :meth:`Catalogue.mask`.
            exact: otherwise a beam search, for very large catalogues: it may miss items.
            width: nodes of the trie that it keeps a level.

        Raises:
            UnknownItemError: an entry of the history is not in the catalogue, or names two items.
        """
        items = self.catalogue.indices(history, by=by)
        top = self.recommend_batch(
            Histories.from_lists([items]),
            k,
            exclude_seen=exclude_seen,
            candidates=candidates,
            exact=exact,
            width=width,
        )
        return recommendations(self.catalogue, top.items[0], top.scores[0])

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
        """Top-k for each history; scores are log p(item | history). See :meth:`recommend`."""
        return self.ranker.recommend_batch(
            histories,
            k,
            exclude_seen=exclude_seen,
            candidates=candidates,
            options=None if exact else SearchOptions(beam=width),
        )

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """log p(target | history) over the whole catalogue, one value per row, in nats."""
        return self.ranker.log_likelihood(histories, targets)

    def session(self, history: Sequence[str] = (), *, by: By = "either") -> Session:
        """A history that can grow and shrink at the cost of what changes (titles or item ids)."""
        ranker = self.ranker
        if ranker.config.decoding == "beam":
            raise ConfigError("A session needs decoding=exact; this model decodes by beams.")
        if self._store is None:
            self._store = KeyValueStore(self.session_bytes)
        items = self.catalogue.indices(history, by=by)
        return Session(ranker, self._store, lambda: self.ranker, items)

    def explain(
        self, history: Sequence[str], entries: Sequence[str], *, by: By = "either"
    ) -> list[list[Influence]]:
        """For each of the entries, what the items of the history did to its log-probability.

        See :meth:`genrec.model.ranker.Ranker.influences`.
        """
        known = self.catalogue
        return self.ranker.influences(known.indices(history, by=by), known.indices(entries, by=by))

    def prompt_text(self, history: Sequence[str], *, by: By = "either") -> str:
        """What the language model reads for a history of titles or item ids."""
        (items,) = Histories.from_lists([self.catalogue.indices(history, by=by)])
        return str(self.ranker.backbone.tokenizer.decode(self.ranker.prompt(items)))

    # -- changing the catalogue ------------------------------------------------------------------

    def add_items(
        self,
        titles: Sequence[str],
        item_ids: Sequence[str] | None = None,
        *,
        metadata: pl.DataFrame | None = None,
        like: Sequence[str | None] | None = None,
        by: By = "either",
    ) -> None:
        """Take new items into the catalogue; they can be recommended at once, without training.

        The other items keep the form in which the model knows their titles.

        Args:
            item_ids: the titles, if not given.
            metadata: one row for each item.
            like: for each item a known one (title or id, see ``by``); the prior takes the new item
                for its twin. Without one it is an item of average popularity that nothing leads to.

        Raises:
            DataError: a title or id is empty or taken.
        """
        twins = [None] * len(titles) if like is None else list(like)
        if len(twins) != len(titles):
            raise DataError(f"{len(titles)} new items need as many of like, got {len(twins)}.")
        known = self.catalogue
        self._ranker = self.ranker.with_items(
            titles,
            titles if item_ids is None else item_ids,
            metadata=metadata,
            like=[None if entry is None else known.index_of(entry, by=by) for entry in twins],
        )

    def remove_items(self, entries: Sequence[str], *, by: By = "either") -> None:
        """Stop recommending items (titles or ids); histories may still hold them."""
        self._ranker = self.ranker.without_items(self.catalogue.indices(entries, by=by))

    def restore_items(self, entries: Sequence[str], *, by: By = "either") -> None:
        """Recommend removed items again."""
        self._ranker = self.ranker.with_items_again(self.catalogue.indices(entries, by=by))

    # -- saving ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the run folder, with a model card; ``genrec.json`` comes last and marks it whole.

        Raises:
            RunError: the folder holds other things.
            NotFittedError: there is nothing to save yet.
        """
        replace_run(Path(folder), self._writer())
        self._folder = Path(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload a GenRec run",
    ) -> str:
        """Upload the run, with its model card and metrics, to a repository of the Hugging Face Hub.

        Args:
            repo_id: ``"organisation/name"``; it is made if it is not there.
            token: access token; the one of ``hf auth login`` if not given.

        Returns:
            The address of the commit.

        Raises:
            RunError: the Hub refuses.
        """
        return hub.push(
            repo_id,
            self._writer(),
            beside=self._folder,
            private=private,
            token=token,
            commit_message=commit_message,
        )

    def _writer(self) -> Callable[[Path], None]:
        """What writes this run into an empty folder, and notes in :attr:`info` what it wrote."""
        self.info |= {"name": self.name}
        return partial(write_run, ranker=self.ranker, info=self.info)

    def export(self, folder: str | Path) -> None:
        """Write the language model, its adapter merged in, as plain transformers loads it.

        The prior and the residual beside it stay behind: plain transformers knows neither.

        Raises:
            RunError: the folder exists and is not empty.
            NotFittedError: there is nothing to export yet.
        """
        write_new_folder(Path(folder), self.ranker.backbone.export)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        dtype: str | None = None,
    ) -> GenRec:
        """Load a run folder, or a run that was pushed to the Hugging Face Hub.

        Args:
            folder: a run folder, or ``"organisation/name"`` on the Hub.
            revision: branch, tag or commit on the Hub.
            token: access token for a private repository.
            dtype: as in :class:`Config`; by default that of training, but on a CPU the
                faster of float32 and bfloat16 in the place of other types than float32.

        Raises:
            RunError: it is missing, incomplete, damaged or from an incompatible version.
        """
        folder = hub.local_folder(folder, revision=revision, token=token)
        info, settings = read_run(folder)
        model = cls(name=info.get("name", "genrec"), config=Config.create(**settings))
        model._ranker = load_ranker(folder, info, model.config, dtype)
        model.info, model._folder = info, folder
        return model


# What help() and editors show: every setting with its default, not just **settings.
GenRec.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("backbone", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
        *(
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default)
            for key, default in {
                "name": "genrec",
                "config": None,
                **{k: f.default for k, f in Config.model_fields.items() if k != "backbone"},
            }.items()
        ),
    ]
)
