"""Model cards of run folders and of exported language models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from genrec.config import Config
from genrec.data.catalogue import Catalogue

HUB_IDS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Ids of the known backbones on the Hugging Face Hub."""
SHOWN = ("HR@10", "NDCG@10")
"""Metrics in the table of a card."""
_CUT = """Titles are read once: only the last {n} layers see the history, as one position for each
  title. Plain transformers and PEFT load the weights, but run all layers over all tokens. Their
  scores are therefore not those of this model; GenRec's are."""
Metrics = Mapping[str, Mapping[str, Any]]
"""The entries of metrics.json by the name of the model."""


def model_card(
    info: Mapping[str, Any],
    config: Config,
    catalogue: Catalogue,
    metrics: Metrics | None = None,
    *,
    repo: str = "path/of/this/folder",
) -> str:
    """Write the README.md of a run: its method, training, metrics and use.

    The text begins with the metadata block that the Hugging Face Hub reads.

    Args:
        info: content of ``genrec.json``.
        config: the run's resolved settings, without ``auto``.
        catalogue: the run's items.
        metrics: entries of metrics.json; the run's own entry has the name of the run.
        repo: name or folder of the run in the example.
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
            f"{_start(training)}"
        )
    return f"""# GenRec on {data["name"]}

This model recommends the next item by generating its title with {config.backbone}. It chooses
exactly among the {len(catalogue)} titles of its catalogue (recipe {config.recipe}, prior
{_prior(config)}).

- Data: {data["name"]}, split {data.get("split")}, ties {data.get("tie_rule")}, fingerprint
  `{data["fingerprint"][:16]}`
- Training: {trained}
- {_weights(config)}
- Versions: {versions}
- Written: {datetime.now(UTC):%Y-%m-%d}
"""


def _prior(config: Config) -> str:
    if config.prior != "pooled" or config.experts == "auto":
        return config.prior
    return f"{config.prior}: {', '.join(config.experts)}"


def _start(training: Mapping[str, Any]) -> str:
    source = training.get("init_from")
    return f", from the weights of {source}" if source else ""


def _kept(training: Mapping[str, Any]) -> str:
    # Runs of format 3 from before version 0.1.0 store the evaluation steps under "looks".
    evaluations = training.get("evaluations", training.get("looks"))
    if not evaluations:
        return ""
    best = training["best_step"]
    count = len(evaluations)
    return f"; the weights are those of step {best}, the best of {count} evaluation steps"


def _weights(config: Config) -> str:
    note = f"\n- {_CUT.format(n=config.context_layers)}" if config.context_layers else ""
    if config.tuning == "full":
        return "Weights: full fine-tuning, in `backbone/` (plain transformers files)" + note
    limits = [n for n in (config.trained_layers, config.context_layers) if isinstance(n, int)]
    where = f"the last {min(limits)} layers" if limits else "all layers"
    return (
        f"Adapter: LoRA rank {config.lora_rank}, alpha {config.lora_alpha}, {where}, in `adapter/` "
        f"(plain PEFT files){note}"
    )


def notes_of(card: Path) -> str:
    """Return the section "Notes" at the end of a model card, which people write by hand."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    _, heading, notes = text.partition("\n## Notes\n")
    return heading + notes


def _table(metrics: Metrics) -> str:
    rows = [
        f"| {name} | {entry['HR@10']:.4f} | {entry['NDCG@10']:.4f} | {entry['users']} |"
        for name, entry in metrics.items()
        if all(shown in entry for shown in SHOWN)
    ]
    head = ["| model | HR@10 | NDCG@10 | users |", "|---|---|---|---|"]
    rules = [rule for entry in metrics.values() for rule in entry.get("protocol", ())]
    seen = [rule for rule in rules if rule.startswith("Items of the user's own history")]
    note = " ".join(["Each target competes with the whole catalogue.", *seen[:1]])
    return "\n".join([*head, *rows, "", f"{note} `report.html` has the intervals.", ""])


def export_card(name: str, info: Mapping[str, Any], config: Config, prompt: str) -> str:
    """Write the README.md of an exported language model.

    Args:
        name: name of the run.
        info: content of the run's ``genrec.json``.
        config: the run's resolved settings.
        prompt: an example of a prompt.
    """
    beside = ""
    if config.prior != "none":
        beside = f"""
It is only a part of the recommender, in which it corrects the prior {config.prior}. The prior is
not in this folder. For recommendations load the run itself with `GenRec.from_pretrained`.
"""
    cut = f"\n{_CUT.format(n=config.context_layers)}\n" if config.context_layers else ""
    return f"""# The language model of {name}

This is {config.backbone}, fine-tuned by GenRec on {info["data"]["name"]}, with the adapter merged
in. It is a plain transformers checkpoint.
{beside}{cut}
This is a prompt of the run. The model continues it with a title and a line break:

```
{prompt}```
"""
