"""Other backbones, and what pretraining is worth."""

from __future__ import annotations

from typing import Any

from genrec.data.splits import Split
from genrec.studies.study import Arm, Plot, Study

DEPTH, PRETRAINING, OTHERS = "Depth of SmolLM2-135M", "Pretraining", "Other backbones"
FULL: dict[str, Any] = {"prior": "none", "tuning": "full", "learning_rate": 3e-4}
KNOWN = ("gemma3-270m",)
"""Further backbones that GenRec knows by name."""
WINDOW = 480
"""Most tokens of a prompt, which fit into the attention window of all of them."""


def _arms(split: Split) -> list[Arm]:
    depth = [
        Arm(
            "all 30 layers" if layers == 30 else f"the first {layers} layers",
            DEPTH,
            {"prior": "none", "layers": layers},
            x=layers,
        )
        for layers in (30, 24, 18, 12, 8)
    ]
    weights = [
        Arm("pretrained, LoRA", PRETRAINING, {"prior": "none"}),
        Arm("random weights, LoRA", PRETRAINING, {"prior": "none"}, random_weights=True),
        Arm("pretrained, top layers tuned in full", PRETRAINING, FULL),
        Arm("random weights, top layers tuned in full", PRETRAINING, FULL, random_weights=True),
    ]
    others = [
        Arm(name, OTHERS, {"prior": "none", "max_tokens": WINDOW, "backbone": name})
        for name in ("smollm2-135m", *KNOWN)
    ]
    return [*depth, *weights, *others]


STUDY = Study(
    name="backbones",
    title="Backbones",
    question="How much do the depth of the backbone and its pretraining matter? `--set "
    "backbone=…` runs all arms with any other Hub id, known name or folder.",
    arms=_arms,
    plots=(
        Plot("depth", "NLL by layers", "nll", "curves", groups=(DEPTH,)),
        Plot("pretraining", "Gain in NLL (nats)", "nll", groups=(PRETRAINING,)),
    ),
    measures=("build_seconds", "train_seconds", "train_peak_mb", "request_ms"),
)
