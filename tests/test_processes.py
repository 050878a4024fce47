from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import make_dataset
from genrec import GenRec, leave_last_out

SETTINGS = [
    "dtype=float32",
    "lora_rank=4",
    "batch_size=8",
    "microbatch_size=4",
    "window=6",
    "warmup_steps=2",
    "epochs=2",
    "seed=3",
]


def train(data: Path, out: Path, backbone: str, *extra: str, processes: int) -> dict[str, object]:
    """Train by the command line, under torchrun, and return the run's genrec.json."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    settings = [part for each in (*SETTINGS, *extra) for part in ("--set", each)]
    verb = ["-m", "genrec", "train", str(data), "--out", str(out), "--backbone", backbone]
    source = Path(__file__).parents[1] / "src"
    done = subprocess.run(
        [sys.executable, *launch, *verb, *settings],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained; next") == 1  # one of them prints
    return json.loads((out / "genrec.json").read_text())


def losses(info: dict[str, object]) -> list[float]:
    training = info["training"]
    assert isinstance(training, dict)
    return [entry["loss"] for entry in training["log"]]


def test_two_processes_train_what_one_trains(tiny_backbone: str, tmp_path: Path) -> None:
    """The same global batches; and the best of the looks is kept by both."""
    data = make_dataset()
    data.save(tmp_path / "data")
    looks = ("patience=2", "look_steps=3")
    one = train(tmp_path / "data", tmp_path / "one", tiny_backbone, *looks, processes=1)
    two = train(tmp_path / "data", tmp_path / "two", tiny_backbone, *looks, processes=2)
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert two["training"]["targets"] == one["training"]["targets"]  # type: ignore[index]
    assert two["training"]["best_step"] == one["training"]["best_step"]  # type: ignore[index]
    assert (one["training"]["processes"], two["training"]["processes"]) == (1, 2)  # type: ignore[index]
    found = GenRec.from_pretrained(tmp_path / "two")
    expected = GenRec.from_pretrained(tmp_path / "one")
    test = leave_last_out(data).test
    assert found.log_likelihood(test.histories, test.targets) == pytest.approx(
        expected.log_likelihood(test.histories, test.targets), abs=1e-3
    )
    assert not (tmp_path / "two" / "checkpoints").exists()
