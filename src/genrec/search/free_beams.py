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
    lists = []
    for row, prompt in enumerate(rows):
        found = beam_titles(backbone, prompts, prompt, beams)
        allowed = offered if candidates is None else offered & candidates[row]
        lists.append([pair for pair in found if allowed[pair[0]]])
    return SearchResult(*as_lists(lists, k), rounds=0, tokens=0, key_values=[])


@torch.inference_mode()
def beam_titles(
    backbone: Backbone, prompts: Prompts, prompt: Sequence[int], beams: int
) -> list[tuple[int, float]]:
    """Return the items whose titles the beams match exactly, best beam first.

    Args:
        backbone: the language model.
        prompts: the catalogue's prompts.
        prompt: prompt tokens of one history.
        beams: number of beams, all of which are evaluated.

    Returns:
        Pairs of item and log p(title | prompt). The probability is that of the text among all
        texts, not among the titles of the catalogue.
    """
    causal_lm: Any = backbone.causal_lm  # the stub types `generate` as a tensor
    output = causal_lm.generate(
        torch.tensor([list(prompt)], device=backbone.device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=backbone.device),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=prompts.end,
        pad_token_id=prompts.end,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found: dict[int, float] = {}
    for tokens, score in zip(output.sequences, output.sequences_scores.tolist(), strict=True):
        title = _first_title(tokens[len(prompt) :].tolist(), prompts.end)
        item = prompts.by_title.get(title)
        if item is not None:
            found.setdefault(item, score * len(title))  # a beam's score is the mean per token
    return list(found.items())


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
