"""Collect the results of comparisons into docs/results/NAME.json.

    python scripts/docs/results.py NAME FOLDER [FOLDER ...]

Each folder is one that `genrec compare` wrote. For each model the file holds the metrics with 95 %
intervals, the number of test users, the data that the model was fitted on, the seconds it took to
fit, and the difference in NDCG@10 to the comparison's reference, paired over users. Needs the
standard library only.
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
    kept |= {"users": found["users"], "fit": facts["fitted_on"]}
    if found.get("fit_seconds") is not None:
        kept["fit_seconds"] = round(found["fit_seconds"])
    if (difference := found["reference_minus_this"].get("NDCG@10")) is not None:
        kept[f"{comparison['reference']} minus this, NDCG@10"] = difference
    cold = [each for each in found["slices"] if each["name"] == "cold"]
    if cold:
        kept["cold"] = {"users": cold[0]["users"], "NDCG@10": cold[0]["NDCG@10"]}
    return kept


def collect(folders: list[Path]) -> dict[str, Any]:
    """Return the models of all comparisons by split, fit and name."""
    collected: dict[str, Any] = {}
    for folder in folders:
        comparison = json.loads((folder / "comparison.json").read_text())
        for name, found in comparison["models"].items():
            one = entry(found, comparison)
            part = collected.setdefault(f"{comparison['split']}, fit on {one['fit']}", {})
            part[name] = one
    return collected


def main() -> None:
    """Write the file for the name and the folders on the command line."""
    name, *folders = sys.argv[1:]
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(collect([Path(folder) for folder in folders]), indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
