"""GenRec: a language model, a catalogue and a prior behind one recommender."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genrec._version import __version__
from genrec.backbone import Backbone, add_lora, load_adapter, load_backbone, quiet_transformers
from genrec.catalogue import Catalogue
from genrec.config import Config
from genrec.errors import ConfigError, RunError
from genrec.generation import as_lists, beam_titles
from genrec.histories import Dataset, Histories, Holdout
from genrec.likelihood import CatalogueLikelihood, cumulative_mass, locate_targets, title_log_probs
from genrec.priors import Prior, fit_prior, load_prior, save_prior
from genrec.prompts import build_prompts, prompt_titles
from genrec.recommender import TopK
from genrec.run_folder import FORMAT, checkpoint_folder, data_info, read_run, replace_run
from genrec.search import search
from genrec.trie import build_trie

if TYPE_CHECKING:
    from genrec.training import TrainingResult

SCORED_ROWS = 8


@dataclass(frozen=True)
class Recommendation:
    """One recommended item; ``probability`` is p(item | history) over the whole catalogue."""

    rank: int
    item_id: str
    title: str
    probability: float


class GenRec:
    """An LLM recommender that generates catalogue titles, and only those.

    Settings are the fields of :class:`genrec.config.Config`, e.g. ``backbone``, ``prior``,
    ``lora_rank``; an unknown one raises :class:`genrec.ConfigError`.
    """

    def __init__(self, *, name: str = "genrec", **settings: Any) -> None:
        self.name = name
        self.config = Config.create(**settings)
        self.info: dict[str, Any] = {}
        self.training: TrainingResult | None = None
        self._catalogue: Catalogue | None = None

    @classmethod
    def create(cls, settings: Mapping[str, Any]) -> GenRec:
        """A model from settings alone, none of which can be mistaken for an argument."""
        model = cls()
        model.config = Config.create(**settings)
        return model

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

        Args:
            valid: if given, its mean log-likelihood per item is recorded before and after training.
            minutes, epochs: override the configured budget; with both, the first one reached ends.
            output: run folder for checkpoints; training goes on from what is there.
        """
        budget = {"minutes": minutes, "epochs": epochs}
        changes = {key: value for key, value in budget.items() if value is not None}
        self.config = Config.create(**{**self.config.model_dump(), **changes})
        self.prepare(train)
        before = self._mean_log_likelihood(valid)
        add_lora(self._backbone, self.config)
        self._build_likelihood()
        with checkpoint_folder(output) as checkpoints:
            self.training = self._train(train, checkpoints, progress)
        self._backbone.merge()
        self.info["training"] = _training_info(self.training)
        self.info["valid_log_likelihood"] = [before, self._mean_log_likelihood(valid)]
        return self

    def prepare(self, train: Dataset) -> Self:
        """Everything but training: tokenise the catalogue, build the trie, fit the prior.

        The result recommends with the backbone as it comes.
        """
        quiet_transformers()
        torch.manual_seed(self.config.seed)
        backbone = load_backbone(
            self.config.backbone, dtype=self.config.dtype, layers=self.config.layers
        )
        prior = fit_prior(self.config.prior, train.histories, len(train.catalogue))
        self._assemble(backbone, train.catalogue, prior)
        self.info["data"] = data_info(train)
        return self

    def _assemble(self, backbone: Backbone, catalogue: Catalogue, prior: Prior | None) -> None:
        config = self.config
        self._backbone, self._catalogue, self._prior = backbone, catalogue, prior
        titles = prompt_titles(
            catalogue.titles, backbone.tokenizer, form=config.titles, limit=config.title_tokens
        )
        self._prompts = build_prompts(
            backbone.tokenizer, titles, template=config.template, max_tokens=config.max_tokens
        )
        self._trie = build_trie([title.tolist() for title in self._prompts.titles])
        self._build_likelihood()

    def _build_likelihood(self) -> None:
        self._likelihood = CatalogueLikelihood(
            self._backbone,
            self._trie,
            has_prior=self._prior is not None,
            rank=self.config.residual_rank,
            lm_weight=self.config.lm_weight,
        ).eval()

    def _train(self, data: Dataset, checkpoints: Path, progress: bool) -> TrainingResult:
        from genrec.training import train  # HF Trainer takes seconds to import

        return train(
            self._likelihood,
            self._prompts,
            data.histories,
            self._prior,
            self.config,
            checkpoints=checkpoints,
            fingerprint=data.fingerprint,
            progress=progress,
        )

    def _load_head(self, folder: Path) -> None:
        path, needed = folder / "head.safetensors", set(self._likelihood.head())
        try:
            tensors = load_file(path)
            if set(tensors) != needed:
                raise ValueError(f"it holds {sorted(tensors)}, not {sorted(needed)}")
            self._likelihood.load_state_dict(tensors, strict=False)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{path}: {error}; train the run again.") from None

    # -- recommending ----------------------------------------------------------------------------

    @property
    def catalogue(self) -> Catalogue:
        """The items this model can recommend.

        Raises:
            RunError: the model is neither fitted nor loaded.
        """
        if self._catalogue is None:
            raise RunError(
                "This model knows no catalogue yet: call fit, prepare or from_pretrained."
            )
        return self._catalogue

    def recommend(
        self, history: Sequence[str], k: int = 10, *, exclude_seen: bool = True
    ) -> list[Recommendation]:
        """The k most probable next items after titles or item ids, oldest first.

        Raises:
            UnknownItemError: an entry of the history is not in the catalogue.
        """
        items = [self.catalogue.index_of(entry) for entry in history]
        top = self.recommend_batch(Histories.from_lists([items]), k, exclude_seen=exclude_seen)
        pairs = zip(top.items[0].tolist(), top.scores[0].tolist(), strict=True)
        return [
            Recommendation(
                rank,
                self.catalogue.item_ids[item],
                self.catalogue.titles[item],
                float(np.exp(score)),
            )
            for rank, (item, score) in enumerate(pairs, start=1)
            if item >= 0
        ]

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """Top-k for each history; scores are log p(item | history). See :class:`Recommender`."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        seen = histories.seen(len(self.catalogue)) if exclude_seen else None
        prompts = [self._prompt(history) for history in histories]
        if self.config.decoding == "beam":
            return self._decode_beams(prompts, k, seen)
        found = search(
            self._likelihood,
            prompts,
            min(k, len(self.catalogue)),
            probabilities=None if self._prior is None else self._prior.probabilities(histories),
            allowed=None if seen is None else ~seen,
        )
        return _padded(found.items, found.log_probs, k)

    def log_likelihood(
        self, histories: Histories, targets: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float64]:
        """log p(target | history) over the whole catalogue, one value per row, in nats."""
        parts = [
            self._score_rows(histories.select(np.arange(start, stop)), targets[start:stop])
            for start, stop in _slices(len(histories), SCORED_ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def _prompt(self, history: npt.NDArray[np.int32]) -> list[int]:
        return self._prompts.encode(history[-self.config.history_length :])

    def _decode_beams(
        self, prompts: list[list[int]], k: int, seen: npt.NDArray[np.bool_] | None
    ) -> TopK:
        lists = []
        for row, prompt in enumerate(prompts):
            found = beam_titles(self._backbone, self._prompts, prompt, self.config.beams)
            lists.append([pair for pair in found if seen is None or not seen[row, pair[0]]])
        return TopK(*as_lists(lists, k))

    @torch.inference_mode()
    def _score_rows(
        self, histories: Histories, targets: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float64]:
        prompts = [self._prompt(history) for history in histories]
        closed = [self._prompts.titles[item].tolist() for item in targets]
        width = max(len(p) + len(t) for p, t in zip(prompts, closed, strict=True))
        ids = np.zeros((len(prompts), width), np.int64)
        for row, (prompt, title) in enumerate(zip(prompts, closed, strict=True)):
            ids[row, : len(prompt) + len(title)] = [*prompt, *title]
        sums = None
        if self._prior is not None:
            sums = cumulative_mass(self._trie, self._prior.probabilities(histories))
        starts = np.array([len(prompt) for prompt in prompts])
        located = locate_targets(self._trie, targets, np.arange(len(prompts)), starts, sums)
        hidden = self._backbone.hidden(torch.from_numpy(ids).to(self._backbone.device))
        return title_log_probs(self._likelihood, hidden, located).cpu().double().numpy()

    def _mean_log_likelihood(self, holdout: Holdout | None, users: int = 200) -> float | None:
        if holdout is None or not len(holdout) or self.config.decoding == "beam":
            return None
        sample = holdout.sample(min(users, len(holdout)), self.config.seed)
        return float(self.log_likelihood(sample.histories, sample.targets).mean())

    # -- saving ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the run folder; its ``genrec.json`` comes last and marks it complete.

        Raises:
            RunError: the folder holds other things.
        """
        replace_run(Path(folder), self._write)

    def _write(self, folder: Path) -> None:
        settings = self.config.model_dump(mode="json") | {"dtype": self._backbone.dtype_name}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        self.catalogue.save(folder / "catalogue.parquet")
        if hasattr(self._backbone.model, "peft_config"):
            self._backbone.save_adapter(folder / "adapter")
        if self._prior is not None:
            save_prior(self._prior, folder / "prior.npz")
            save_file(self._likelihood.head(), folder / "head.safetensors")
        self.info |= {
            "format": FORMAT,
            "name": self.name,
            "versions": _versions(),
            "backbone": {"name": self.config.backbone, "sha256": self._backbone.fingerprint()},
            "adapter": (folder / "adapter").is_dir(),
        }
        (folder / "genrec.json").write_text(json.dumps(self.info, indent=2))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> GenRec:
        """Load a run folder.

        Raises:
            RunError: it is missing, incomplete, damaged or from an incompatible version.
        """
        folder = Path(folder)
        info, settings = read_run(folder)
        quiet_transformers()
        model = cls(name=info.get("name", "genrec"), **settings)
        config = model.config
        backbone = load_backbone(config.backbone, dtype=config.dtype, layers=config.layers)
        _check_backbone(folder, info, backbone)
        if info["adapter"]:
            load_adapter(backbone, folder / "adapter")
        prior = None if config.prior == "none" else load_prior(folder / "prior.npz")
        model._assemble(backbone, Catalogue.load(folder / "catalogue.parquet"), prior)
        if prior is not None:
            model._load_head(folder)
        model.info = info
        return model


def _check_backbone(folder: Path, info: dict[str, Any], backbone: Backbone) -> None:
    noted, found = info.get("backbone", {}).get("sha256"), backbone.fingerprint()
    if noted and found and noted != found:
        raise RunError(
            f"{folder}: was trained on other weights of {backbone.name!r} than those found now; "
            "restore them, or train again."
        )


def _padded(items: npt.NDArray[np.int32], scores: npt.NDArray[np.float64], k: int) -> TopK:
    extra = ((0, 0), (0, k - items.shape[1]))
    return TopK(
        np.pad(items, extra, constant_values=-1), np.pad(scores, extra, constant_values=-np.inf)
    )


def _slices(rows: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _training_info(result: TrainingResult) -> dict[str, Any]:
    return {
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "targets": result.targets,
        "log": [{"step": entry["step"], "loss": entry["loss"]} for entry in result.log],
    }


def _versions() -> dict[str, str]:
    import peft
    import transformers

    return {
        "genrec": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "numpy": np.__version__,
    }
