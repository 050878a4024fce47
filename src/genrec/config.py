"""The configuration of a GenRec model: frozen, validated, and strict about unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from genrec.errors import ConfigError

PAPER_SETTINGS: dict[str, Any] = {
    "context_layers": None,
    "windows_per_user": None,
    "template": "instruction",
    "titles": "display",
    "prior": "none",
    "loss": "all-tokens",
    "decoding": "beam",
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "trained_layers": None,
    "lora_targets": ("q_proj", "v_proj"),
    "learning_rate": 3e-4,
    "epochs": 3.0,
    "batch_size": 128,
    "microbatch_size": 4,
    "warmup_steps": 100,
    "max_tokens": 256,
}
"""Hyperparameters of arXiv 2307.00457 that differ from GenRec's own defaults."""


def _split_names(value: Any) -> Any:
    """Turn ``"a,b"`` into a tuple; ``"auto"`` and ``"none"`` stay."""
    if not isinstance(value, str) or value in ("auto", "none"):
        return value
    return tuple(name.strip() for name in value.split(","))


Template = Literal["list", "plain", "numbered", "instruction", "one-instruction", "chat"]
RatingValues = Literal["none", "auto"] | tuple[float, ...]


class Settings(TypedDict, total=False):
    """All fields of :class:`Config` except ``backbone``, for editors and type checkers."""

    recipe: Literal["default", "paper"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    quantization: Literal["none", "4bit"]
    fsdp: bool
    layers: int | None
    context_layers: int | Literal["auto"] | None
    template: Template
    history_order: Literal["oldest-first", "newest-first"]
    separator: Literal["newline", "semicolon", "bar"]
    ratings: RatingValues
    titles: Literal["short", "display"]
    title_tokens: int
    history_length: int
    max_tokens: int
    prior: str
    experts: Literal["auto"] | str | tuple[str, ...]
    lm_weight: Literal["auto"] | float
    words_weight: Literal["auto"] | float
    residual_rank: int
    decoding: Literal["exact", "beam"]
    beams: int
    init_from: str | None
    tuning: Literal["lora", "full"]
    trained_layers: int | None
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: str | tuple[str, ...]
    rslora: bool
    loss: Literal["catalogue", "full-vocabulary", "all-tokens"]
    loss_temperature: float | Literal["adaptive"]
    learning_rate: float
    schedule: Literal["linear", "cosine", "constant"]
    weight_decay: float
    warmup_steps: int
    window: int
    windows_per_user: int | None
    batch_size: int
    microbatch_size: Literal["auto"] | int
    gradient_checkpointing: bool
    epochs: float | None
    minutes: float | None
    max_grad_norm: float
    save_steps: int
    patience: int | None
    eval_steps: int
    eval_users: int
    report_to: tuple[str, ...]
    seed: int


class Config(BaseModel):
    """All settings of a model; :meth:`create` reports invalid values as ConfigError."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["default", "paper"] = Field(
        "default",
        description="set of default values; paper: those of arXiv 2307.00457",
    )
    backbone: str = Field(
        "smollm2-135m",
        description="pretrained language model: a known name, a Hugging Face Hub id or a folder",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="number format of the weights; auto: bfloat16 where the machine multiplies it "
        "faster than float32",
    )
    quantization: Literal["none", "4bit"] = Field(
        "none",
        description="format of the frozen backbone; 4bit: NF4 as in QLoRA (needs bitsandbytes)",
    )
    fsdp: bool = Field(
        False,
        description="shard the weights of the frozen layers across the training processes",
    )
    layers: int | None = Field(
        None, ge=1, description="keep only the first n decoder layers; all if None"
    )

    context_layers: int | Literal["auto"] | None = Field(
        "auto",
        description="only the last n decoder layers see the history, as one position for each "
        "title; the layers below read each title once per catalogue. None: all layers read all "
        "tokens of the history, as in the paper; auto: 6, at most half of the layers",
    )

    template: Template = Field(
        "list",
        description="form of the prompt: list (a line of text, then titles), plain (titles alone), "
        "numbered (list), instruction (the paper's; in ten wordings if context_layers is null), "
        "one-instruction (in one wording) or chat (the backbone's format)",
    )
    history_order: Literal["oldest-first", "newest-first"] = Field(
        "oldest-first", description="order of the titles in a prompt"
    )
    separator: Literal["newline", "semicolon", "bar"] = Field(
        "newline", description="what closes each title in a prompt; no title may contain it"
    )
    ratings: Annotated[RatingValues, BeforeValidator(_split_names)] = Field(
        "none",
        description="the user's ratings that a prompt says after each title; auto: those of the "
        "training data; 1,2,3,4,5: the nearest of these; two numbers stand for disliked and liked",
    )
    titles: Literal["short", "display"] = Field(
        "short", description="form of the titles in prompts and in generated text"
    )
    title_tokens: int = Field(
        24, ge=2, description="approximate maximum length of a short title, in tokens"
    )
    history_length: int = Field(
        20, ge=1, description="maximum number of items in a prompt, the most recent ones"
    )
    max_tokens: int = Field(
        1024,
        ge=16,
        description="maximum length of a prompt in tokens; the oldest items are dropped first",
    )

    prior: str = Field(
        "auto",
        description="distribution over items that the language model corrects: pooled, "
        "transitions, cooccurrence, popularity or none; auto: pooled, or transitions if the "
        "catalogue is too large for pooled",
    )
    experts: Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_split_names)] = Field(
        "auto",
        description="parts of the pooled prior: names such as transitions,text,sasrec; auto: those "
        "that help on validation users",
    )
    lm_weight: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="factor of the residual, the correction that the language model adds to the "
        "prior; auto: fitted on validation users after training, 1 without any, and 0 if they do "
        "not show that it helps",
    )
    words_weight: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="weight of the words of a request, such as 'a light comedy'; auto: fitted on "
        "validation users after training, 10 without any",
    )
    residual_rank: int = Field(
        32, ge=1, description="rank of the projection that computes the residual"
    )
    decoding: Literal["exact", "beam"] = Field(
        "exact",
        description="exact: exact search over the title trie; beam: the unconstrained beam search "
        "of the paper",
    )
    beams: int = Field(10, ge=1, description="number of beams for decoding=beam")

    init_from: str | None = Field(
        None,
        description="run or published adapter with whose weights training starts: a folder or a "
        "Hugging Face Hub id; with epochs=0 they are used as they are",
    )
    tuning: Literal["lora", "full"] = Field(
        "lora",
        description="lora: train an adapter; full: train the backbone's own weights",
    )
    trained_layers: int | None = Field(
        6,
        ge=1,
        description="train only the last n decoder layers, at most context_layers; all that can "
        "be trained if None",
    )
    lora_rank: int = Field(16, ge=1, description="rank of the adapter's matrices")
    lora_alpha: int = Field(32, ge=1, description="the adapter is scaled by lora_alpha / lora_rank")
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout rate before the adapter, in training only"
    )
    lora_targets: str | tuple[str, ...] = Field(
        "all-linear", description="names of the linear modules that get an adapter"
    )
    rslora: bool = Field(
        False, description="scale the adapter by alpha / sqrt(rank) instead, arXiv 2312.03732"
    )

    loss: Literal["catalogue", "full-vocabulary", "all-tokens"] = Field(
        "catalogue",
        description="cross-entropy in training; catalogue: over the tokens that the title trie "
        "allows; full-vocabulary: over all tokens, at titles; all-tokens: over all tokens, "
        "at every position",
    )
    loss_temperature: float | Literal["adaptive"] = Field(
        1.0,
        description="divisor of the logits in training, arXiv 2504.04178; other values than 1 need "
        "prior=none",
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate, after the warm-up")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="learning rate schedule after the warm-up, over the whole training budget",
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    warmup_steps: int = Field(
        10, ge=0, description="optimiser steps in which the learning rate rises to its peak"
    )
    window: int = Field(20, ge=1, description="number of targets in one training window")
    windows_per_user: int | None = Field(
        2, ge=1, description="train on the last n windows of each history; all if None"
    )
    batch_size: int = Field(
        16, ge=1, description="windows (recipe paper: examples) per optimiser step"
    )
    microbatch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="windows per forward pass; gradients are accumulated over a batch. auto: at "
        "most 16 where titles are read once, else at most 8",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations: less memory, about a third more time"
    )
    epochs: float | None = Field(
        None,
        ge=0,
        description="maximum number of passes over the training data; 1 if minutes is not set "
        "either; 0 trains nothing, so that a run ranks as its prior or as init_from does",
    )
    minutes: float | None = Field(
        None, gt=0, description="maximum training time in minutes (wall clock)"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    save_steps: int = Field(50, ge=1, description="optimiser steps between two checkpoints")
    patience: int | None = Field(
        None,
        ge=1,
        description="early stopping: stop after n evaluation steps without a better validation "
        "NDCG@10 and keep the best weights; off if None",
    )
    eval_steps: int = Field(50, ge=1, description="optimiser steps between two evaluation steps")
    eval_users: int = Field(
        500, ge=1, description="number of validation users in an evaluation step"
    )
    report_to: tuple[str, ...] = Field(
        (), description="experiment trackers of the Hugging Face Trainer, e.g. tensorboard"
    )
    seed: int = Field(0, description="seed of all random numbers in training")

    @classmethod
    def create(cls, **settings: Any) -> Config:
        """Build a configuration from the defaults of a recipe and the given settings.

        Args:
            settings: fields of this class; they override the defaults of ``recipe``.

        Raises:
            ConfigError: A key is unknown or a value is invalid; the message names the key.
        """
        base = PAPER_SETTINGS if settings.get("recipe") == "paper" else {}
        try:
            return cls(**{**base, **settings})
        except ValidationError as error:
            raise invalid_settings(error, cls.model_fields) from None

    @property
    def reads_tokens(self) -> bool:
        """Whether loss, decoding or template need every token of a title in every layer."""
        return (self.loss, self.decoding) != ("catalogue", "exact") or self.template == "numbered"

    def with_budget(self, *, minutes: float | None, epochs: float | None) -> Config:
        """Return a copy with another training budget.

        Args:
            minutes: wall-clock time in minutes; unchanged if ``None``.
            epochs: passes over the training data; unchanged if ``None``.
        """
        budget = {"minutes": minutes, "epochs": epochs}
        changes = {key: value for key, value in budget.items() if value is not None}
        return Config.create(**{**self.model_dump(), **changes})

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.epochs == 0 and self.minutes is not None:
            raise ValueError("epochs=0 trains nothing, so leave minutes out")
        if self.epochs == 0 and self.init_from is None and self.prior == "none":
            raise ValueError("epochs=0 trains nothing, so it needs a prior or init_from")
        size = 1 if self.microbatch_size == "auto" else self.microbatch_size
        if self.batch_size % size and self.batch_size > size:
            raise ValueError("batch_size must be a multiple of microbatch_size")
        plain = (self.loss, self.loss_temperature, self.decoding) == ("catalogue", 1.0, "exact")
        if self.prior != "none" and not plain:
            raise ValueError(
                "a loss other than catalogue, a loss_temperature other than 1 and decoding=beam "
                "do not work with a prior; set prior=none"
            )
        if isinstance(self.context_layers, int):
            if self.context_layers < 1:
                raise ValueError("context_layers must be at least 1, auto or null")
            if self.reads_tokens:
                raise ValueError(
                    "a loss other than catalogue, decoding=beam and template=numbered need every "
                    "token of the history; set context_layers=null"
                )
        if self.loss != "catalogue" and (self.ratings != "none" or self.template == "numbered"):
            raise ValueError("ratings and template=numbered need loss=catalogue")
        if self.loss_temperature != "adaptive" and self.loss_temperature <= 0:
            raise ValueError("loss_temperature must be a positive number or adaptive")
        if self.loss_temperature != 1.0 and self.loss != "catalogue":
            raise ValueError("loss_temperature other than 1 needs loss=catalogue")
        if self.tuning == "full" and self.dtype not in ("auto", "float32"):
            raise ValueError("tuning=full needs dtype=float32 or dtype=auto")
        if self.fsdp and (self.tuning, self.quantization) != ("lora", "none"):
            raise ValueError("fsdp needs frozen weights; set tuning=lora and quantization=none")
        if self.quantization != "none" and self.tuning == "full":
            raise ValueError("quantized weights cannot be trained; set tuning=lora")
        return self


def invalid_settings(error: ValidationError, known: Collection[str]) -> ConfigError:
    """Return the error that names each invalid setting, and close ones for an unknown key.

    Args:
        error: what Pydantic found.
        known: names of the settings.
    """
    problems: list[str] = []
    wrong: dict[str, tuple[list[str], object]] = {}  # one entry for all types that a setting may be
    for item in error.errors():
        if item["type"] == "extra_forbidden":
            problems.append(_unknown_setting(str(item["loc"][0]), known))
        elif not item["loc"]:  # settings that do not go together
            problems.append(item["msg"].removeprefix("Value error, "))
        else:
            wrong.setdefault(str(item["loc"][0]), ([], item["input"]))[0].append(item["msg"])
    for key, (reasons, value) in wrong.items():
        problems.append(f"setting {key!r}: {' or '.join(reasons)} (got {value!r})")
    return ConfigError("; ".join(problems))


def _unknown_setting(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, known, n=3)
    if close:
        return f"unknown setting {key!r}; did you mean {' or '.join(map(repr, close))}?"
    return f"unknown setting {key!r}; the settings are {', '.join(known)}"
