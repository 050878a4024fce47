"""Unconstrained beam search with exact title match, as in the paper (``recipe="paper"``).

Beams may produce titles of no item, or the same title twice. Such beams are dropped, so lists can
be shorter than k. This is a reference implementation for comparison; :mod:`genrec.search.exact`
is the search that GenRec uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genrec.arrays import Floats, Items, Mask
from genrec.language_model.backbone import Backbone
from genrec.language_model.prompts import Prompts
from genrec.search.exact import SearchResult

NEW_TOKENS = 64
"""Most tokens of a generated title."""
GPU_PROMPTS = 16
"""Prompts that a GPU continues together; a CPU takes one at a time."""


def free_beams(
    backbone: Backbone,
    prompts: Prompts,
    rows: Sequence[Sequence[int]],
    beams: int,
    k: int,
    offered: Mask,
    candidates: Mask | None,
) -> SearchResult:
    """Return the lists of several prompts.

    Args:
        backbone: the language model.
        prompts: the catalogue's prompts.
        rows: prompt tokens of each history.
        beams: number of beams.
        k: length of the lists.
        offered: items that were not removed, shape [items].
        candidates: items that may be recommended, shape [rows, items]; all if ``None``.
    """
    size = GPU_PROMPTS if backbone.device.type == "cuda" else 1
    batches = (rows[start : start + size] for start in range(0, len(rows), size))
    found = [titles for batch in batches for titles in beam_titles(backbone, prompts, batch, beams)]
    lists = []
    for row, pairs in enumerate(found):
        allowed = offered if candidates is None else offered & candidates[row]
        lists.append([pair for pair in pairs if allowed[pair[0]]])
    return SearchResult(*as_lists(lists, k), rounds=0, tokens=0, key_values=[])


@torch.inference_mode()
def beam_titles(
    backbone: Backbone, prompts: Prompts, batch: Sequence[Sequence[int]], beams: int
) -> list[list[tuple[int, float]]]:
    """Return for each prompt the items whose titles the beams match exactly, best beam first.

    Args:
        backbone: the language model.
        prompts: the catalogue's prompts.
        batch: prompt tokens of some histories.
        beams: number of beams, all of which are evaluated.

    Returns:
        For each prompt, pairs of item and log p(title | prompt). The probability is that of the
        text among all texts, not among the titles of the catalogue.
    """
    causal_lm: Any = backbone.causal_lm  # the stub types `generate` as a tensor
    longest = max(map(len, batch))
    padded = [[prompts.end] * (longest - len(prompt)) + list(prompt) for prompt in batch]
    known = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch]
    output = causal_lm.generate(
        torch.tensor(padded, device=backbone.device),
        attention_mask=torch.tensor(known, device=backbone.device),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=prompts.end,
        pad_token_id=prompts.end,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found: list[dict[int, float]] = [{} for _ in batch]
    scored = zip(output.sequences[:, longest:].tolist(), output.sequences_scores, strict=True)
    for place, (tokens, score) in enumerate(scored):
        title = _first_title(tokens, prompts.end)
        item = prompts.by_title.get(title)
        if item is not None:  # a beam's score is the mean per token
            found[place // beams].setdefault(item, float(score) * len(title))
    return [list(each.items()) for each in found]


def as_lists(found: list[list[tuple[int, float]]], k: int) -> tuple[Items, Floats]:
    """Pad (item, score) lists to arrays of shape [rows, k] with -1 and -inf."""
    items = np.full((len(found), k), -1, np.int32)
    scores = np.full((len(found), k), -np.inf)
    for row, pairs in enumerate(found):
        for place, (item, score) in enumerate(pairs[:k]):
            items[row, place], scores[row, place] = item, score
    return items, scores


def _first_title(tokens: list[int], end: int) -> tuple[int, ...]:
    stop = tokens.index(end) + 1 if end in tokens else len(tokens)
    return tuple(tokens[:stop])
