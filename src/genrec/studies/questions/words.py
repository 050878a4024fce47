"""Words of a wish: do they help, and what do misleading ones cost?"""

from __future__ import annotations

from typing import Any

from genrec.collaborative.words import item_facts, stems
from genrec.data.splits import Split
from genrec.studies.other_words import OTHER_WORDS
from genrec.studies.study import Arm, Plot, Study

GROUP = "GenRec's prior with words"
HALF = "Half of the items without metadata"
LOST = "metadata=0.5"


def _arms(split: Split) -> list[Arm]:
    settings: dict[str, Any] = {"prior": "pooled"}
    asked = {
        "no words": (),
        "one word of the target's metadata": ("words=one",),
        "all words of the target's metadata": ("words=all",),
        "one misleading word": ("words=misleading",),
    }
    filters = {
        "one word, as a filter": ("words=one",),
        "all words, as a filter": ("words=all",),
        "one misleading word, as a filter": ("words=misleading",),
    }
    facts = " ".join(item_facts(split.train.catalogue))
    if set(OTHER_WORDS) <= set(stems(facts).split()):  # the metadata are genres of films
        asked |= {
            "one genre of the target": ("words=genre",),
            "the same genre in another word": ("words=synonym",),
        }
    half = [
        Arm(f"{name}, half of the metadata missing", HALF, settings, (*views, LOST), effort=0)
        for name, views in list(asked.items())[:2]
    ]
    name, views = next(iter(filters.items()))
    lost = (*views, LOST)
    half.append(
        Arm(f"{name}, half of the metadata missing", HALF, settings, lost, effort=0, filtered=True)
    )
    return [
        *(Arm(name, GROUP, settings, views, effort=0) for name, views in asked.items()),
        *(
            Arm(name, GROUP, settings, views, effort=0, filtered=True)
            for name, views in filters.items()
        ),
        *half,
    ]


STUDY = Study(
    name="words",
    title="Steering by words",
    question="How much do words from the metadata of the wanted item help, what do misleading "
    "words cost, and how does a hard filter by the same words compare? The language model is not "
    "trained here: the words act on the prior.",
    arms=_arms,
    plots=(
        Plot("ndcg", "Gain in NDCG@10 over no words", "NDCG@10"),
        Plot("nll", "Gain in NLL over no words (nats)", "nll"),
    ),
    measures=("words_weight", "request_ms"),
    words=True,
)
