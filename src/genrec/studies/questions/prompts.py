"""The design of the prompt."""

from __future__ import annotations

from typing import Any

from genrec.data.splits import Split
from genrec.studies.study import Arm, Plot, Study

TRAINED = "Trained, titles read once"
UNTRAINED = "Not trained, the whole model reads the prompt (as in the paper)"
WHOLE = "Trained, the whole model reads the prompt"
SHARE = 0.1
"""Share of the held-out targets for arms in which all layers read all tokens."""
FEW = 0.2
"""Share of the training targets for these arms."""
STEP = 320
"""Targets of one optimiser step with a history length of 20."""

FORMS: dict[str, dict[str, Any]] = {
    "list with a line of text": {},
    "titles alone": {"template": "plain"},
    "one instruction": {"template": "one-instruction"},
    "chat format": {"template": "chat"},
    "newest first": {"history_order": "newest-first"},
    "titles end in a semicolon": {"separator": "semicolon"},
    "titles end in a bar": {"separator": "bar"},
}
ONE_TARGET = ("one instruction", "ten wordings", "chat format", "newest first")
"""Forms that allow one target per sequence only, because text follows the history."""


def _arms(split: Split) -> list[Arm]:
    trained = [Arm(name, TRAINED, _same_targets(name, FORMS[name])) for name in FORMS]
    lengths = [
        Arm(
            f"{length} titles of history",
            TRAINED,
            _settings(
                history_length=length,
                window=length,
                windows_per_user=40 // length or 1,
                batch_size=max(8, STEP // length),
                microbatch_size=max(4, STEP // length // 2),
            ),
            x=length,
        )
        for length in (5, 10, 50)
    ]
    titles = [
        Arm("titles with their year", TRAINED, _settings(titles="display")),
        Arm("with genres or categories", TRAINED, _settings(), ("titles=metadata",)),
    ]
    # Lower layers read titles behind one wording, so ten wordings need the whole model.
    forms = {
        **FORMS,
        "numbered list": {"template": "numbered"},
        "ten wordings": {"template": "instruction"},
    }
    untrained = [
        _whole(name, UNTRAINED, forms[name], 0) for name in forms if name != "ten wordings"
    ]
    whole = [
        _whole(name, WHOLE, forms[name], FEW)
        for name in (
            *("list with a line of text", "numbered list", "titles alone"),
            *("one instruction", "ten wordings"),
        )
    ]
    return [*trained, *lengths, *titles, *untrained, *whole]


def _settings(**settings: Any) -> dict[str, Any]:
    return {"prior": "none", **settings}


def _same_targets(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings that train the same targets in as many steps as the other forms."""
    if name not in ONE_TARGET:
        return _settings(**settings)
    one = {"windows_per_user": 40, "batch_size": STEP, "microbatch_size": 16}
    return _settings(**settings, **one)


def _whole(name: str, group: str, settings: dict[str, Any], effort: float) -> Arm:
    suffix = "whole model, " + ("not trained" if effort == 0 else "trained")
    own = _same_targets(name, {**settings, "context_layers": None})
    return Arm(f"{name} ({suffix})", group, own, effort=effort, users=SHARE)


STUDY = Study(
    name="prompts",
    title="The design of the prompt",
    question="How much do the wording, the order, the separator, the length of the history and "
    "what is said of each title matter, before and after training?",
    arms=_arms,
    plots=(
        Plot("trained-nll", "Trained: gain in NLL over the list (nats)", "nll", groups=(TRAINED,)),
        Plot("trained-ndcg", "Trained: gain in NDCG@10", "NDCG@10", groups=(TRAINED,)),
        Plot(
            "untrained-nll",
            "Not trained: gain in NLL over the list (nats)",
            "nll",
            groups=(UNTRAINED,),
        ),
    ),
    defaults={"targets": 10_000},
    measures=("prompt_tokens", "positions", "train_seconds", "request_ms"),
)
