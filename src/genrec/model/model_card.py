"""The model card of a run folder, and that of an exported language model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from genrec.config import Config
from genrec.data.catalogue import Catalogue

HUB_IDS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Where the known backbones come from on the Hugging Face Hub."""
SHOWN = ("HR@10", "NDCG@10")
Metrics = Mapping[str, Mapping[str, Any]]
"""Entries of metrics.json by the name of the model."""


def model_card(
    info: Mapping[str, Any],
    config: Config,
    catalogue: Catalogue,
    metrics: Metrics | None = None,
    *,
    repo: str = "path/of/this/folder",
) -> str:
    """README.md of a run: what it is, how it was made, how good it is, how to use it.

    It begins with the metadata block that the Hugging Face Hub reads.

    Args:
        info: what ``genrec.json`` holds.
        config: the run's resolved settings.
        metrics: what was measured; the run's own entry is named as the run is.
        repo: what the example loads.
    """
    metrics = metrics or {}
    parts = [_metadata(info, config, metrics), _facts(info, config, catalogue)]
    if metrics:
        parts.append(_table(metrics))
    example = f"""```python
import genrec
model = genrec.GenRec.from_pretrained({repo!r})
model.recommend([{catalogue.titles[0]!r}], k=5)
```
"""
    return "\n".join([*parts, example])


def _metadata(info: Mapping[str, Any], config: Config, metrics: Metrics) -> str:
    base = HUB_IDS.get(config.backbone, config.backbone)
    block: dict[str, Any] = {
        "library_name": "genrec",
        "tags": ["recommender-system", "generative-recommendation", "next-item"],
        "datasets": [info["data"]["name"]],
        "metrics": [name.lower() for name in SHOWN],
    }
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        block["base_model"] = base
    own = metrics.get(str(info.get("name", "genrec")))
    if own:
        block["model-index"] = [
            {"name": info.get("name", "genrec"), "results": [_result(info, own)]}
        ]
    return f"---\n{yaml.safe_dump(block, sort_keys=False)}---\n"


def _result(info: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    name = info["data"]["name"]
    return {
        "task": {"type": "recommendation", "name": "next-item recommendation"},
        "dataset": {"name": name, "type": name, "split": own.get("split", "test")},
        "metrics": [{"type": each.lower(), "value": round(own[each], 4)} for each in SHOWN],
    }


def _facts(info: Mapping[str, Any], config: Config, catalogue: Catalogue) -> str:
    data, training = info["data"], info.get("training", {})
    versions = ", ".join(f"{name} {number}" for name, number in info.get("versions", {}).items())
    trained = "not trained"
    if training:
        trained = (
            f"{training['steps']} steps, {training['targets']} targets, {training['seconds']} s, "
            f"seed {config.seed}{_kept(training)}"
        )
    return f"""# GenRec on {data["name"]}

This model recommends the next item by generating its title with {config.backbone}. It chooses
exactly among the {len(catalogue)} titles of its catalogue (recipe {config.recipe}, prior
{config.prior}).

- Data: {data["name"]}, split {data.get("split")}, ties {data.get("tie_rule")}, fingerprint
  `{data["fingerprint"][:16]}`
- Training: {trained}
- {_weights(config)}
- Versions: {versions}
- Written: {datetime.now(UTC):%Y-%m-%d}
"""


def _kept(training: Mapping[str, Any]) -> str:
    # Runs of format 3 that were written before 0.1.0 call them "looks".
    evaluations = training.get("evaluations", training.get("looks"))
    if not evaluations:
        return ""
    best = training["best_step"]
    return f"; the weights are those of step {best}, the best of {len(evaluations)} evaluations"


def _weights(config: Config) -> str:
    if config.tuning == "full":
        return "Weights: trained themselves, in `backbone/` (plain transformers files)"
    where = f"the last {config.trained_layers} layers" if config.trained_layers else "all layers"
    return (
        f"Adapter: LoRA rank {config.lora_rank}, alpha {config.lora_alpha}, {where}, in `adapter/` "
        "(plain PEFT files)"
    )


def _table(metrics: Metrics) -> str:
    rows = [
        f"| {name} | {entry['HR@10']:.4f} | {entry['NDCG@10']:.4f} | {entry['users']} |"
        for name, entry in metrics.items()
        if all(shown in entry for shown in SHOWN)
    ]
    head = ["| model | HR@10 | NDCG@10 | users |", "|---|---|---|---|"]
    note = "Each target is ranked against the whole catalogue, without the items a user has seen."
    return "\n".join([*head, *rows, "", f"{note} `report.html` has the intervals.", ""])


def export_card(name: str, info: Mapping[str, Any], config: Config, prompt: str) -> str:
    """README.md of an exported language model.

    Args:
        name: of the run.
        prompt: an example of what the model reads.
    """
    beside = ""
    if config.prior != "none":
        beside = f"""
It is only a part of the recommender: there it corrects the prior {config.prior}, which plain
transformers does not know. For recommendations load the run itself with `GenRec.from_pretrained`.
"""
    return f"""# The language model of {name}

This is {config.backbone} as a GenRec run trained it on {info["data"]["name"]}, with its adapter
merged in. Plain transformers loads it.
{beside}
A prompt of the run; a title and a line break continue it:

```
{prompt}```
"""
