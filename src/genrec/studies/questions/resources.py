"""Memory, training time and latency across sizes and settings, each beside its lower bound."""

from __future__ import annotations

from typing import Any

from genrec.data.splits import Split
from genrec.studies.study import Arm, Plot, Study

CATALOGUE = "Number of items (synthetic titles)"
INTERACTIONS = "Number of interactions, beside the prior"
SETTINGS = "LoRA and number format"
WHOLE = "All layers read all tokens"
SIZES = (1_000, 10_000, 120_000, 1_000_000)
SHARES = (1.0, 0.25, 0.0625)
EFFORT, FEW = 0.1, 0.02
"""Shares of the study's targets: enough to measure a rate."""


def _arms(split: Split) -> list[Arm]:
    sizes = [
        Arm(
            f"{size:,} items",
            CATALOGUE,
            {"prior": "none"},
            (f"synthetic={size}",),
            effort=EFFORT,
            users=0.05,
            x=size,
        )
        for size in SIZES
    ]
    settings: dict[str, dict[str, Any]] = {
        "bfloat16, rank 16": {"dtype": "bfloat16"},
        "float32, rank 16": {"dtype": "float32"},
        "bfloat16, rank 64": {"dtype": "bfloat16", "lora_rank": 64, "lora_alpha": 128},
        "bfloat16, recomputed activations": {"dtype": "bfloat16", "gradient_checkpointing": True},
        "float32, full fine-tuning": {"tuning": "full", "learning_rate": 1e-4},
    }
    formats = [
        Arm(name, SETTINGS, {"prior": "none", **own}, effort=EFFORT, users=0.05)
        for name, own in settings.items()
    ]
    histories = split.train.histories
    shares = [
        Arm(
            f"{share * len(histories.items):,.0f} interactions",
            INTERACTIONS,
            {"prior": "transitions"},
            () if share == 1 else (f"users={share}",),
            effort=EFFORT,
            users=0.05,
            x=share * len(histories.items),
        )
        for share in SHARES
    ]
    whole: dict[str, Any] = {"prior": "none", "context_layers": None}
    full = {"tuning": "full", "learning_rate": 1e-4, "trained_layers": None}
    tokens = [
        Arm("LoRA on the last 6 layers", WHOLE, whole, effort=FEW, users=0.02),
        Arm("full fine-tuning of all layers", WHOLE, {**whole, **full}, effort=FEW, users=0.02),
    ]
    return [*sizes, *formats, *shares, *tokens]


STUDY = Study(
    name="resources",
    title="Memory, time and their lower bounds",
    question="What do memory, training time and the latency of a request depend on, and how far "
    "are they from what this machine's matrix products and memory bandwidth allow?",
    arms=_arms,
    plots=(
        Plot("request", "Request (ms) by items", "request_ms", "curves", groups=(CATALOGUE,)),
        Plot("memory", "Peak memory (MB) by items", "train_peak_mb", "curves", groups=(CATALOGUE,)),
        Plot("training", "Training: time as a multiple of its bound", "train_ratio", "dots"),
        Plot("latency", "Request: time as a multiple of its bound", "request_ratio", "dots"),
    ),
    bounds=True,
    paired=False,  # synthetic data have targets of their own
    measures=(
        *("build_seconds", "build_peak_mb", "train_peak_mb", "targets_per_second", "train_ratio"),
        *("request_ms", "bound_ms", "request_ratio"),
    ),
)
