"""Rich or poor titles: what do the words of a title contribute?"""

from __future__ import annotations

from genrec.data.splits import Split
from genrec.studies.richness import richness_facts
from genrec.studies.study import Arm, Plot, Study

ALONE, BESIDE = "Language model alone", "Beside the prior of transitions"


def _arms(split: Split) -> list[Arm]:
    forms = {
        "titles as they are": (),
        "permuted titles": ("titles=permuted",),
        "with genres or categories": ("titles=metadata",),
        "random words": ("titles=random-words",),
        "numeric ids, in order": ("titles=sequential",),
        "numeric ids, shuffled": ("titles=shuffled",),
        "semantic ids": ("titles=semantic",),
    }
    alone = [Arm(name, ALONE, {"prior": "none"}, views) for name, views in forms.items()]
    whole = Arm("whole titles", ALONE, {"prior": "none", "titles": "display"})
    beside = [
        Arm(f"{name}, beside the prior", BESIDE, {"prior": "transitions"}, forms[name])
        for name in ("titles as they are", "permuted titles", "with genres or categories")
    ]
    prior = Arm("the prior alone", BESIDE, model="transitions")
    return [*alone, whole, *beside, prior]


STUDY = Study(
    name="titles",
    title="Rich or poor titles",
    question="How much of the quality comes from the meaning of the titles? The same interactions "
    "are trained with titles as they are, with metadata, permuted among the items (the same tokens "
    "without their meaning), and as ids.",
    arms=_arms,
    plots=(
        Plot("alone-nll", "Gain in NLL over titles as they are (nats)", "nll", groups=(ALONE,)),
        Plot("alone-ndcg", "Gain in NDCG@10 over titles as they are", "NDCG@10", groups=(ALONE,)),
        Plot("beside-nll", "Beside the prior: gain in NLL (nats)", "nll", groups=(BESIDE,)),
    ),
    facts=richness_facts,
    measures=("title_tokens", "train_seconds", "request_ms"),
)
