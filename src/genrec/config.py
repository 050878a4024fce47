"""The one frozen configuration of a GenRec model; unknown keys are errors."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from genrec.errors import ConfigError

PAPER_SETTINGS: dict[str, Any] = {
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
"""Hyperparameters of arXiv 2307.00457 where they differ from GenRec's own defaults."""


class Settings(TypedDict, total=False):
    """The fields of :class:`Config` beside ``backbone``, for editors and type checkers."""

    recipe: Literal["default", "paper"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    quantization: Literal["none", "4bit"]
    fsdp: bool
    layers: int | None
    template: Literal["list", "instruction"]
    titles: Literal["short", "display"]
    title_tokens: int
    history_length: int
    max_tokens: int
    prior: str
    lm_weight: float
    residual_rank: int
    decoding: Literal["exact", "beam"]
    beams: int
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
    microbatch_size: int
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
    """Everything that decides what a model is and how it is trained.

    Build it with :meth:`create`, which turns validation failures into :class:`ConfigError`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["default", "paper"] = "default"
    backbone: str = Field("smollm2-135m", description="known name, Hub id or local folder")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the machine multiplies it faster than float32"
    )
    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit: QLoRA, the frozen backbone in NF4 (needs bitsandbytes)"
    )
    fsdp: bool = Field(
        False, description="each of several processes holds its share of the frozen layers' weights"
    )
    layers: int | None = Field(
        None, ge=1, description="keep the first n decoder layers; all if None"
    )

    template: Literal["list", "instruction"] = "list"
    titles: Literal["short", "display"] = Field(
        "short", description="form the model reads and writes"
    )
    title_tokens: int = Field(
        24, ge=2, description="short titles are cut to about this many tokens"
    )
    history_length: int = Field(20, ge=1, description="most recent items in a prompt")
    max_tokens: int = Field(1024, ge=16, description="most tokens in a prompt; the oldest items go")

    prior: str = Field(
        "auto",
        description="pooled, transitions, cooccurrence, popularity, sasrec or none; auto: pooled, "
        "or transitions where the catalogue is too large for it",
    )
    lm_weight: float = Field(1.0, ge=0, description="factor of the LM's residual beside a prior")
    residual_rank: int = Field(32, ge=1, description="rank of that residual")
    decoding: Literal["exact", "beam"] = Field(
        "exact", description="beam: the paper's, unconstrained"
    )
    beams: int = Field(10, ge=1, description="beams of unconstrained decoding")

    tuning: Literal["lora", "full"] = Field(
        "lora", description="full: train the weights themselves"
    )
    trained_layers: int | None = Field(6, ge=1, description="train the last n layers; all if None")
    lora_rank: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_targets: str | tuple[str, ...] = Field("all-linear", description="names of linear modules")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank), arXiv 2312.03732")

    loss: Literal["catalogue", "full-vocabulary", "all-tokens"] = Field(
        "catalogue",
        description="over a decision's children; over all tokens, at titles or everywhere",
    )
    loss_temperature: float | Literal["adaptive"] = Field(
        1.0, description="divides the logits in training, arXiv 2504.04178; prior=none only"
    )
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="of the learning rate after the warm-up, over the whole budget"
    )
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(10, ge=0)
    window: int = Field(20, ge=1, description="targets in one training window")
    windows_per_user: int | None = Field(
        2, ge=1, description="train on the last n windows of each history; all if None"
    )
    batch_size: int = Field(16, ge=1, description="windows (paper: examples) in an optimiser step")
    microbatch_size: int = Field(
        8, ge=1, description="windows in one forward pass; the rest of a batch is accumulated"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, a third more time")
    epochs: float | None = Field(None, gt=0, description="1 if neither this nor minutes is set")
    minutes: float | None = Field(None, gt=0, description="wall-clock budget of training")
    max_grad_norm: float = Field(1.0, gt=0)
    save_steps: int = Field(50, ge=1, description="optimiser steps between checkpoints")
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after n evaluations without a better validation NDCG@10; keep the best",
    )
    eval_steps: int = Field(
        50, ge=1, description="optimiser steps between two evaluations on validation users"
    )
    eval_users: int = Field(500, ge=1, description="validation users in such an evaluation")
    report_to: tuple[str, ...] = Field((), description="trackers of HF Trainer, e.g. tensorboard")
    seed: int = 0

    @classmethod
    def create(cls, **settings: Any) -> Config:
        """Defaults of the named recipe, overridden by ``settings``.

        Raises:
            ConfigError: a key is unknown or a value is out of range; the message names it.
        """
        base = PAPER_SETTINGS if settings.get("recipe") == "paper" else {}
        try:
            return cls(**{**base, **settings})
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None

    def with_budget(self, *, minutes: float | None, epochs: float | None) -> Config:
        """The same settings with another budget of training, where one is given."""
        budget = {"minutes": minutes, "epochs": epochs}
        changes = {key: value for key, value in budget.items() if value is not None}
        return Config.create(**{**self.model_dump(), **changes})

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.batch_size % self.microbatch_size and self.batch_size > self.microbatch_size:
            raise ValueError("batch_size must be a multiple of microbatch_size")
        plain = (self.loss, self.loss_temperature, self.decoding) == ("catalogue", 1.0, "exact")
        if self.prior != "none" and not plain:
            raise ValueError(
                "other losses than catalogue, loss_temperature and decoding=beam know no prior: "
                "set prior=none"
            )
        if self.loss_temperature != "adaptive" and self.loss_temperature <= 0:
            raise ValueError("loss_temperature must be positive, or adaptive")
        if self.loss_temperature != 1.0 and self.loss != "catalogue":
            raise ValueError("loss_temperature is for loss=catalogue")
        if self.tuning == "full" and self.dtype not in ("auto", "float32"):
            raise ValueError("weights that are trained themselves need dtype=float32")
        if self.fsdp and (self.tuning, self.quantization) != ("lora", "none"):
            raise ValueError(
                "fsdp shares out what LoRA leaves frozen: set tuning=lora, quantization=none"
            )
        if self.quantization != "none" and self.tuning == "full":
            raise ValueError("quantized weights cannot be trained: set tuning=lora")
        return self


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        key = ".".join(map(str, item["loc"])) or "settings"
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown setting {key!r}; known are {', '.join(Config.model_fields)}")
        else:
            problems.append(f"setting {key!r}: {item['msg']} (got {item['input']!r})")
    return "; ".join(problems)


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn ``key=value`` strings from the command line into settings (values are YAML scalars)."""
    import yaml

    settings: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set takes key=value, got {text!r}")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {key}: {value!r} is no YAML value.") from None
        # YAML 1.1 reads 1e-3 as a string; Pydantic turns numeric strings into numbers.
        settings[key.strip()] = tuple(parsed) if isinstance(parsed, list) else parsed
    return settings
