"""Training speed: GenRec's recipe against the paper's, and against what the machine multiplies.

    python benchmarks/training.py [--data ml-100k] [--minutes 1.5] [--json]

Each recipe trains through the same HF Trainer in a process of its own, one after the other, on the
same data, backbone and type. The paper's has one target per example of at most 256 tokens and a
loss on all tokens. Tokens are counted without padding. The share of the matmul peak is the
arithmetic of matrix products per useful token, as torch counts it on real batches, times
tokens per second, over the best rate of a square product; it leaves out all other arithmetic.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from genrec import GenRec, leave_last_out, load_dataset
from genrec.backbone import choose_device, choose_dtype, make_trainable
from genrec.training import training_windows
from genrec.windows import ByLength, Collator
from output import show

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"recipe": "paper", "batch_size": 8},  # a smaller batch only ends a step earlier
    "ours": {},
}
BATCHES = 12
"""Microbatches on which arithmetic and collating are measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--minutes", type=float, default=1.5, help="training of each recipe")
    parser.add_argument("--recipe", choices=RECIPES, help="only this one, in this process")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.recipe:
        print(json.dumps(measure(options)))
        return
    peak = matmul_peak(choose_dtype(options.dtype, choose_device()))
    result: dict[str, Any] = {"matmul_peak_gflops": peak}
    for recipe in RECIPES:
        command = [sys.executable, *sys.argv, "--recipe", recipe]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        result |= {f"{recipe}_{key}": value for key, value in found.items()}
    peak = max(peak, matmul_peak(choose_dtype(options.dtype, choose_device())))
    result["matmul_peak_gflops"] = peak
    for recipe in RECIPES:
        result[f"{recipe}_matmul_peak_share"] = result[f"{recipe}_gflops"] / peak
    ours, paper = result["ours_items_per_second"], result["paper_items_per_second"]
    result["items_per_second_ratio"] = ours / paper
    result["matmul_peak_share"] = result["ours_matmul_peak_share"]
    show(result, options.json)


def matmul_peak(dtype: torch.dtype) -> float:
    """Best rate of a square matrix product on the device, in GFLOP/s."""
    device, best = choose_device(), 0.0
    for size in (512, 1024, 2048):
        matrix = torch.randn(size, size, device=device).to(dtype)
        for _ in range(10):
            started = clock()
            matrix @ matrix
            best = max(best, 2 * size**3 / (clock() - started) / 1e9)
    return best


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train one recipe for some minutes and count what a target costs."""
    train = leave_last_out(load_dataset(options.data)).train
    settings = {"backbone": options.backbone, "dtype": options.dtype, **RECIPES[options.recipe]}
    counted = count(GenRec(**settings), train)
    model = GenRec(**settings).fit(train, minutes=options.minutes, progress=False)
    done = model.info["training"]
    per_second = done["targets"] / done["seconds"]
    tokens = per_second * counted["tokens_per_item"]
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "items_per_second": per_second,
        "tokens_per_second": tokens,
        **counted,
        "gflops": tokens * counted["gflop_per_token"],
        "collator_share": counted["collating_ms_per_item"] / 1e3 * per_second,
        "peak_memory_gb": memory / 1e9,
        "dtype": model._backbone.dtype_name,
    }


def count(model: GenRec, train: Any) -> dict[str, float]:
    """Tokens, padding, arithmetic and collating time of real microbatches."""
    model._prepare(train)
    make_trainable(model._backbone, model.config)
    model._build_likelihood()
    config, prompts, likelihood = model.config, model._prompts, model._likelihood.train()
    windows = training_windows(train.histories, prompts, config)
    collate = Collator(likelihood, prompts, train.histories, model._prior, loss=config.loss)
    lengths = windows.title_tokens(prompts.titles)
    size = config.microbatch_size
    order = np.array(list(ByLength(lengths, size, size, 0)))[: size * BATCHES].reshape(-1, size)
    items = tokens = padded = flops = 0
    seconds = 0.0
    counter = FlopCounterMode(display=False, custom_mapping={PACKED: packed_flops})
    for rows in order:
        started = time.perf_counter()
        batch = collate([windows[int(row)] for row in rows])
        seconds += time.perf_counter() - started
        items += batch.pop("titles")
        batch = {
            key: value.to(choose_device()) if torch.is_tensor(value) else value
            for key, value in batch.items()
        }
        with counter:
            likelihood(**batch)["loss"].backward()
        flops += counter.get_total_flops()
        tokens += sum(len(collate._tokens(windows[int(row)])[0]) for row in rows)
        padded += batch["input_ids"].numel()
    return {
        "tokens_per_item": tokens / items,
        "padding": 1 - tokens / padded,
        "gflop_per_token": flops / padded / 1e9,
        "collating_ms_per_item": 1e3 * seconds / items,
    }


PACKED = torch.ops.mkldnn._linear_pointwise


def packed_flops(inputs: Any, weight: Any, *_: Any, **__: Any) -> int:
    rows = int(np.prod(inputs[:-1]))
    return 2 * rows * weight[0] * weight[1]


if __name__ == "__main__":
    main()
