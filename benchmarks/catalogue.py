"""Requests on a very large catalogue: python benchmarks/catalogue.py [--items N] [--json].

The titles are synthetic, made of MovieLens's words. The language model is the real one, untrained
and with titles read once, beside a prior or alone (--prior none). Measured are the time until the
first request, requests with states at hand and with titles that were never read, clicks in a
session, and beams: their times, and how many of the ten exact recommendations they find.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import genrec
from genrec import GenRec
from genrec.search.frontier import SearchOptions
from genrec.studies.measure import peak_memory
from genrec.studies.synthetic import synthetic_split
from output import show
from search import K, add, warm_session

BEAMS = (10, 50)


def run(items: int, users: int, prior: str, seed: int) -> dict[str, Any]:
    """Build an untrained model of ``items`` titles and measure requests of some users."""
    like = genrec.leave_last_out(genrec.load_dataset("ml-100k"))
    split = synthetic_split(like, items, seed)
    memory: dict[str, float] = {}
    started = time.perf_counter()
    with peak_memory(memory, "build"):
        model = GenRec(prior=prior).build(split.train)
    built = time.perf_counter() - started
    with peak_memory(memory, "requests"):
        found = requests(model, split.valid.histories.select(np.arange(users)))
    return {
        "items": items,
        "prior": prior,
        "build_seconds": built,
        "build_peak_gib": memory["build_peak_mb"] * 1e6 / 2**30,
        **found,
        "requests_peak_gib": memory["requests_peak_mb"] * 1e6 / 2**30,
    }


def requests(model: GenRec, histories: genrec.Histories) -> dict[str, float]:
    """Measure exact searches, clicks and beams."""
    times: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}

    def timed(name: str, call: Any) -> Any:
        began = time.perf_counter()
        result = call()
        times.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        return result

    ranker = model.ranker
    for row in range(len(histories)):
        one = histories.select([row])
        timed("first_request", lambda one=one: ranker.search(one, K))
        exact = timed("request", lambda one=one: ranker.search(one, K))
        found.setdefault("opened_nodes", []).append(exact.tokens)
        found.setdefault("rounds", []).append(exact.rounds)
        timed("prior", lambda one=one: ranker._prior_probabilities(one))
        titles = [model.catalogue.titles[item] for item in ranker.recent(one[0])]
        session = warm_session(model, titles[:-1])
        timed("click", lambda session=session, last=titles[-1]: add(session, last))
        for width in BEAMS:
            options = SearchOptions(beam=width)
            beam = timed(
                f"beam_{width}", lambda o=options, one=one: ranker.search(one, K, options=o)
            )
            share = np.isin(exact.items[0], beam.items[0]).mean()
            found.setdefault(f"beam_{width}_recall", []).append(float(share))
    medians = {f"{name}_ms": float(np.median(each)) for name, each in times.items()}
    return medians | {name: float(np.mean(each)) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000, help="number of titles")
    parser.add_argument("--users", type=int, default=10, help="number of users")
    parser.add_argument("--prior", default="transitions", help="the prior, or none")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    show(run(options.items, options.users, options.prior, options.seed), options.json)


if __name__ == "__main__":
    main()
