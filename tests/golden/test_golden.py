"""Scores, lists and metrics equal those of irspack and ranx; make_golden.py says how."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.baselines import EASE, SLIM, ItemKNN, P3Alpha
from genrec.collaborative.base import Scoring
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.evaluation.evaluate import evaluate

ITEMS = 40
# Tolerances of scores: float64 on both sides, float32 inverse here, and coordinate descent to 1e-6.
MODELS: dict[str, tuple[Callable[[], Scoring], float]] = {
    "itemknn": (lambda: ItemKNN(neighbours=ITEMS), 1e-8),
    "itemknn-shrunk": (lambda: ItemKNN(neighbours=ITEMS, shrinkage=7.0), 1e-8),
    "itemknn-near": (lambda: ItemKNN(neighbours=10), 1e-8),
    "p3alpha": (lambda: P3Alpha(neighbours=ITEMS), 1e-8),
    "p3alpha-near": (lambda: P3Alpha(neighbours=10), 1e-8),
    "ease": (lambda: EASE(ridge=100.0), 1e-5),
    "slim": (lambda: SLIM(l1=1.0, l2=20.0, tolerance=1e-6), 1e-4),
}


@cache
def golden() -> Any:
    return json.loads(Path(__file__).with_name("golden.json").read_text())


@cache
def train() -> Dataset:
    known = [row[:-1] for row in golden()["histories"]]
    names = [str(item) for item in range(ITEMS)]
    return Dataset("golden", Catalogue(names, names, pl.DataFrame()), Histories.from_lists(known))


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_irspack(name: str) -> None:
    make, tolerance = MODELS[name]
    expected = golden()["models"][name]
    asked = train().histories.select(np.arange(len(expected["scores"])))
    model = make().fit(train())
    new = ~asked.seen(ITEMS)  # irspack's walks may return to where they began
    theirs = np.array(expected["scores"])
    np.testing.assert_allclose(model.scores(asked)[new], theirs[new], atol=tolerance)
    assert model.recommend_batch(asked, 10).items.tolist() == expected["top"]


@pytest.mark.parametrize("name", MODELS)
def test_metrics_are_those_of_ranx(name: str) -> None:
    targets = np.array([row[-1] for row in golden()["histories"]], np.int32)
    holdout = Holdout("test", train().histories, targets, train().catalogue)
    found = evaluate(MODELS[name][0]().fit(train()), holdout, (5, 10), bootstrap=0).metrics
    expected = golden()["models"][name]["metrics"]
    for ours, theirs in (("HR", "hit_rate"), ("NDCG", "ndcg")):
        for k in (5, 10):
            assert found[f"{ours}@{k}"] == pytest.approx(expected[f"{theirs}@{k}"], abs=1e-9)
    assert found["MRR@10"] == pytest.approx(expected["mrr@10"], abs=1e-9)
