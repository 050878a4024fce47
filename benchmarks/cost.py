"""Cost of recommendations by backbone size: python benchmarks/cost.py [--users N] [--json].

For backbones of some sizes the script measures one list of a batch job, one single request, and one
click in a session. The backbones have random weights, because the time depends on the shape alone;
all of them stand beside the same prior. A straight line through the two smallest sizes,

    seconds = other work + operations of the language model / rate,

predicts the other sizes. Where such a size was measured too, the table shows both. Times of a batch
job become core-hours for 1 M and for 100 M users, and money with --hourly-cost. A trained model
opens other nodes of the trie than a random one; --run shows how much that matters.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import genrec
from genrec import GenRec
from genrec.assets.known import backbone_folder
from genrec.data.splits import Split
from genrec.doctor import usable_cores
from genrec.studies.bounds import count_flops, layer_bytes, machine_rates, quickest
from genrec.studies.measure import peak_memory
from output import show
from search import K, add, warm_session

CONTEXT_LAYERS = 6
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Shape:
    """The shape of a LLaMA backbone's layers, from its published configuration."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int = 64

    @property
    def layer_weights(self) -> int:
        """Number of weights in the matrices of one layer."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_size
        return self.hidden * (attention + 3 * self.inner)


SHAPES = {
    "SmolLM2-135M": Shape(576, 1536, 9, 3),
    "SmolLM2-360M": Shape(960, 2560, 15, 5),
    "Llama-3.2-1B": Shape(2048, 8192, 32, 8),
    "SmolLM2-1.7B": Shape(2048, 8192, 32, 32),
    "Llama-3.1-8B": Shape(4096, 14336, 32, 8, 128),
}


def backbone(shape: Shape, folder: Path) -> str:
    """Write a backbone with random weights, and with only the layers that requests run through."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    source = backbone_folder("smollm2-135m")
    config = LlamaConfig.from_pretrained(source)
    config.update(
        {
            "num_hidden_layers": CONTEXT_LAYERS + 1,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.inner,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_size,
        }
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def measure(model: GenRec, split: Split, users: int) -> dict[str, float]:
    """Measure lists of a batch job, single requests and clicks of one model."""
    histories = split.test.histories
    sample = histories.select(np.random.default_rng(0).permutation(len(histories))[:users])
    singles = [sample.select([row]) for row in range(min(20, len(sample)))]
    memory: dict[str, float] = {}
    with peak_memory(memory, "batch"):
        batch = quickest(lambda: model.recommend_batch(sample, K), 3) / len(sample)
    requests, clicks = [], []
    for single in singles:
        requests.append(quickest(lambda one=single: model.recommend_batch(one, K), 3))
        titles = [model.catalogue.titles[item] for item in model.ranker.recent(single[0])]
        clicks.append(min(click(model, titles) for _ in range(3)))
    return {
        "seconds_per_list": batch,
        "request_ms": 1000 * float(np.median(requests)),
        "click_ms": 1000 * float(np.median(clicks)),
        "gflop_per_list": count_flops(lambda: model.recommend_batch(sample, K)) / len(sample) / 1e9,
        "layer_mib": layer_bytes(model.ranker.backbone, CONTEXT_LAYERS) / 2**20,
        "peak_gib": memory["batch_peak_mb"] * 1e6 / 2**30,
    }


def click(model: GenRec, titles: list[str]) -> float:
    """Return the seconds that a session needs for one more title and a new list."""
    session = warm_session(model, titles[:-1])
    return quickest(lambda: add(session, titles[-1]), 1)


def predicted(found: dict[str, dict[str, float]], hourly_cost: float | None) -> dict[str, Any]:
    """Return the line through the two smallest sizes, and the cost of every size.

    Args:
        found: the measurements by name of the size; at least two.
        hourly_cost: price of an hour of this machine.
    """
    (small, first), (_, second) = list(found.items())[:2]
    operations = second["gflop_per_list"] - first["gflop_per_list"]
    rate = operations / (second["seconds_per_list"] - first["seconds_per_list"])
    other = first["seconds_per_list"] - first["gflop_per_list"] / rate
    result: dict[str, Any] = {"other_work_ms": 1000 * other, "gflop_per_second": rate}
    # Other sizes have the same positions, so their operations grow with the weights of a layer.
    per_weight = first["gflop_per_list"] / SHAPES[small].layer_weights
    for name, shape in SHAPES.items():
        line = other + per_weight * shape.layer_weights / rate
        hours = found.get(name, {}).get("seconds_per_list", line) * 1e6 / SECONDS_PER_HOUR
        result[f"{name}: ms per list, predicted"] = 1000 * line
        for key, value in found.get(name, {}).items():
            result[f"{name}: {key}"] = value
        result[f"{name}: core-hours, 1 M users"] = hours * torch.get_num_threads()
        result[f"{name}: core-hours, 100 M users"] = 100 * hours * torch.get_num_threads()
        for kind in ("request", "click") if name in found else ():
            online = found[name][f"{kind}_ms"] * 1000 / SECONDS_PER_HOUR * torch.get_num_threads()
            result[f"{name}: core-hours, 1 M {kind}s one by one"] = online
        if hourly_cost is not None:
            result[f"{name}: cost, 1 M users"] = hours * hourly_cost
            result[f"{name}: cost, 100 M users"] = 100 * hours * hourly_cost
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="name or folder of the data set")
    parser.add_argument("--prior", default="auto", help="the prior beside the language model")
    parser.add_argument("--users", type=int, default=256, help="users of the batch job")
    parser.add_argument(
        "--sizes",
        nargs="+",
        choices=SHAPES,
        default=list(SHAPES)[:3],
        help="sizes to measure, the smallest first; at least two",
    )
    parser.add_argument("--run", type=Path, help="also measure this trained run of the data set")
    parser.add_argument("--hourly-cost", type=float, help="price of an hour of this machine")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if len(options.sizes) < 2:
        parser.error("--sizes needs at least two sizes, through which the line is drawn")
    split = genrec.leave_last_out(genrec.load_dataset(options.data))
    found: dict[str, dict[str, float]] = {}
    settings = {"prior": options.prior, "context_layers": CONTEXT_LAYERS}
    for name in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            model = GenRec(backbone(SHAPES[name], Path(folder)), **settings).build(split.train)
            found[name] = measure(model, split, options.users)
            dtype = model.ranker.backbone.output_weight.dtype
            del model
    result = {
        "items": len(split.train.catalogue),
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        "matmul_gflop_per_second": machine_rates(dtype).flops / 1e9,
    }
    result |= predicted(found, options.hourly_cost)
    if options.run is not None:
        trained = measure(GenRec.from_pretrained(options.run), split, options.users)
        result |= {f"{options.run}: {key}": value for key, value in trained.items()}
    show(result, options.json)


if __name__ == "__main__":
    main()
