"""Training speed of GenRec's recipe against others, and against the machine's matmul peak.

    python benchmarks/training.py [--data ml-100k] [--minutes 1.5] [--json]

Each recipe trains with the same HF Trainer in a separate process, one after the other, on the same
data, backbone and number format. The paper's recipe has one target per example of at most 256
tokens, and a loss on all tokens. "full" is GenRec's recipe with context_layers=null: all layers
read all tokens. Tokens, or positions where titles are read once, are counted without padding.

The matmul peak is the best rate of a square matrix product. A recipe's share of it is the
arithmetic of its matrix products for tokens without padding (as torch counts it on real batches),
divided by the time of the whole forward and backward pass, relative to the peak. It is the median
over batches. The peak is measured anew for each batch, because other work on the machine slows
both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from genrec import GenRec, leave_last_out, load_dataset
from genrec.config import Config
from genrec.language_model.adapters import make_trainable
from genrec.language_model.devices import choose_device, choose_dtype
from genrec.model.fitting import untrained_ranker
from genrec.studies.bounds import clock, count_flops, machine_rates, passes
from genrec.training.batches import Collator
from genrec.training.order import training_order
from genrec.training.windows import training_windows
from output import show

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"recipe": "paper", "batch_size": 8},  # a smaller batch only makes a step shorter
    "full": {"context_layers": None},
    "ours": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="name or folder of the data set")
    parser.add_argument("--backbone", default="smollm2-135m", help="name of the language model")
    parser.add_argument("--dtype", default="auto", help="number format: auto, float32 or bfloat16")
    parser.add_argument(
        "--minutes", type=float, default=1.5, help="training time of each recipe in minutes"
    )
    parser.add_argument(
        "--batches", type=int, default=12, help="number of batches that are timed one by one"
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, help="measure only this recipe, in this process"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.recipe:
        print(json.dumps(measure(options)))
        return
    result: dict[str, Any] = {}
    for recipe in RECIPES:
        command = [sys.executable, *sys.argv, "--recipe", recipe]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        result |= {f"{recipe}_{key}": value for key, value in found.items()}
    ours = result["ours_items_per_second"]
    result["items_per_second_ratio"] = ours / result["paper_items_per_second"]
    result["ratio_to_full_context"] = ours / result["full_items_per_second"]
    result["matmul_peak_share"] = result["ours_matmul_peak_share"]
    show(result, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train one recipe for some minutes, then time single batches."""
    train = leave_last_out(load_dataset(options.data)).train
    settings = {"backbone": options.backbone, "dtype": options.dtype, **RECIPES[options.recipe]}
    model = GenRec(**settings).fit(train, minutes=options.minutes, progress=False)
    done = model.info["training"]
    per_second = done["targets"] / done["seconds"]
    memory = peak_memory()
    closer = single_batches(Config.create(**settings), train, options.batches)
    return {
        "items_per_second": per_second,
        "tokens_per_second": per_second * closer["tokens_per_item"],
        "peak_memory_gb": memory / 1e9,
        "dtype": model.ranker.backbone.dtype_name,
        **closer,
    }


def peak_memory() -> int:
    """Return the peak memory in bytes: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def single_batches(settings: Config, train: Any, batches: int) -> dict[str, float]:
    """Measure tokens, arithmetic and shares of time of real microbatches."""
    ranker = untrained_ranker(settings, train)
    make_trainable(ranker.backbone, ranker.config)
    ranker = ranker.renewed()
    config, prompts, likelihood = ranker.config, ranker.layout.prompts, ranker.likelihood.train()
    windows = training_windows(train.histories, prompts, config)
    collate = Collator(ranker.layout, train.histories, ranker.prior, loss=config.loss)
    size = config.microbatch_size
    order = np.array(list(training_order(windows, ranker.layout, size, size, config.seed)))
    dtype = choose_dtype(config.dtype, choose_device())
    rows: list[tuple[float, ...]] = []
    for drawn in order[: size * batches].reshape(-1, size):
        batch = [windows[int(window)] for window in drawn]
        started = clock()
        inputs = collate(batch)
        collating = clock() - started
        items, padded = inputs.pop("titles"), inputs["sequences"].ids.numel()
        tokens = int(inputs["sequences"].lengths.sum())
        flops = count_flops(partial(passes, likelihood, inputs)) * tokens / padded
        started = clock()
        passes(likelihood, inputs)
        taken = clock() - started
        rate = flops / taken / 1e9
        rows.append(
            (
                items,
                tokens,
                padded,
                collating / taken,
                flops,
                rate * 1e9 / machine_rates(dtype).flops,
            )
        )
    items, tokens, padded, collating, flops, share = np.array(rows).T
    return {
        "tokens_per_item": float(tokens.sum() / items.sum()),
        "padding": float(1 - tokens.sum() / padded.sum()),
        "gflop_per_token": float(flops.sum() / tokens.sum() / 1e9),
        "collating_over_passes": median(collating),
        "matmul_peak_share": median(share),
    }


if __name__ == "__main__":
    main()
