"""Ratings, likes and genres in the history."""

from __future__ import annotations

from typing import Any

from genrec.data.splits import Split
from genrec.studies.study import Arm, Plot, Study
from genrec.studies.views import LIKED_ONLY

ALONE, BESIDE = "Language model alone", "Beside the prior of transitions"
LIKES = (1.0, 5.0)
"""Two values: a prompt says whether a title was disliked or liked."""


def _arms(split: Split) -> list[Arm]:
    forms: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "titles only": ({}, ()),
        "ratings said": ({"ratings": "auto"}, ()),
        "shuffled ratings said": ({"ratings": "auto"}, ("history=shuffled",)),
        "likes and dislikes said": ({"ratings": LIKES}, ()),
        "liked titles only": ({}, (LIKED_ONLY,)),
        "with genres or categories": ({}, ("titles=metadata",)),
    }
    alone = [
        Arm(name, ALONE, {"prior": "none", **settings}, views)
        for name, (settings, views) in forms.items()
    ]
    beside = [
        Arm(f"{name}, beside the prior", BESIDE, {"prior": "transitions", **forms[name][0]}, views)
        for name in ("titles only", "ratings said", "liked titles only")
        for views in [forms[name][1]]
    ]
    return [*alone, *beside]


STUDY = Study(
    name="signals",
    title="Ratings and genres in the history",
    question="Does the language model use ratings in the history, or genres? Targets are items "
    "that their user liked (4 stars or more). Shuffled ratings are the control: what they gain is "
    "due to the form of the prompt and not to the ratings.",
    arms=_arms,
    plots=(
        Plot("alone-nll", "Gain in NLL over titles only (nats)", "nll", groups=(ALONE,)),
        Plot("alone-ndcg", "Gain in NDCG@10 over titles only", "NDCG@10", groups=(ALONE,)),
        Plot("beside-nll", "Beside the prior: gain in NLL (nats)", "nll", groups=(BESIDE,)),
    ),
    liked=True,
    measures=("positions", "train_seconds", "request_ms"),
)
