"""A model that can be saved, loaded and shared: the state of a fitted model and its run folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.errors import NotFittedError
from genrec.files import write_new_folder
from genrec.model import hub
from genrec.model.ranker import Ranker
from genrec.model.run_folder import load_ranker, read_run, write_run
from genrec.model.saving import replace_run


class PretrainedModel:
    """The state of a model, and the methods that save, load, push and export it.

    Args:
        name: name of this model in tables and reports.
        config: the settings.
    """

    def __init__(self, name: str, config: Config) -> None:
        self.name = name
        self.config = config
        self.info: dict[str, Any] = {}
        self._ranker: Ranker | None = None
        self._folder: Path | None = None  # the folder that the model was saved to or loaded from

    @property
    def fitted(self) -> bool:
        """Whether the model was fitted or loaded."""
        return self._ranker is not None

    @property
    def ranker(self) -> Ranker:
        """The ranker: backbone, catalogue, title index, prompts, prior and likelihood.

        Raises:
            NotFittedError: The model is neither fitted nor loaded.
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

    def _change(self, ranker: Ranker) -> None:
        """Replace the ranker by a changed one, whose metrics are not those of any folder."""
        self._ranker, self._folder = ranker, None

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a run folder with a model card.

        The file ``genrec.json`` is written last and marks the folder as complete. An older run in
        the folder is replaced.

        Raises:
            RunError: ``folder`` is a file, or a non-empty folder that holds no run.
            NotFittedError: The model is neither fitted nor loaded.
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
            repo_id: ``"organisation/name"``; the repository is created if it is missing.
            private: create a private repository.
            token: access token; the one of ``hf auth login`` if ``None``.
            commit_message: message of the commit.

        Returns:
            The URL of the commit.

        Raises:
            RunError: The Hub refuses the upload.
            NotFittedError: The model is neither fitted nor loaded.
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
        """Return a function that writes the run into an empty folder and updates :attr:`info`."""
        self.info |= {"name": self.name, "auto": _automatic(self.config)}
        return partial(write_run, ranker=self.ranker, info=self.info)

    def export(self, folder: str | Path) -> None:
        """Write the language model with its adapter merged in, as a transformers checkpoint.

        The prior and the residual are not exported, because transformers has no such parts. Plain
        transformers also runs all layers over all tokens of a history, so that a model with context
        layers gives other scores there.

        Raises:
            RunError: The folder exists and is not empty.
            NotFittedError: The model is neither fitted nor loaded.
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
    ) -> Self:
        """Load a run from a folder or from the Hugging Face Hub.

        Args:
            folder: a run folder, or ``"organisation/name"`` on the Hub.
            revision: branch, tag or commit on the Hub.
            token: access token for a private repository.
            dtype: number format of the weights, as in :class:`Config`. By default it is that of
                training; but on a CPU a format other than float32 is replaced by the faster one of
                float32 and bfloat16.

        Raises:
            RunError: The run is missing, incomplete, damaged or from an incompatible version.
        """
        folder = hub.local_folder(folder, revision=revision, token=token)
        info, settings = read_run(folder)
        model = cls(name=info.get("name", "genrec"), config=Config.create(**settings))
        model._ranker = load_ranker(folder, info, model.config, dtype)
        # The settings as they were given: another fit chooses again what was automatic.
        model.config = model.config.model_copy(update=dict.fromkeys(info.get("auto", ()), "auto"))
        model.info, model._folder = info, folder
        return model


def _automatic(config: Config) -> list[str]:
    """Return the names of the settings whose value is ``"auto"``."""
    return [name for name, value in config if isinstance(value, str) and value == "auto"]
