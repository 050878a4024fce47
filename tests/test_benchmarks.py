"""The benchmark scripts run; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_trie_benchmark_prints_one_json_object() -> None:
    command = [sys.executable, str(BENCHMARKS / "trie.py"), "--items", "3000", "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert result["items"] == 3000
    assert result["decision_nodes"] > 100
