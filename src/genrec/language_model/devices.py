"""Which device computes, and in which number type."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch

from genrec.errors import BackboneError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device() -> torch.device:
    """CUDA (each process of a node its own), then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``"auto"``: bfloat16 where the device multiplies it faster than float32."""
    if name == "float16" and device.type == "cpu":
        raise BackboneError("dtype=float16 needs a GPU; on a CPU use auto, float32 or bfloat16.")
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and bf16_speedup() > 1.25 else torch.float32


def runnable_dtype(trained: str) -> str:
    """The type to load a trained model in: its own, unless this machine is slow in it."""
    if choose_device().type == "cpu" and trained != "float32":
        return "auto"
    return trained


@lru_cache
def bf16_speedup() -> float:
    """How many times as fast the CPU multiplies bfloat16 as float32; 0 where it only emulates it.

    Measured, as flags do not tell: with AVX-512 BF16 it was 3 times as fast on AMD (Zen 5) and half
    as fast on Intel (Xeon without AMX); with only AVX2 it is 40 to 500 times slower.
    """
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not any(told.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16")):
        return 0.0
    wide, short = (_seconds_of_matmul(kind) for kind in (torch.float32, torch.bfloat16))
    return wide / short


def _seconds_of_matmul(dtype: torch.dtype, size: int = 768) -> float:
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):  # the first one is also the warm-up
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times)


@contextmanager
def isolated_random(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block, and leave the caller's random state alone."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries that draw from the global state)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
