"""Quality against the amount of data: where does generation begin to win?"""

from __future__ import annotations

from genrec.data.splits import Split
from genrec.studies.study import Arm, Plot, Study

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
MODELS = {
    "GenRec beside the prior": {"prior": "transitions"},
    "GenRec without a prior": {"prior": "none"},
}
BASELINES = ("transitions", "cooccurrence", "pooled", "popularity")


def _arms(split: Split) -> list[Arm]:
    arms = []
    for share in SHARES:
        users = round(share * len(split.train.histories))
        views = () if share == 1 else (f"users={share}",)
        for group, settings in MODELS.items():
            arms.append(Arm(f"{group}, {users:,} users", group, settings, views, x=users))
        for model in BASELINES:
            arms.append(Arm(f"{model}, {users:,} users", model, views=views, model=model, x=users))
    return arms


STUDY = Study(
    name="size",
    title="Amount of data",
    question="How does quality grow with the number of training users, for GenRec with and without "
    "a prior and for the strongest baselines? The held-out targets stay the same.",
    arms=_arms,
    plots=(
        Plot("ndcg", "NDCG@10 by training users", "NDCG@10", "curves"),
        Plot("nll", "NLL by training users", "nll", "curves"),
    ),
    defaults={"targets": 80_000},
    measures=("targets", "train_seconds"),
)
