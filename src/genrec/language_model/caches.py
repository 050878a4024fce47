"""Caches of keys and values, built from tensors without copying them."""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def cache_of(layers: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """Build a cache on these tensors; DynamicCache's constructor would copy them first."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def repeated(cache: DynamicCache, rows: int) -> DynamicCache:
    """Return a cache of several rows that all have the keys and values of a cache of one row."""
    return cache_of(
        [
            (keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
            for keys, values, *_ in cache
        ]
    )
