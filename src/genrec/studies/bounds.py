"""Lower bounds of time: what the machine needs at least for the arithmetic and the weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from genrec.data.histories import Histories
from genrec.data.splits import Split
from genrec.language_model.adapters import make_trainable
from genrec.language_model.backbone import Backbone
from genrec.language_model.devices import choose_device
from genrec.model.ranker import Ranker
from genrec.training.batches import Collator
from genrec.training.windows import training_windows

REPEATS = 10
"""Runs of which the quickest counts."""
BATCHES = 4
"""Microbatches whose operations are counted."""


@dataclass(frozen=True)
class Rates:
    """Measured limits of a machine.

    Attributes:
        flops: floating-point operations per second of a square matrix product.
        bytes: bytes per second that a copy reads and writes.
    """

    flops: float
    bytes: float

    def seconds(self, flops: float, read: float) -> float:
        """Return the least time for some operations and for reading some bytes."""
        return max(flops / self.flops, read / self.bytes)


def machine_rates(dtype: torch.dtype) -> Rates:
    """Measure the rates of this machine's device in a number format."""
    device = choose_device()
    sizes = (4096, 8192) if device.type == "cuda" else (1024, 2048)
    flops = 0.0
    for size in sizes:
        matrix = torch.randn(size, size, device=device).to(dtype)
        flops = max(flops, 2 * size**3 / quickest(partial(torch.matmul, matrix, matrix)))
    return Rates(flops, 2 * matrix.nbytes / quickest(matrix.clone))


def quickest(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the shortest time of several calls, in seconds."""
    times = []
    for _ in range(repeats):
        started = clock()
        call()
        times.append(clock() - started)
    return min(times)


def clock() -> float:
    """Return the time in seconds, after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def count_flops(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of the matrix products in a call."""
    # torch does not count the operator of packed layers by itself.
    packed = {torch.ops.mkldnn._linear_pointwise: packed_flops}
    with FlopCounterMode(display=False, custom_mapping=packed) as counter:
        call()
    return int(counter.get_total_flops())


def packed_flops(inputs: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Return the operations of a packed linear layer from the shapes of input and weight."""
    return 2 * int(np.prod(inputs)) * int(weight[0])


def request_bound(ranker: Ranker, one: Histories, k: int, rates: Rates) -> float:
    """Return the least seconds of a request for one history, without cached keys and values."""
    flops = count_flops(lambda: ranker.search(one, k))
    return rates.seconds(flops, layer_bytes(ranker.backbone, ranker.config.context_layers))


def layer_bytes(backbone: Backbone, layers: Any) -> int:
    """Return the size of the weights of the last layers, of all layers if ``None``."""
    blocks = list(backbone.blocks)[-layers if isinstance(layers, int) else 0 :]
    settings = backbone.causal_lm.config.get_text_config()
    hidden, inner = settings.hidden_size, settings.intermediate_size
    size = getattr(settings, "head_dim", None) or hidden // settings.num_attention_heads
    heads = 2 * settings.num_attention_heads + 2 * settings.num_key_value_heads
    weights = len(blocks) * hidden * (heads * size + 3 * inner)
    return int(weights * backbone.output_weight.itemsize)


def target_bound(ranker: Ranker, split: Split, rates: Rates) -> float:
    """Return the least seconds for the training of one target.

    Args:
        ranker: an untrained ranker; its backbone becomes trainable.
        split: training data.
        rates: the rates of the machine.
    """
    make_trainable(ranker.backbone, ranker.config)
    ranker = ranker.renewed()
    config, histories = ranker.config, split.train.histories
    model = ranker.likelihood.train()
    windows = training_windows(histories, ranker.layout.prompts, config)
    collate = Collator(ranker.layout, histories, ranker.prior, loss=config.loss)
    size = config.microbatch_size
    assert size != "auto"  # resolved with the backbone
    drawn = np.random.default_rng(0).permutation(len(windows))[: BATCHES * size]
    flops, read, targets = 0, 0, 0
    for start in range(0, len(drawn), size):
        inputs = collate([windows[int(row)] for row in drawn[start:][:size]])
        targets += inputs.pop("titles")
        flops += count_flops(partial(passes, model, inputs))
        read += 2 * layer_bytes(ranker.backbone, config.context_layers)
    return rates.seconds(flops, read) / targets


def passes(likelihood: torch.nn.Module, inputs: dict[str, Any]) -> None:
    """Run the forward and backward pass of a batch, as in training."""
    device = choose_device()
    moved = {k: v.to(device) if torch.is_tensor(v) else v for k, v in inputs.items()}
    likelihood(**moved)["loss"].backward()
