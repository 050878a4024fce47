from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import make_dataset
from genrec import GenRec, leave_last_out
from genrec.errors import ConfigError

pytestmark = pytest.mark.slow

SETTINGS = [
    "dtype=float32",
    "lora_rank=4",
    "batch_size=8",
    "window=6",
    "warmup_steps=2",
    "epochs=2",
    "seed=3",
]


def launch(*command: str, processes: int) -> subprocess.CompletedProcess[str]:
    """Run python with these arguments under torchrun."""
    source, on_cpu = Path(__file__).parents[2] / "src", {"CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [sys.executable, *torchrun, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source), **on_cpu},
        capture_output=True,
        text=True,
        check=False,
    )


def train(data: Path, out: Path, backbone: str, *extra: str, processes: int) -> dict[str, object]:
    """Train by the command line, under torchrun, and return the run's genrec.json."""
    settings = [part for each in (*SETTINGS, *extra) for part in ("--set", each)]
    verb = ["-m", "genrec", "train", str(data), "--out", str(out), "--backbone", backbone]
    done = launch(*verb, *settings, processes=processes)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained; next") == 1  # one of them prints
    return json.loads((out / "genrec.json").read_text())


def losses(info: dict[str, object]) -> list[float]:
    training = info["training"]
    assert isinstance(training, dict)
    return [entry["loss"] for entry in training["log"]]


def same_likelihood(one: Path, two: Path) -> None:
    test = leave_last_out(make_dataset()).test
    expected, found = (
        GenRec.from_pretrained(run).log_likelihood(test.histories, test.targets)
        for run in (one, two)
    )
    assert found == pytest.approx(expected, abs=1e-3)


def test_two_processes_train_what_one_trains(tiny_backbone: str, tmp_path: Path) -> None:
    """The same global batches; and the best of the looks is kept by both."""
    make_dataset().save(tmp_path / "data")
    validation = ("patience=2", "eval_steps=3")
    one = train(tmp_path / "data", tmp_path / "one", tiny_backbone, *validation, processes=1)
    two = train(tmp_path / "data", tmp_path / "two", tiny_backbone, *validation, processes=2)
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert two["training"]["targets"] == one["training"]["targets"]  # type: ignore[index]
    assert two["training"]["best_step"] == one["training"]["best_step"]  # type: ignore[index]
    assert (one["training"]["processes"], two["training"]["processes"]) == (1, 2)  # type: ignore[index]
    same_likelihood(tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "two" / "checkpoints").exists()


SHARDED = """
import sys, torch
from genrec.language_model.backbone import load_backbone
from genrec.language_model.sharding import shard, sharded_names
from genrec.processes import init_processes
init_processes(cpu=True)
cpu = torch.device("cpu")
whole, shared = (load_backbone(sys.argv[1], dtype="float32", device=cpu) for _ in range(2))
shard(shared.causal_lm, shared.blocks, cpu)
kept = dict(shared.causal_lm.named_parameters())
names = sharded_names(shared.causal_lm)
assert all(".layers." in name for name in names) and len(names) == 18, names
for name, weight in whole.causal_lm.named_parameters():
    mine = kept[name].to_local() if name in names else kept[name]
    assert mine.numel() == weight.numel() // (2 if name in names else 1), name
tokens = torch.tensor([[5, 6, 7, 8]])
with torch.inference_mode():
    torch.testing.assert_close(shared.hidden(tokens), whole.hidden(tokens))
"""


def test_sharded_layers_are_halved_and_compute_the_same(tiny_backbone: str, tmp_path: Path) -> None:
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    done = launch(str(script), tiny_backbone, processes=2)
    assert done.returncode == 0, done.stderr


def test_fsdp_trains_what_one_process_trains(tiny_backbone: str, tmp_path: Path) -> None:
    """The same losses and looks; the run is like any, and a single process loads it."""
    make_dataset().save(tmp_path / "data")
    validation = ("patience=2", "eval_steps=3")
    one = train(tmp_path / "data", tmp_path / "one", tiny_backbone, *validation, processes=1)
    two = train(
        tmp_path / "data", tmp_path / "two", tiny_backbone, *validation, "fsdp=true", processes=2
    )
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert two["training"]["best_step"] == one["training"]["best_step"]  # type: ignore[index]
    same_likelihood(tmp_path / "one", tmp_path / "two")


def test_fsdp_is_ours_and_needs_several_processes(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="torchrun"):
        GenRec(backbone=tiny_backbone, fsdp=True).fit(make_dataset())
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="fsdp=true"):
        GenRec(backbone=tiny_backbone).fit(make_dataset())
