"""GenRec, the estimator: it fits a ranker and recommends with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from genrec.config import Config, Settings
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout
from genrec.errors import ConfigError
from genrec.language_model.devices import isolated_random
from genrec.model.fitting import (
    mean_log_likelihood,
    train_ranker,
    trainable_ranker,
    training_info,
    untrained_ranker,
)
from genrec.model.fusing import (
    add_experts,
    check_data,
    fit_words_weight,
    fused_after_training,
    refuse_known,
    with_refitted_prior,
)
from genrec.model.ranker import Ranker
from genrec.model.requests import RequestModel
from genrec.model.run_folder import data_info
from genrec.model.saving import checkpoint_folder
from genrec.model.session import KeyValueStore

if TYPE_CHECKING:
    from genrec.training.trainer import TrainingResult


class GenRec(RequestModel):
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
        starts from the untrained backbone again; ``Config.init_from`` names a run or a published
        adapter to start from instead. Random numbers depend on ``Config.seed`` only, and
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
            ranker = trainable_ranker(untrained_ranker(config, train, valid))
            before = mean_log_likelihood(replace(ranker), valid)
            with checkpoint_folder(output) as checkpoints:
                self.training = train_ranker(ranker, train, valid, checkpoints, progress)
            ranker.backbone.merge_for_inference()
            ranker = fused_after_training(replace(ranker), config, train, valid)
        self._adopt(ranker, data_info(train))
        self.info["training"] = training_info(self.training)
        if config.init_from is not None:
            self.info["training"]["init_from"] = Path(config.init_from).name
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
            ConfigError: The settings do not fit the backbone or the data, or ``init_from`` is set.
        """
        if self.config.init_from is not None:
            raise ConfigError("build does not use init_from; call fit with epochs=0.")
        with isolated_random(self.config.seed):
            ranker = untrained_ranker(self.config, train, valid)
        ranker.backbone.merge_for_inference()
        self.training = None
        self._adopt(replace(ranker), data_info(train))
        return self

    def fuse(self, train: Dataset, valid: Holdout, *, experts: Sequence[str] | None = None) -> Self:
        """Fit all weights again: those of the experts, of the language model and of words.

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
            DataError: The model or ``train`` holds the validation targets already.
        """
        self._refuse_known_targets()
        refuse_known(train.provenance.train_on, f"{train.name}: these training data")
        names = self.ranker.config.experts if experts is None else experts
        with isolated_random(self.config.seed):
            self._change(fit_words_weight(add_experts(self.ranker, names, train, valid), valid))
        self.info.pop("valid_log_likelihood", None)  # it was that of the model before
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
            self._change(with_refitted_prior(self.ranker, train))
        self.info.pop("valid_log_likelihood", None)
        self.info["data"] = data_info(train)
        return self

    def fit_words_weight(self, valid: Holdout) -> Self:
        """Fit the weight of words to validation users, who ask with metadata of their targets.

        Args:
            valid: validation users.

        Returns:
            The model itself.

        Raises:
            DataError: The model has learned from the validation targets already.
        """
        self._refuse_known_targets()
        self._change(fit_words_weight(self.ranker, valid))
        return self

    def _refuse_known_targets(self) -> None:
        refuse_known(self.info.get("data", {}).get("fitted"), f"the training data of {self.name}")

    def _adopt(self, ranker: Ranker, data: dict[str, Any]) -> None:
        self._ranker, self._store, self._folder = ranker, None, None
        self.info = {"data": data}


def _signature(**own: Any) -> Signature:
    """Return the signature of a constructor that takes the settings as keyword arguments.

    Args:
        own: the constructor's own parameters with their defaults; ``backbone`` is positional.
    """
    settings = {name: field.default for name, field in Config.model_fields.items()}
    defaults = own | {name: value for name, value in settings.items() if name not in own}
    return Signature(
        [
            Parameter(
                name,
                Parameter.POSITIONAL_OR_KEYWORD if name == "backbone" else Parameter.KEYWORD_ONLY,
                default=default,
            )
            for name, default in defaults.items()
        ]
    )


# help() and editors then show every setting with its default instead of **settings.
GenRec.__signature__ = _signature(  # type: ignore[attr-defined]
    backbone=None, name="genrec", config=None
)
