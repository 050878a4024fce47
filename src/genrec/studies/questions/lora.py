"""LoRA rank and target modules against memory, time and quality."""

from __future__ import annotations

from typing import Any

from genrec.data.splits import Split
from genrec.studies.study import Arm, Plot, Study

TOP, WHOLE = "Layers that see the history", "All layers, the whole history (as in the paper)"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
QV = ("q_proj", "v_proj")
FEW = 0.03
"""Share of the targets for arms that run the whole model; they serve to measure memory and time."""


def _lora(rank: int, **settings: Any) -> dict[str, Any]:
    return {"prior": "none", "lora_rank": rank, "lora_alpha": 2 * rank, **settings}


def _arms(split: Split) -> list[Arm]:
    ranks = [
        Arm(f"rank {rank}, all linear", TOP, _lora(rank), x=rank)
        for rank in (16, 1, 2, 4, 8, 32, 64)
    ]
    modules = [
        Arm("rank 16, attention", TOP, _lora(16, lora_targets=ATTENTION), x=16),
        Arm("rank 16, q and v", TOP, _lora(16, lora_targets=QV), x=16),
        Arm("rank 8, q and v", TOP, _lora(8, lora_targets=QV), x=8),
        Arm("rank 16, last 3 layers", TOP, _lora(16, trained_layers=3), x=16),
        Arm("rank 16, last layer", TOP, _lora(16, trained_layers=1), x=16),
    ]
    full = [
        Arm(
            f"full fine-tuning, learning rate {rate:g}",
            TOP,
            {"prior": "none", "tuning": "full", "learning_rate": rate},
        )
        for rate in (1e-4, 3e-4)
    ]
    whole: dict[str, Any] = {"context_layers": None, "trained_layers": None}
    paper = [
        Arm("LoRA rank 8, q and v", WHOLE, _lora(8, lora_targets=QV, **whole), effort=FEW),
        Arm(
            "full fine-tuning",
            WHOLE,
            {"prior": "none", "tuning": "full", "learning_rate": 1e-4, **whole},
            effort=FEW,
        ),
        Arm("LoRA rank 16, all linear", WHOLE, _lora(16, **whole), effort=FEW),
    ]
    return [*ranks, *modules, *full, *(_few(arm) for arm in paper)]


def _few(arm: Arm) -> Arm:
    return Arm(arm.name, arm.group, arm.settings, effort=arm.effort, users=0.1)


STUDY = Study(
    name="lora",
    title="LoRA rank and target modules",
    question="What does a LoRA rank cost in memory, time and disk space, what does it gain, and "
    "what would full fine-tuning of the same layers give?",
    arms=_arms,
    plots=(
        Plot("nll", "NLL of each arm (nats per item)", "nll", "dots", groups=(TOP,)),
        Plot(
            "pareto",
            "NLL by trained weights",
            "nll",
            "scatter",
            x="parameters",
            groups=(TOP,),
        ),
        Plot("memory", "Peak memory in training (MB)", "train_peak_mb", "dots"),
    ),
    measures=(
        *("parameters", "adapter_mb", "train_peak_mb", "train_seconds"),
        *("targets_per_second", "request_ms"),
    ),
)
