"""Time and memory of a large catalogue's trie: python benchmarks/trie.py [--items N] [--json]."""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from genrec.language_model.titles import TitleTokens
from genrec.language_model.trie import Trie, build_trie
from output import show

END = 0


def synthetic_titles(items: int, seed: int) -> TitleTokens:
    """Make distinct titles of 2 to 24 tokens.

    The tokens are Zipf-distributed, as words are. With probability one half a title begins like an
    earlier one, as in series and product lines.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 24, size=items)
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
    tokens = np.minimum(rng.zipf(1.3, size=offsets[-1]), 49_151).astype(np.int32)
    for start in (0, 1, 2, 3):
        copies = np.flatnonzero((rng.random(items) < 0.5) & (lengths > start + 1))
        source = (copies * rng.random(len(copies))).astype(np.int64)
        tokens[offsets[copies] + start] = tokens[
            offsets[source] + np.minimum(start, lengths[source] - 1)
        ]
    for place in range(2):  # a number of two tokens at the end makes all titles distinct
        digit = np.arange(items) // 1000**place % 1000
        tokens[offsets[1:] - 2 - place] = 1000 + digit
    tokens[offsets[1:] - 1] = END
    return TitleTokens(tokens, offsets)


def measure(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and its time in seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def peak_gb() -> float:
    """Return the peak memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(items: int, seed: int) -> dict[str, Any]:
    """Build, save, load and change the trie of ``items`` titles, and measure each step."""
    titles = synthetic_titles(items, seed)
    before = psutil.Process().memory_info().rss / 2**30
    trie, build_seconds = measure(lambda: build_trie(titles))
    build_gb = peak_gb() - before
    folder = Path(tempfile.mkdtemp()) / "trie"
    try:
        _, save_seconds = measure(lambda: trie.save(folder))
        mapped, load_seconds = measure(lambda: Trie.load(folder))
        size = sum(path.stat().st_size for path in folder.iterdir())
        probe = np.random.default_rng(seed).integers(items, size=1000)
        assert all((mapped.decisions(i) == trie.decisions(i)).all() for i in probe)
    finally:
        shutil.rmtree(folder.parent)
    new = TitleTokens.from_lists([[40_000 + n, 7, END] for n in range(1000)])
    _, add_seconds = measure(lambda: build_trie(titles + new))
    kept = np.delete(np.arange(items), np.arange(0, items, 1000))
    smaller, remove_seconds = measure(lambda: build_trie(titles, kept))
    assert len(smaller) == len(kept)
    return {
        "items": items,
        "tokens": len(titles.tokens),
        "decision_nodes": len(trie.depth),
        "root_children": int(trie.child_offsets[1]),
        "decisions_per_title": round(float(np.diff(trie.path_offsets).mean()), 2),
        "build_seconds": round(build_seconds, 2),
        "build_memory_gb": round(build_gb, 3),
        "process_peak_gb": round(peak_gb(), 3),
        "save_seconds": round(save_seconds, 2),
        "load_milliseconds": round(1000 * load_seconds, 1),
        "file_mb": round(size / 2**20, 1),
        "add_1000_items_seconds": round(add_seconds, 2),
        "remove_items_seconds": round(remove_seconds, 2),
        "within_20_seconds_and_1_gb": bool(build_seconds <= 20 and peak_gb() <= 1.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000, help="number of titles")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random titles")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    show(run(options.items, options.seed), options.json)


if __name__ == "__main__":
    main()
