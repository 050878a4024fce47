"""Output of the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result as a table or as one JSON object."""
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>32}  {f'{value:.4g}' if isinstance(value, float) else value}")
