"""Write golden.json with irspack and ranx, which the tests do not need.

In a virtual environment of its own: ``pip install irspack==0.5.2 ranx==0.3.21``, then
``python tests/golden/make_golden.py``. The numbers in the repository were made with Python 3.11,
numpy 2.4.6 and scipy 1.17.1. irspack's settings are in :func:`fitted`; its ``top_k`` counts the
item itself. ranx's ``hit_rate`` and ``ndcg`` (gain rel, discount log2(rank + 1)) are ours.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

USERS, ITEMS, ASKED, LONGEST = 150, 40, 12, 10


def histories() -> list[list[int]]:
    """Users of four tastes over items of falling popularity, each item once in a history."""
    rng = np.random.default_rng(7)
    popularity = 1.0 / np.arange(3, ITEMS + 3)
    rows = []
    for _ in range(USERS):
        liked = np.where(np.arange(ITEMS) % 4 == rng.integers(4), 6.0, 1.0) * popularity
        length = int(rng.integers(4, 16))
        rows.append(rng.choice(ITEMS, length, replace=False, p=liked / liked.sum()).tolist())
    return rows


def matrix(rows: list[list[int]]) -> sp.csr_matrix:
    row = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    column = np.concatenate(rows)
    return sp.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(rows), ITEMS))


def fitted(x: sp.csr_matrix) -> dict[str, Any]:
    from irspack import (
        CosineKNNRecommender,
        DenseSLIMRecommender,
        P3alphaRecommender,
        SLIMRecommender,
    )

    # SLIM's l1 = users * alpha * l1_ratio = 1, l2 = users * alpha * (1 - l1_ratio) = 20
    slim = {"alpha": 21 / USERS, "l1_ratio": 1 / 21, "n_iter": 2000, "tol": 1e-9}
    models = {
        "itemknn": CosineKNNRecommender(x, shrinkage=0.0, normalize=True, top_k=ITEMS),
        "itemknn-shrunk": CosineKNNRecommender(x, shrinkage=7.0, normalize=True, top_k=ITEMS),
        "itemknn-near": CosineKNNRecommender(x, shrinkage=0.0, normalize=True, top_k=11),
        "p3alpha": P3alphaRecommender(x, alpha=1.0, top_k=None),
        "p3alpha-near": P3alphaRecommender(x, alpha=1.0, top_k=11),
        "ease": DenseSLIMRecommender(x, reg=100.0),
        "slim": SLIMRecommender(x, **slim),
    }
    return {name: model.learn() for name, model in models.items()}


def measured(top: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    import ranx

    asked = [str(row) for row in range(len(targets))]
    qrels = {user: {str(t): 1} for user, t in zip(asked, targets.tolist(), strict=True)}
    run = {
        user: {str(item): float(-place) for place, item in enumerate(items)}
        for user, items in zip(asked, top.tolist(), strict=True)
    }
    names = ["hit_rate@5", "hit_rate@10", "ndcg@5", "ndcg@10", "mrr@10"]
    found = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names)
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    rows = histories()
    known, targets = [row[:-1] for row in rows], np.array([row[-1] for row in rows])
    x = matrix(known)
    models, golden = fitted(x), {}
    for name, model in models.items():
        scores = np.asarray(model.get_score_cold_user(x))
        unseen = np.where(x.toarray() > 0, -np.inf, scores)
        top = np.argsort(-unseen, axis=1, kind="stable")[:, :LONGEST]
        golden[name] = {
            "scores": np.round(scores[:ASKED], 9).tolist(),
            "top": top[:ASKED].tolist(),
            "metrics": measured(top, targets),
        }
    made = {name: version(name) for name in ("irspack", "ranx", "numpy", "scipy")}
    whole = {"made_with": made, "histories": rows, "models": golden}
    path = Path(__file__).with_name("golden.json")
    path.write_text(json.dumps(whole, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
