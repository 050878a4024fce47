"""Publish the results of studies: docs/results/studies/*.json and docs/assets/studies/*.svg.

    python scripts/docs/studies.py FOLDER [FOLDER ...]

Each folder is one that `genrec study` wrote. The published file has no paths of this machine and
no excerpts of the data.
Needs the standard library only.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
KEPT = ("versions", "system", "cpu", "devices")
"""Facts about the environment that are published."""


def published(found: dict[str, Any]) -> dict[str, Any]:
    """Return a result without paths, and without titles and histories of the data."""
    name = found["data"]["dataset"]
    found["config"] |= {"dataset": name}
    found["environment"] = {k: v for k, v in found["environment"].items() if k in KEPT}
    found.pop("examples")
    for arm in found["arms"]:
        arm.pop("texts")
    return rounded(found)


def rounded(value: Any) -> Any:
    """Round all numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return value


def main() -> None:
    """Publish the folders on the command line."""
    results, pictures = DOCS / "results" / "studies", DOCS / "assets" / "studies"
    for folder in (results, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for source in map(Path, sys.argv[1:]):
        found = published(json.loads((source / "study.json").read_text()))
        name = f"{found['study']}-{found['data']['dataset']}"
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (results / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        for plot in sorted((source / "plots").glob("*.svg")):
            shutil.copy(plot, pictures / f"{name}-{plot.name}")
        print(name, len(found["arms"]), "arms")


if __name__ == "__main__":
    main()
