"""The benchmark scripts run; what they measure is not judged here.

The benchmark of training runs as a part of the accelerator's queue, see test_gpu_scripts.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_trie_benchmark_prints_one_json_object() -> None:
    command = [sys.executable, str(BENCHMARKS / "trie.py"), "--items", "3000", "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert result["items"] == 3000
    assert result["decision_nodes"] > 100


def test_prior_benchmark_times_both_forms() -> None:
    command = [sys.executable, str(BENCHMARKS / "prior.py"), "--json"]
    command += ["--items", "500", "--users", "400"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    ratio = result["dense_milliseconds"] / result["sparse_milliseconds"]
    assert result["dense_to_sparse"] == pytest.approx(ratio)


def test_prepare_benchmark_measures_steps_and_projects_them() -> None:
    command = [sys.executable, str(BENCHMARKS / "prepare.py"), "--json", "--rows"]
    command += ["3000", "4000", "5000"]
    *sizes, projected = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[
        "sizes"
    ]
    assert [found["rows"] for found in sizes] == [3000, 4000, 5000]
    assert all(found["prepare_within_limits"] for found in sizes)
    assert projected["prepare_csv_seconds_measured"] == sizes[2]["prepare_csv_seconds"]


def test_cost_benchmark_projects_sizes_it_did_not_measure() -> None:
    command = [sys.executable, str(BENCHMARKS / "cost.py"), "--json", "--users", "4"]
    command += ["--prior", "popularity", "--sizes", "SmolLM2-135M", "SmolLM2-360M"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for name in ("SmolLM2-135M", "SmolLM2-360M"):  # two points lie on their line
        measured = 1000 * result[f"{name}: seconds_per_list"]
        assert result[f"{name}: ms per list, predicted"] == pytest.approx(measured, rel=0.1)
    hours = result["Llama-3.1-8B: ms per list, predicted"] / 1000 * 1e6 / 3600
    expected = hours * result["threads"]
    assert result["Llama-3.1-8B: core-hours, 1 M users"] == pytest.approx(expected)


def test_catalogue_benchmark_compares_beams_with_the_exact_search() -> None:
    command = [sys.executable, str(BENCHMARKS / "catalogue.py"), "--json"]
    command += ["--items", "40", "--users", "2", "--prior", "popularity"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert result["beam_50_recall"] == 1  # more beams than titles
