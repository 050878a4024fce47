"""The model card of a run folder, and that of an exported language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genrec.config import Config
from genrec.evaluation.results import Evaluation
from genrec.model.genrec import GenRec


def _kept(training: Mapping[str, Any]) -> str:
    if "looks" not in training:
        return ""
    return f"; kept is step {training['best_step']}, the best of {len(training['looks'])} looks"


def _weights(config: Config) -> str:
    if config.tuning == "full":
        return "weights: trained themselves, in `backbone/` (plain transformers files)"
    where = f"the last {config.trained_layers} layers" if config.trained_layers else "all layers"
    return (
        f"adapter: LoRA rank {config.lora_rank}, alpha {config.lora_alpha}, {where}, in `adapter/` "
        "(plain PEFT files)"
    )


def export_card(model: GenRec, folder: Path) -> str:
    prompt = model.prompt_text([model.catalogue.titles[0]])
    beside = (
        ""
        if model.config.prior == "none"
        else (
            f"""
It is only a part of the recommender: there it corrects the prior {model.config.prior}, which plain
transformers does not know. For recommendations load the run itself with `GenRec.from_pretrained`.
"""
        )
    )
    return f"""# The language model of {folder.name}

{model.config.backbone} as a GenRec run on {model.info["data"]["name"]} trained it, an adapter
merged in; plain transformers loads it.
{beside}
A prompt of the run, which a title and a line break continue:

```
{prompt}```
"""


def model_card(model: GenRec, evaluations: Sequence[Evaluation]) -> str:
    """README.md of a run folder: what it is, how it was made, how good it is, how to use it."""
    info, config = model.info, model.config
    data, training = info["data"], info.get("training", {})
    versions = ", ".join(f"{name} {number}" for name, number in info.get("versions", {}).items())
    lines = f"""# GenRec on {data["name"]}

Recommends the next item by generating its title with {config.backbone} (recipe {config.recipe},
prior {config.prior}), exactly over {len(model.catalogue)} items.

- data: {data["name"]}, split {data.get("split")}, ties {data.get("tie_rule")}, fingerprint
  `{data["fingerprint"][:16]}`
- training: {training.get("steps")} steps, {training.get("targets")} targets,
  {training.get("seconds")} s, seed {config.seed}{_kept(training)}
- {_weights(config)}
- versions: {versions}
- written: {datetime.now(UTC):%Y-%m-%d}
""".splitlines()
    lines.append("")
    if evaluations:
        lines += ["| model | HR@10 | NDCG@10 | users |", "|---|---|---|---|"]
        lines += [
            f"| {e.name} | {e.metrics['HR@10']:.4f} | {e.metrics['NDCG@10']:.4f} | {e.users} |"
            for e in evaluations
        ]
        lines += [
            "",
            "Full ranking over the catalogue, seen items left out; see `report.html`.",
            "",
        ]
    lines += ["```python", "import genrec", 'model = genrec.GenRec.from_pretrained("this folder")']
    return "\n".join([*lines, f"model.recommend([{model.catalogue.titles[0]!r}], k=5)", "```", ""])
