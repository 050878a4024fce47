"""GenRec: a language model, a catalogue and a prior behind one recommender."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
import torch
import yaml
from safetensors.torch import save_file

from genrec.arrays import Floats, Items, Mask
from genrec.collaborative.prior import Prior
from genrec.collaborative.registry import choose_prior, fit_prior, load_prior, save_prior
from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError, RunError
from genrec.files import write_new_folder
from genrec.language_model.adapters import load_adapter, make_trainable
from genrec.language_model.backbone import Backbone, load_backbone, quiet_transformers
from genrec.language_model.checks import check_architecture
from genrec.language_model.decisions import locate_targets
from genrec.language_model.devices import choose_device, choose_dtype, runnable_dtype
from genrec.language_model.likelihood import CatalogueLikelihood, title_log_probs
from genrec.language_model.prior_mass import cumulative_mass
from genrec.language_model.prompts import build_prompts, end_token
from genrec.language_model.sharding import shard
from genrec.language_model.title_index import TitleIndex
from genrec.metrics import ndcg, target_ranks
from genrec.model.run_folder import (
    FORMAT,
    check_backbone,
    checkpoint_folder,
    data_info,
    read_catalogue,
    read_head,
    read_run,
    replace_run,
    versions,
)
from genrec.model.session import KeyValueStore, Session
from genrec.processes import broadcast_from_main, init_processes
from genrec.recommender import Influence, Recommendation, TopK, recommendations
from genrec.search.exact import SearchResult, search
from genrec.search.explain import hidden_log_probs
from genrec.search.free_beams import as_lists, beam_titles
from genrec.search.frontier import SearchOptions
from genrec.search.key_values import KeyValues, read_prompt

if TYPE_CHECKING:
    from genrec.training.trainer import TrainingResult


SCORED_ROWS = 8
DENSE_CELLS = 2**24
"""Most entries of a rows x items table that one batch makes: 128 MiB of prior probabilities."""


class GenRec:
    """An LLM recommender that generates catalogue titles, and only those.

    Settings are the fields of :class:`genrec.config.Config`, e.g. ``backbone``, ``prior``,
    ``lora_rank``; an unknown one raises :class:`genrec.ConfigError`.

    Attributes:
        session_bytes: most memory that the keys and values of all sessions together may hold; set
            it before the first session.
    """

    session_bytes: int = 2**30

    def __init__(self, *, name: str = "genrec", **settings: Any) -> None:
        self.name = name
        self.config = Config.create(**settings)
        self.info: dict[str, Any] = {}
        self.training: TrainingResult | None = None
        self._catalogue: Catalogue | None = None
        self._store: KeyValueStore | None = None
        self._template: KeyValues | None = None  # the prompts' common start, read at first use

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
            valid: if given, its mean log-likelihood per item is recorded before and after training;
                early stopping (``Config.patience``) needs it.
            minutes, epochs: override the configured budget; with both, the first one reached ends.
            output: run folder for checkpoints; training goes on from what is there.
        """
        budget = {"minutes": minutes, "epochs": epochs}
        changes = {key: value for key, value in budget.items() if value is not None}
        self.config = Config.create(**{**self.config.model_dump(), **changes})
        if self.config.patience is not None and (valid is None or not len(valid)):
            raise ConfigError("patience needs validation users: call fit(train, valid=…).")
        self._prepare(train)
        before = self._mean_log_likelihood(valid)
        make_trainable(self._backbone, self.config)
        self._build_likelihood()
        with checkpoint_folder(output) as checkpoints:
            self.training = self._train(train, valid, checkpoints, progress)
        self._backbone.freeze()
        self._template = None
        self.info["training"] = _training_info(self.training)
        self.info["valid_log_likelihood"] = [before, self._mean_log_likelihood(valid)]
        return self

    def prepare(self, train: Dataset) -> Self:
        """Everything but training: tokenise the catalogue, build the trie, fit the prior.

        The result recommends with the backbone as it comes.
        """
        self._prepare(train)
        self._backbone.freeze()
        return self

    def _prepare(self, train: Dataset) -> None:
        quiet_transformers()
        torch.manual_seed(self.config.seed)
        kind = choose_prior(self.config.prior, len(train.catalogue))
        device = choose_device()
        init_processes(cpu=device.type == "cpu")
        dtype = broadcast_from_main(_training_dtype(self.config, device))
        self.config = self.config.model_copy(update={"prior": kind, "dtype": dtype})
        backbone = load_backbone(
            self.config.backbone,
            dtype=dtype,
            layers=self.config.layers,
            quantization=self.config.quantization,
            device=torch.device("cpu") if self.config.fsdp else device,
        )
        if self.config.fsdp:
            shard(backbone.causal_lm, backbone.blocks, device)
        index = TitleIndex.build(
            backbone.tokenizer, train.catalogue.titles, **_title_settings(self.config, backbone)
        )
        longest = int(index.titles.lengths.max(initial=0))
        check_architecture(backbone, self.config.max_tokens, longest)
        prior = fit_prior(self.config.prior, train.histories, len(train.catalogue))
        self._assemble(backbone, train.catalogue, prior, index)
        self.info["data"] = data_info(train)

    def _assemble(
        self, backbone: Backbone, catalogue: Catalogue, prior: Prior | None, index: TitleIndex
    ) -> None:
        self._backbone, self._prior = backbone, prior
        self._set_catalogue(catalogue, index)
        self._build_likelihood()

    def _set_catalogue(self, catalogue: Catalogue, index: TitleIndex) -> None:
        config = self.config
        self._prompts = build_prompts(
            self._backbone.tokenizer,
            index.titles,
            template=config.template,
            max_tokens=config.max_tokens,
        )
        self._catalogue, self._index = catalogue, index

    def _build_likelihood(self) -> None:
        self._likelihood = CatalogueLikelihood(
            self._backbone,
            self._index.trie,
            has_prior=self._prior is not None,
            rank=self.config.residual_rank,
            lm_weight=self.config.lm_weight,
            temperature=self.config.loss_temperature,
        ).eval()
        self._template = None
        self._store = None

    def _train(
        self, data: Dataset, valid: Holdout | None, checkpoints: Path, progress: bool
    ) -> TrainingResult:
        from genrec.training.trainer import train

        return train(
            self._likelihood,
            self._prompts,
            data.histories,
            self._prior,
            self.config,
            checkpoints=checkpoints,
            fingerprint=data.fingerprint,
            look=None if valid is None else partial(self._look, self._sample(valid)),
            progress=progress,
        )

    def _sample(self, holdout: Holdout) -> Holdout:
        return holdout.sample(min(self.config.look_users, len(holdout)), self.config.seed)

    def _look(self, holdout: Holdout) -> dict[str, float]:
        """NDCG@10 and nats per item on validation users, in the middle of training."""
        self._likelihood.eval()
        self._template = None  # its keys and values are of older weights
        found = self.recommend_batch(holdout.histories, 10)
        ranks = target_ranks(found.items, holdout.targets)
        nats = -self.log_likelihood(holdout.histories, holdout.targets).mean()
        self._template = None
        self._likelihood.train()
        return {"NDCG@10": float(ndcg(ranks, 10).mean()), "nats": float(nats)}

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
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        among: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> list[Recommendation]:
        """The k most probable next items after titles or item ids, oldest first.

        Args:
            among: items that may be recommended, shape [items]; see :meth:`Catalogue.mask`.
            exact: otherwise a beam search, for very large catalogues: it may miss items.
            width: nodes of the trie that it keeps a level.

        Raises:
            UnknownItemError: an entry of the history is not in the catalogue.
        """
        items = [self.catalogue.index_of(entry) for entry in history]
        top = self.recommend_batch(
            Histories.from_lists([items]),
            k,
            exclude_seen=exclude_seen,
            among=among,
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
        among: Mask | None = None,
        exact: bool = True,
        width: int = 50,
    ) -> TopK:
        """Top-k for each history; scores are log p(item | history). See :meth:`recommend`."""
        effort = None if exact else SearchOptions(beam=width)
        rows = max(1, DENSE_CELLS // len(self.catalogue))
        parts = [
            self.search(
                histories.select(np.arange(start, min(start + rows, len(histories)))),
                k,
                exclude_seen=exclude_seen,
                among=among,
                effort=effort,
            )
            for start in range(0, max(1, len(histories)), rows)  # once for no histories at all
        ]
        return TopK(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.log_probs for part in parts]),
        )

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        among: Mask | None = None,
        known: Sequence[KeyValues | None] = (),
        keep: bool = False,
        effort: SearchOptions | None = None,
    ) -> SearchResult:
        """:func:`genrec.search.exact.search` for histories; what :class:`Session` and servers call.

        Args:
            among: items that may be recommended, shape [items] or [rows, items].
            known: keys and values that an earlier search for each row returned, if any.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        if effort is not None and effort.beam is not None and effort.beam < 1:
            raise ConfigError(f"width must be at least 1, got {effort.beam}.")
        allowed = self._allowed(histories, exclude_seen, among)
        prompts = [self._prompt(history) for history in histories]
        if self.config.decoding == "beam":
            return self._decode_beams(prompts, k, allowed)
        if self._template is None:
            self._template = read_prompt(self._likelihood, self._prompts.prefixes[0])
        return search(
            self._likelihood,
            prompts,
            k,
            probabilities=None if self._prior is None else self._prior.probabilities(histories),
            allowed=allowed,
            known=[each or self._template for each in known or [None] * len(prompts)],
            keep=keep,
            effort=effort,
        )

    def session(self, history: Sequence[str] = ()) -> Session:
        """A history that can grow and shrink at the cost of what changes (titles or item ids)."""
        if self.config.decoding == "beam":
            raise ConfigError("A session needs decoding=exact; this model decodes by beams.")
        if self._store is None:
            self._store = KeyValueStore(self.session_bytes)
        return Session(self, self._store, history)

    def explain(self, history: Sequence[str], entries: Sequence[str]) -> list[list[Influence]]:
        """For each of the entries, what the items of the history did to its log-probability.

        An effect is log p(item | history) less what it is with that history item hidden from the
        language model and taken from the prior (see :mod:`genrec.search.explain`), in
        nats; strongest first. Items too old to be in the prompt are left out.
        """
        items = [self.catalogue.index_of(entry) for entry in history]
        return self.influences(items, [self.catalogue.index_of(entry) for entry in entries], None)

    def influences(
        self, items: Sequence[int], targets: Sequence[int], known: KeyValues | None
    ) -> list[list[Influence]]:
        """:meth:`explain` for item indices, with the keys and values of a prompt, if there are."""
        wanted = np.array(targets, np.int32)
        if not len(wanted):
            return []
        self._check_offered(wanted)
        shown = self._recent(np.array(items, np.int32))
        ends = len(self._prompts.prefixes[0]) + np.cumsum([0, *self._prompts.titles.lengths[shown]])
        spans = [(0, 0), *zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
        older = len(items) - len(shown)
        rows = [list(items)] + [
            [*items[:place], *items[place + 1 :]] for place in range(older, len(items))
        ]
        sums = self._cumulative_prior(Histories.from_lists(rows))
        prompt = self._prompts.encode(shown)
        read = read_prompt(self._likelihood, prompt, known or self._template)
        log_probs = hidden_log_probs(self._likelihood, read, spans, wanted, sums)
        effects = log_probs[0] - log_probs[1:]
        ids, titles = self.catalogue.item_ids, self.catalogue.titles
        return [
            [
                Influence(ids[shown[i]], titles[shown[i]], float(effect[i]))
                for i in np.argsort(-np.abs(effect), kind="stable")
            ]
            for effect in effects.T
        ]

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """log p(target | history) over the whole catalogue, one value per row, in nats."""
        parts = [
            self._score_rows(histories.select(np.arange(start, stop)), targets[start:stop])
            for start, stop in _slices(len(histories), SCORED_ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def _recent(self, history: Items) -> Items:
        return self._prompts.recent(history, self.config.history_length)

    def _prompt(self, history: Items) -> list[int]:
        return self._prompts.encode(self._recent(history))

    def prompt_text(self, history: Sequence[str]) -> str:
        """What the language model reads for a history of titles or item ids."""
        items = np.array([self.catalogue.index_of(entry) for entry in history], np.int32)
        return str(self._backbone.tokenizer.decode(self._prompt(items)))

    def _allowed(self, histories: Histories, exclude_seen: bool, among: Mask | None) -> Mask | None:
        size = len(self.catalogue)
        shapes = ((size,), (len(histories), size))
        if among is not None and among.shape not in shapes:
            raise DataError(
                f"among has shape {among.shape}, but the catalogue holds {size} items; make it "
                "with catalogue.mask(…)."
            )
        if among is not None:
            among = np.broadcast_to(among, (len(histories), size))
        if not exclude_seen:
            return among
        allowed = ~histories.seen(size)
        return allowed if among is None else allowed & among

    def _cumulative_prior(self, histories: Histories) -> Floats | None:
        if self._prior is None:
            return None
        return cumulative_mass(self._index.trie, self._prior.probabilities(histories))

    def _check_offered(self, items: Items) -> None:
        for item in items[~self._index.offered[items]].tolist():
            raise DataError(f"{self.catalogue.titles[item]!r} was removed: it has no probability.")

    def _decode_beams(self, prompts: list[list[int]], k: int, allowed: Mask | None) -> SearchResult:
        lists = []
        for row, prompt in enumerate(prompts):
            found = beam_titles(self._backbone, self._prompts, prompt, self.config.beams)
            lists.append([pair for pair in found if allowed is None or allowed[row, pair[0]]])
        return SearchResult(*as_lists(lists, k), rounds=0, tokens=0, key_values=[])

    @torch.inference_mode()
    def _score_rows(self, histories: Histories, targets: Items) -> Floats:
        self._check_offered(targets)
        prompts = [self._prompt(history) for history in histories]
        closed = [self._prompts.titles[item].tolist() for item in targets]
        width = max(len(p) + len(t) for p, t in zip(prompts, closed, strict=True))
        ids = np.zeros((len(prompts), width), np.int64)
        for row, (prompt, title) in enumerate(zip(prompts, closed, strict=True)):
            ids[row, : len(prompt) + len(title)] = [*prompt, *title]
        sums = self._cumulative_prior(histories)
        starts = np.array([len(prompt) for prompt in prompts])
        trie = self._index.trie
        located = locate_targets(trie, targets, np.arange(len(prompts)), starts, sums)
        hidden = self._backbone.hidden(torch.from_numpy(ids).to(self._backbone.device))
        return title_log_probs(self._likelihood, hidden, located).cpu().double().numpy()

    def _mean_log_likelihood(self, holdout: Holdout | None, users: int = 200) -> float | None:
        if holdout is None or not len(holdout) or self.config.decoding == "beam":
            return None
        sample = holdout.sample(min(users, len(holdout)), self.config.seed)
        return float(self.log_likelihood(sample.histories, sample.targets).mean())

    # -- changing the catalogue ------------------------------------------------------------------

    def add_items(
        self,
        titles: Sequence[str],
        item_ids: Sequence[str] | None = None,
        *,
        metadata: pl.DataFrame | None = None,
        like: Sequence[str | None] | None = None,
    ) -> None:
        """Take new items into the catalogue; they can be recommended at once, without training.

        The other items keep the form in which the model knows their titles.

        Args:
            item_ids: the titles, if not given.
            metadata: one row for each item.
            like: for each item a known one; to the prior the new item is its twin. Without one it
                is an item of average popularity that nothing leads to.

        Raises:
            DataError: a title or id is empty or taken.
        """
        twins = [None] * len(titles) if like is None else list(like)
        if len(twins) != len(titles):
            raise DataError(f"{len(titles)} new items need as many of like, got {len(twins)}.")
        known = self.catalogue
        sources = [None if entry is None else known.index_of(entry) for entry in twins]
        catalogue = known.extended(titles, titles if item_ids is None else item_ids, metadata)
        index = self._index.add(
            self._backbone.tokenizer,
            catalogue.titles[len(known) :],
            **_title_settings(self.config, self._backbone),
        )
        self._set_catalogue(catalogue, index)
        self._likelihood.trie = index.trie
        if self._prior is not None:
            self._prior = self._prior.extended(sources)

    def remove_items(self, entries: Sequence[str]) -> None:
        """Stop recommending items (titles or ids); histories may still hold them."""
        self._offer(entries, False)

    def restore_items(self, entries: Sequence[str]) -> None:
        """Recommend removed items again."""
        self._offer(entries, True)

    def _offer(self, entries: Sequence[str], yes: bool) -> None:
        index = self._index.offer([self.catalogue.index_of(entry) for entry in entries], yes)
        self._index = index
        self._likelihood.trie = index.trie

    # -- saving ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the run folder; its ``genrec.json`` comes last and marks it complete.

        Raises:
            RunError: the folder holds other things.
        """
        replace_run(Path(folder), self._write)

    def export(self, folder: str | Path) -> None:
        """Write the language model, its adapter merged in, as plain transformers loads it.

        The prior and the residual beside it stay behind: plain transformers knows neither.

        Raises:
            RunError: the folder exists and is not empty.
        """
        assert len(self.catalogue)  # raises where nothing is fitted or loaded
        write_new_folder(Path(folder), self._backbone.export)

    @property
    def _own_weights(self) -> bool:
        return self.config.tuning == "full" and "training" in self.info

    def _write(self, folder: Path) -> None:
        self.catalogue.save(folder / "catalogue.parquet")
        settings = self.config.model_dump(mode="json")
        (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        self._index.save(folder / "index")
        if self._backbone.adapter:
            self._backbone.save_adapter(folder / "adapter")
        if self._own_weights:
            self._backbone.export(folder / "backbone")
        if self._prior is not None:
            save_prior(self._prior, folder / "prior.npz")
            save_file(self._likelihood.head(), folder / "head.safetensors")
        self.info |= {
            "format": FORMAT,
            "name": self.name,
            "versions": versions(),
            "backbone": {"name": self.config.backbone, "sha256": self._backbone.fingerprint()},
            "adapter": (folder / "adapter").is_dir(),
            "own_weights": self._own_weights,
        }
        (folder / "genrec.json").write_text(json.dumps(self.info, indent=2))

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: str | None = None) -> GenRec:
        """Load a run folder.

        Args:
            dtype: as in :class:`Config`; by default that of training, but on a CPU the
                faster of float32 and bfloat16 in the place of other types than float32.

        Raises:
            RunError: it is missing, incomplete, damaged or from an incompatible version.
        """
        folder = Path(folder)
        info, settings = read_run(folder)
        quiet_transformers()
        model = cls(name=info.get("name", "genrec"), **settings)
        config = model.config
        own = folder / "backbone" if info["own_weights"] else None
        backbone = load_backbone(
            config.backbone,
            dtype=dtype or runnable_dtype(config.dtype),
            layers=None if own else config.layers,
            quantization=config.quantization,
            folder=own,
        )
        if own is None:
            check_backbone(folder, info, backbone)
        if info["adapter"]:
            load_adapter(backbone, folder / "adapter")
        backbone.freeze()
        prior = None if config.prior == "none" else load_prior(folder / "prior.npz")
        catalogue, index = read_catalogue(folder)
        model._assemble(backbone, catalogue, prior, index)
        if prior is not None:
            read_head(folder, model._likelihood)
        model.info = info
        return model


def _training_dtype(config: Config, device: torch.device) -> str:
    """Weights that are trained themselves need float32: steps are too small for bfloat16."""
    if config.tuning == "full":
        return "float32"
    return str(choose_dtype(config.dtype, device)).removeprefix("torch.")


def _title_settings(config: Config, backbone: Backbone) -> dict[str, Any]:
    end = end_token(backbone.tokenizer)
    return {"form": config.titles, "limit": config.title_tokens, "end": end}


def _slices(rows: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _training_info(result: TrainingResult) -> dict[str, Any]:
    looks = [{key: look[key] for key in look if key != "epoch"} for look in result.looks]
    return {
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "targets": result.targets,
        "processes": result.processes,
        "log": [{"step": entry["step"], "loss": entry["loss"]} for entry in result.log],
        **({"looks": looks, "best_step": result.best_step} if looks else {}),
    }
