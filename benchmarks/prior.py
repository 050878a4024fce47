"""Time of the prior in a training batch, dense and sparse: python benchmarks/prior.py [--items N].

The histories are random and follow a popularity curve. One microbatch has 8 windows of 20 targets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from genrec.collaborative.cooccurrence import CooccurrencePrior
from genrec.collaborative.transitions import TransitionPrior
from genrec.data.histories import Histories
from genrec.language_model.decisions import locate_targets
from genrec.language_model.prior_mass import SparseSums, cumulative_mass
from genrec.language_model.trie import Trie, build_trie
from output import show
from trie import synthetic_titles

LENGTH, WINDOWS, TARGETS = 60, 8, 20


def milliseconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the mean processor time of a call in milliseconds, after one warm-up call."""
    function()
    start = time.process_time()
    for _ in range(repeats):
        function()
    return 1000 * (time.process_time() - start) / repeats


def batches(
    trie: Trie, prior: CooccurrencePrior, histories: Histories
) -> dict[str, Callable[[], Any]]:
    """Return the work that the collator does with a prior, in dense and in sparse form."""
    places = [(histories.select([row]), LENGTH - TARGETS, LENGTH) for row in range(WINDOWS)]
    items = np.concatenate([history.items[start:] for history, start, _ in places])

    def dense() -> Any:
        q = np.concatenate([prior.training_probabilities(*place) for place in places])
        return locate_targets(trie, items, cumulative_mass(trie, q))

    def sparse() -> Any:
        sums = SparseSums.of(trie, [prior.training_shares(*place) for place in places])
        return locate_targets(trie, items, sums)

    return {"dense": dense, "sparse": sparse}


def run(items: int, users: int, seed: int, *, dense: bool) -> dict[str, Any]:
    """Measure both forms, or the sparse one only, on a catalogue of ``items`` titles."""
    trie = build_trie(synthetic_titles(items, seed))
    popularity = 1 / np.arange(20, items + 20)
    drawn = np.random.default_rng(seed).choice(
        items, (users, LENGTH), p=popularity / popularity.sum()
    )
    histories = Histories.from_lists(drawn.tolist())
    started = time.process_time()
    TransitionPrior().fit(histories, items)
    fit_seconds = time.process_time() - started
    both = batches(trie, CooccurrencePrior().fit(histories, items), histories)
    found = {
        "items": items,
        "root_children": int(trie.child_offsets[1]),
        "kernel_fit_seconds": fit_seconds,
        "sparse_milliseconds": milliseconds(both["sparse"]),
    }
    if dense:
        found["dense_milliseconds"] = milliseconds(both["dense"])
        found["dense_to_sparse"] = found["dense_milliseconds"] / found["sparse_milliseconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=60_000, help="number of items")
    parser.add_argument("--users", type=int, default=20_000, help="number of histories")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random data")
    parser.add_argument(
        "--no-dense",
        action="store_true",
        help="skip the dense form, which needs at least 4 KB of memory per item",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = run(options.items, options.users, options.seed, dense=not options.no_dense)
    show(found, options.json)


if __name__ == "__main__":
    main()
