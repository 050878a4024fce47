"""The choice of device and number type, and control of random state."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import numpy as np
import torch

from genrec.errors import BackboneError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device() -> torch.device:
    """Return CUDA, else Apple's MPS, else the CPU; each process of a node gets its own GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def release_memory() -> None:
    """Give the memory of deleted models back to the system, and to the GPU if there is one."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # only glibc keeps it, and has this function
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def scored_rows(device: torch.device) -> int:
    """Return how many histories fill a device when their targets are scored together."""
    return 64 if device.type == "cuda" else 8


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``"auto"``: bfloat16 where the device multiplies it faster than float32.

    Raises:
        BackboneError: float16 was requested on a CPU.
    """
    if name == "float16" and device.type == "cpu":
        raise BackboneError("dtype=float16 needs a GPU. On a CPU, use auto, float32 or bfloat16.")
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if _cuda_bf16() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and bf16_speedup() > 1.25 else torch.float32


def runnable_dtype(trained: str) -> str:
    """Return the type to load a trained model in: its own, unless this machine may be slow in it.

    On a CPU every type but float32 becomes ``"auto"``, and so does bfloat16 on a GPU that only
    emulates it.
    """
    device = choose_device()
    native = device.type != "cpu" and (trained != "bfloat16" or _cuda_bf16())
    return trained if native or trained == "float32" else "auto"


def _cuda_bf16() -> bool:
    """Return whether there is a CUDA GPU that computes in bfloat16 without emulation."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


@lru_cache
def bf16_speedup() -> float:
    """Return the speed of bfloat16 over float32 products on this CPU; 0 if it is only emulated.

    The ratio is measured, because CPU flags do not predict it: with AVX-512 BF16, bfloat16 was 3
    times as fast on AMD (Zen 5) and half as fast on Intel (Xeon without AMX). With only AVX2 it is
    40 to 500 times slower.
    """
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not any(flags.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16")):
        return 0.0
    wide, short = (_seconds_of_matmul(kind) for kind in (torch.float32, torch.bfloat16))
    return wide / short


def _seconds_of_matmul(dtype: torch.dtype, size: int = 768) -> float:
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):  # the minimum ignores the first run, which is the warm-up
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times)


@contextmanager
def isolated_random(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block, then restore the caller's random state."""
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
