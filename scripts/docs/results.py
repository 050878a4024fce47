"""Collect the results of comparisons into docs/results/NAME.json.

    python scripts/docs/results.py NAME FOLDER COMMAND [FOLDER COMMAND ...]

Each folder is one that `genrec compare` wrote, and the command after it is the one that wrote it.
For each model the file holds the metrics with 95 % intervals, the number of test users, the data
that the model was fitted on, the seconds it took to fit, the difference in NDCG@10 to the
comparison's reference, paired over users, NDCG@10 of users whose target nobody chose in training,
and the spread over seeds where there are several. Needs the standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "docs" / "results"
METRICS = ("HR@10", "NDCG@10")


def entry(found: dict[str, Any], comparison: dict[str, Any]) -> dict[str, Any]:
    """Return what is published of one model's evaluation."""
    facts = comparison["facts"]
    kept = {name: round(found[name], 4) for name in METRICS}
    kept["intervals"] = {
        name: [round(value, 4) for value in found["intervals"][name]] for name in METRICS
    }
    if found.get("nll") is not None:
        kept["nll"] = round(found["nll"], 3)
    kept |= {name: found[name] for name in ("users", "targets") if name in found}
    if found.get("runs", 1) > 1:
        spread = {name: round(found["spread"][name], 4) for name in METRICS}
        kept |= {"seeds": found["runs"], "standard deviation over seeds": spread}
    kept["fit"] = facts["fitted_on"]
    if found.get("fit_seconds") is not None:
        kept["fit_seconds"] = round(found["fit_seconds"])
    if (difference := found["reference_minus_this"].get("NDCG@10")) is not None:
        name = f"NDCG@10 of {comparison['reference']} minus this"
        kept[name] = [round(value, 4) for value in difference]
    cold = [each for each in found["slices"] if each["name"] == "cold"]
    if cold:
        kept["cold"] = {"users": cold[0]["users"], "NDCG@10": cold[0]["NDCG@10"]}
    return kept


def collect(comparisons: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the models of each (folder, command), with the split and the data fitted on."""
    collected: dict[str, Any] = {}
    for folder, command in comparisons:
        comparison = json.loads((Path(folder) / "comparison.json").read_text())
        models = {name: entry(found, comparison) for name, found in comparison["models"].items()}
        first = next(iter(models.values()))
        key = f"{comparison['split']}, fit on {first['fit']}, {first['users']} users"
        collected[key] = {"command": command, "models": models}
    return collected


def main() -> None:
    """Write the file for the name, folders and commands on the command line."""
    name, *rest = sys.argv[1:]
    path = RESULTS / f"{name}.json"
    found = collect(list(zip(rest[::2], rest[1::2], strict=True)))
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
