"""Speed of the search against a forward pass and HF generate, and its exactness.

    python benchmarks/search.py [--run runs/search] [--dtype float32] [--json]

All numbers come from one process on one machine. Times are the best of several calls, in seconds,
and ratios are medians over prompts. If there is no run, one is trained first (--minutes). The
recommendation lists are compared with brute force over the whole catalogue.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from transformers import DynamicCache

import genrec
from genrec import GenRec, Histories, Session
from genrec.recommender import TopK
from genrec.search.free_beams import beam_titles
from output import show

K = 10
Prefix = tuple[int, ...]


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the best time of a call in seconds, after one warm-up call.

    The best time is used, because other work on the machine can only make a call slower.
    """
    return best([(None, function)], repeats)[0]


def best(
    calls: Sequence[tuple[Callable[[], Any] | None, Callable[..., Any]]], repeats: int
) -> list[float]:
    """Return the best time of each call in seconds.

    The calls take turns, so that other work on the machine affects all of them alike.

    Args:
        calls: for each call, an optional preparation whose time is not measured, and the function
            to measure, which receives the result of the preparation.
        repeats: number of measured rounds, after one warm-up round.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for (prepare, function), taken in zip(calls, times, strict=True):
            given = () if prepare is None else (prepare(),)
            start = time.perf_counter()
            function(*given)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [min(taken[1:]) for taken in times]


def with_length(model: GenRec, histories: Histories, tokens: int, count: int) -> list[int]:
    """Return the rows whose prompts have the length closest to a number of tokens."""
    lengths = np.array([len(tokens_of(model, history)) for history in histories])
    return np.argsort(np.abs(lengths - tokens), kind="stable")[:count].tolist()


def tokens_of(model: GenRec, history: npt.NDArray[np.int32]) -> list[int]:
    """Return all tokens of the prompt for a history, whether or not the model reads them all."""
    return model.ranker.prompts.encode(model.ranker.recent(history))


def one(histories: Histories, row: int) -> Histories:
    """Return the histories of one row only."""
    return histories.select([row])


def cold_and_click(model: GenRec, histories: Histories, repeats: int) -> dict[str, Any]:
    """Compare a cold request with the full pass of its prompt, and a click with a cold request.

    The full pass sends every token of the prompt through all layers. A cold request has no cached
    keys and values. A click adds one title to a session.
    """
    ratios, clicks, passes, colds, spare = [], [], [], [], []
    for row in with_length(model, histories, 268, 10):
        alone = one(histories, row)
        prompt = torch.tensor([tokens_of(model, alone[0])], device=model.ranker.backbone.device)
        bare, cold = best(
            [
                (None, lambda p=prompt: run_prompt(model, p)),
                (None, lambda a=alone: model.recommend_batch(a, K)),
            ],
            repeats,
        )
        found = model.ranker.search(alone, K)
        ratios.append(cold / bare)
        passes.append(bare)
        colds.append(cold)
        spare.append((found.rounds, found.tokens))
    for row in with_length(model, histories, 250, 10):
        alone = one(histories, row)
        titles = [model.catalogue.titles[item] for item in model.ranker.recent(alone[0])]
        cold, click = best(
            [
                (None, lambda a=alone: model.recommend_batch(a, K)),
                (lambda t=titles: warm_session(model, t[:-1]), lambda s, t=titles: add(s, t[-1])),
            ],
            repeats,
        )
        clicks.append(click / cold)
    return {
        "full_prompt_pass_seconds": median(passes),
        "cold_seconds": median(colds),
        "request_to_full_prompt_pass": median(ratios),
        "request_to_full_prompt_pass_worst": max(ratios),
        "session_click_ratio": median(clicks),
        "session_click_ratio_worst": max(clicks),
        "extra_rounds": float(np.mean([rounds for rounds, _ in spare])),
        "node_positions": float(np.mean([tokens for _, tokens in spare])),
    }


def warm_session(model: GenRec, history: Sequence[str]) -> Session:
    """Open a session whose keys and values are cached."""
    session = model.session(history)
    session.recommend(K)
    return session


def add(session: Session, title: str) -> None:
    """Add a title to a session and recommend, as after one click."""
    session.add(title)
    session.recommend(K)


@torch.inference_mode()
def run_prompt(model: GenRec, prompt: torch.Tensor) -> None:
    """Run the forward pass of prompts, int64 [rows, tokens], without any search."""
    model.ranker.backbone.hidden(prompt, use_cache=False)


Children = dict[Prefix, list[int]]


def children_of(model: GenRec) -> Children:
    """Return the tokens that may follow each prefix of a title: the token trie as a dict."""
    children: defaultdict[Prefix, list[int]] = defaultdict(list)
    for title in model.ranker.prompts.titles:
        path = tuple(title.tolist())
        for depth, token in enumerate(path):
            if token not in children[path[:depth]]:
                children[path[:depth]].append(token)
    return children


def asked(model: GenRec, histories: Histories, users: int, repeats: int) -> dict[str, Any]:
    """Compare a request with words with the same request without them."""
    ratios = []
    for row in range(users):
        plain = one(histories, row)
        wish = replace(plain, words=["a comedy from the nineties"])
        without, with_words = best(
            [
                (None, lambda p=plain: model.recommend_batch(p, K)),
                (None, lambda w=wish: model.recommend_batch(w, K)),
            ],
            repeats,
        )
        ratios.append(with_words / without)
    return {"request_with_words_over_one_without": median(ratios)}


def hf_generate(model: GenRec, histories: Histories, prompts: int) -> dict[str, Any]:
    """Time HF's beam search, constrained to the catalogue and unconstrained as in the paper."""
    children = children_of(model)
    rows = with_length(model, histories, 268, 10)[:prompts]
    own, constrained, free = [], [], []
    for row in rows:
        alone = one(histories, row)
        prompt = tokens_of(model, alone[0])
        own.append(seconds(lambda a=alone: model.recommend_batch(a, K), 3))
        constrained.append(seconds(lambda p=prompt: constrained_beams(model, [p], children, K), 1))
        free.append(
            seconds(
                lambda p=prompt: beam_titles(model.ranker.backbone, model.ranker.prompts, [p], K), 1
            )
        )
    return {
        "hf_constrained_seconds": median(constrained),
        "hf_unconstrained_seconds": median(free),
        "speedup_vs_hf_generate": median(h / o for h, o in zip(constrained, own, strict=True)),
        "speedup_vs_hf_unconstrained": median(h / o for h, o in zip(free, own, strict=True)),
    }


def batches(
    model: GenRec, histories: Histories, sizes: Sequence[int], beams: Sequence[int]
) -> dict[str, Any]:
    """Time batches of users: the search, the forward pass of the prompts, and HF's beam search.

    Args:
        model: the run.
        histories: test histories to draw users from.
        sizes: numbers of users per batch.
        beams: numbers of beams of HF's beam search, which is constrained to the catalogue.
    """
    children, found = children_of(model), []
    order = np.random.default_rng(2).permutation(len(histories))
    for size in sizes:
        sample = histories.select(order[:size])
        prompts = [tokens_of(model, history) for history in sample]
        row: dict[str, Any] = {"users": len(sample), "tokens": sum(map(len, prompts))}
        row["seconds"], row["full_prompt_pass_seconds"] = best(
            [
                (None, lambda s=sample: model.recommend_batch(s, K)),
                (None, lambda p=prompts: run_prompt(model, padded(model, p)[0])),
            ],
            5,
        )
        row["ratio_to_full_prompt_pass"] = row["seconds"] / row["full_prompt_pass_seconds"]
        for count in beams:
            taken = seconds(lambda p=prompts, c=count: constrained_beams(model, p, children, c), 1)
            row[f"hf_{count}_beams_seconds"] = taken
            row[f"speedup_vs_hf_{count}_beams"] = taken / row["seconds"]
        found.append(row)
    return {"batches": found}


def padded(model: GenRec, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompts padded on the left, and their attention mask, both int64 [rows, width]."""
    width = max(map(len, prompts))
    ids = [[model.ranker.prompts.end] * (width - len(prompt)) + prompt for prompt in prompts]
    real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    device = model.ranker.backbone.device
    return torch.tensor(ids, device=device), torch.tensor(real, device=device)


@torch.inference_mode()
def constrained_beams(
    model: GenRec, prompts: Sequence[list[int]], children: Children, beams: int
) -> torch.Tensor:
    end = model.ranker.prompts.end
    ids, real = padded(model, prompts)
    causal_lm: Any = model.ranker.backbone.causal_lm
    found: torch.Tensor = causal_lm.generate(
        ids,
        attention_mask=real,
        num_beams=beams,
        num_return_sequences=min(K, beams),
        max_new_tokens=int(model.ranker.prompts.titles.lengths.max()),
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
        prefix_allowed_tokens_fn=lambda _, tokens: (
            children.get(tuple(tokens[ids.shape[1] :].tolist())) or [end]
        ),
    )
    return found


@torch.inference_mode()
def brute_force(model: GenRec, histories: Histories) -> npt.NDArray[np.float64]:
    """Compute log p of every item from its definition, without trie, search or tree attention.

    Each distinct prefix of a title that more than one token may follow is one row of the model.

    Args:
        model: the model.
        histories: one history, with its times if the prior looks at them.

    Returns:
        log p(item | history) in nats, float64 [items].
    """
    history = histories[0]
    titles = [tuple(title.tolist()) for title in model.ranker.prompts.titles]
    below: defaultdict[Prefix, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for item, title in enumerate(titles):
        for depth, token in enumerate(title):
            below[title[:depth]][token].append(item)
    starts = sorted((start for start in below if len(below[start]) > 1), key=len)
    if model.ranker.states is None:
        states = states_after(model, tokens_of(model, history), starts)
    else:
        states = states_of_titles(model, history, starts)
    prior = model.ranker.prior
    q = None if prior is None else prior.probabilities(histories)[0]
    scores = np.zeros(len(titles))
    head, weight = model.ranker.likelihood, model.ranker.backbone.output_weight
    for start, state in zip(starts, states, strict=True):
        tokens = sorted(below[start])
        if q is None or head.residual is None or head.prior_weight is None:
            logits = weight[tokens].double() @ state.double()
        else:
            inner = torch.tensor([int(len(start) > 0)])
            moved = head.residual(state[None], inner)[0] * head.lm_weight / head.row_norm
            mass = torch.tensor([q[below[start][token]].sum() for token in tokens])
            logits = weight[tokens].double() @ moved.double() + head.prior_weight * mass.log()
        for token, log_prob in zip(tokens, logits.log_softmax(0).tolist(), strict=True):
            scores[below[start][token]] += log_prob
    return scores


def states_after(model: GenRec, prompt: list[int], starts: Sequence[Prefix]) -> list[torch.Tensor]:
    """Return the hidden state after the prompt and each prefix of a title, 32 rows at a time."""
    prompt_cache = DynamicCache()
    first = model.ranker.backbone.hidden(torch.tensor([prompt]), past_key_values=prompt_cache)[
        0, -1
    ]
    states = [first] * sum(not start for start in starts)
    rest = starts[len(states) :]
    for at in range(0, len(rest), 32):
        part = rest[at : at + 32]
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.long)
        for row, start in enumerate(part):
            ids[row, : len(start)] = torch.tensor(start)
        layers = [
            (k.expand(len(part), -1, -1, -1), v.expand(len(part), -1, -1, -1))
            for k, v, *_ in prompt_cache
        ]
        hidden = model.ranker.backbone.hidden(ids, past_key_values=DynamicCache(layers))
        states += [hidden[row, len(start) - 1] for row, start in enumerate(part)]
    return states


def states_of_titles(
    model: GenRec, history: npt.NDArray[np.int32], starts: Sequence[Prefix]
) -> list[torch.Tensor]:
    """Return the same where titles are read once: plain causal rows of states, 64 at a time.

    Each row is the template's prefix, the ends of the history's titles and the last token of one
    prefix of a title. The states of the lower layers come from passes of the whole model.
    """
    titles, states = model.ranker.prompts.titles, model.ranker.states
    assert states is not None
    context = [lower_states(model, ())]
    context += [
        lower_states(model, tuple(titles[item].tolist()))[-1:]
        for item in model.ranker.recent(history)
    ]
    prompt = torch.cat(context)
    rows = [torch.cat([prompt, lower_states(model, start)[-1:]]) for start in starts if start]
    found = [states.split.upper(prompt[None], attention_mask=causal(len(prompt)))[0, -1]]
    for at in range(0, len(rows), 64):
        part = torch.stack(rows[at : at + 64])
        found += states.split.upper(part, attention_mask=causal(len(prompt) + 1))[:, -1]
    return found if not starts[0] else found[1:]


def causal(size: int) -> torch.Tensor:
    """Return a plain causal mask for the attention of ``size`` positions."""
    return torch.full((size, size), torch.finfo(torch.float32).min).triu(1)[None, None]


@cache
def lower_states(model: GenRec, tokens: Prefix) -> torch.Tensor:
    """Return the states of the prefix and some tokens after it, below the context layers."""
    states = model.ranker.states
    assert states is not None
    ids = torch.tensor([[*model.ranker.prompts.prefixes[0], *tokens]])
    decoder: Any = model.ranker.backbone.causal_lm.get_decoder()
    layers = decoder(ids, output_hidden_states=True).hidden_states
    return layers[states.split.lower_layers][0]  # type: ignore[no-any-return]


def exactness(model: GenRec, histories: Histories, users: int) -> dict[str, Any]:
    """Compare the lists of the search with brute force over the whole catalogue (float32)."""
    wrong, worst, n_items = 0, 0.0, len(model.catalogue)
    if model.ranker.states is not None:  # a run that was trained in bfloat16 stores such states
        model.ranker.states.known[:] = False
        model.ranker.states.read()
    rows = np.random.default_rng(1).permutation(len(histories))[:users]
    sample = histories.select(rows)
    top = model.recommend_batch(sample, K)
    for row, history in enumerate(sample):
        scores = brute_force(model, sample.select([row]))
        assert abs(np.exp(scores).sum() - 1) < 1e-3
        scores[history] = -np.inf
        best = np.sort(scores)[::-1][:K]
        worst = max(worst, float(np.abs(scores[top.items[row]] - top.scores[row]).max()))
        # Items whose scores differ by less than rounding may swap places; all else is wrong.
        wrong += bool((np.abs(scores[top.items[row]] - best) > 2e-3).any())
    return {
        "exact": wrong == 0 and worst < 2e-3,
        "exact_users": len(rows),
        "exact_items": n_items,
        "exact_worst_difference_nats": worst,
    }


def validity(model: GenRec, histories: Histories, least: int) -> dict[str, Any]:
    """Count invalid, duplicate and already seen items in the lists of all test users.

    Args:
        model: the run.
        histories: test histories.
        least: minimum number of recommendations to check.
    """
    k = -(-least // len(histories))
    top: TopK = model.recommend_batch(histories, k)
    invalid = int(((top.items < 0) | (top.items >= len(model.catalogue))).sum())
    duplicates = sum(k - len(set(row.tolist())) for row in top.items)
    seen = sum(
        len(set(r.tolist()) & set(h.tolist())) for r, h in zip(top.items, histories, strict=True)
    )
    return {
        "recommendations": int(top.items.size),
        "invalid": invalid,
        "duplicate": duplicates,
        "seen": seen,
    }


def throughput(model: GenRec, histories: Histories, users: int) -> dict[str, Any]:
    """Measure users per second, one by one and in batches, with the model's history length."""
    sample = histories.select(np.random.default_rng(2).permutation(len(histories))[:users])
    singles = [one(sample, row) for row in range(len(sample))]
    model.recommend_batch(sample.select([0, 1]), K)
    alone = seconds(lambda: [model.recommend_batch(single, K) for single in singles], 2)
    together = seconds(lambda: model.recommend_batch(sample, K), 2)
    tokens = sum(len(tokens_of(model, history)) for history in sample)
    prompt_only = seconds(lambda: prompt_passes(model, sample), 2)
    return {
        "single_users_per_second": len(sample) / alone,
        "batch_users_per_second": len(sample) / together,
        "batch_speedup": alone / together,
        "batch_prompt_tokens_per_second": tokens / together,
        "batch_ratio_to_full_prompt_passes": together / prompt_only,
    }


def prompt_passes(model: GenRec, histories: Histories) -> None:
    """Run the forward pass of each prompt alone, without padding.

    This is a lower bound for a search whose layers all read whole prompts.
    """
    for history in histories:
        run_prompt(
            model, torch.tensor([tokens_of(model, history)], device=model.ranker.backbone.device)
        )


def beams(model: GenRec, histories: Histories, users: int) -> dict[str, Any]:
    """Measure the share of the exact top-k that the beam search finds, by its width."""
    sample = histories.select(np.random.default_rng(3).permutation(len(histories))[:users])
    exact = model.recommend_batch(sample, K).items
    recall = {}
    for width in (2, 5, 10, 20, 50):
        found = model.recommend_batch(sample, K, exact=False, width=width).items
        kept = [
            len(set(f) & set(e)) / K for f, e in zip(found.tolist(), exact.tolist(), strict=True)
        ]
        recall[str(width)] = float(np.mean(kept))
    return {"beam_recall": recall}


def explanations(model: GenRec, histories: Histories, users: int) -> dict[str, Any]:
    """Compare two ways to measure the effect of a history item: rank correlation and time.

    One way hides the item by the attention mask. The other way leaves it out of the prompt.
    """
    agreement, times = [], []
    for row in np.random.default_rng(4).permutation(len(histories))[:users].tolist():
        history = model.ranker.recent(histories[row])
        best = int(model.recommend_batch(one(histories, row), 1).items[0, 0])
        start = time.perf_counter()
        found = model.ranker.influences(Histories.from_lists([history]), [best])[0]
        times.append(time.perf_counter() - start)
        shorter = [np.delete(history, place).tolist() for place in range(len(history))]
        target = np.full(len(history) + 1, best, np.int32)
        scores = model.log_likelihood(Histories.from_lists([history.tolist(), *shorter]), target)
        by_title = {
            model.catalogue.titles[i]: scores[0] - s
            for i, s in zip(history, scores[1:], strict=True)
        }
        pairs = [(each.effect, by_title[each.title]) for each in found]
        agreement.append(spearmanr(*zip(*pairs, strict=True)).statistic)
    return {"explain_rank_correlation": median(agreement), "explain_seconds": median(times)}


def load(folder: Path, dtype: str, minutes: float) -> GenRec:
    """Load a run, after training it if the folder holds none."""
    if not (folder / "genrec.json").is_file():
        from genrec.workflows.runs import train_run

        say(f"training {folder} for {minutes} minutes …")
        train_run("ml-100k", folder, {"minutes": minutes})
    return loaded(folder, dtype)


def loaded(folder: Path, dtype: str) -> GenRec:
    """Load a run; a language model that was left out of it is measured with a weight of one."""
    model = GenRec.from_pretrained(folder, dtype=dtype)
    likelihood = model.ranker.likelihood
    likelihood.lm_weight = likelihood.lm_weight or 1.0
    return model


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run all parts of the benchmark, or those of ``--only``."""
    model = load(options.run, options.dtype, options.minutes)
    split = genrec.leave_last_out(genrec.load_dataset(options.data))
    histories = split.test.histories
    result: dict[str, Any] = {
        "device": str(model.ranker.backbone.device),
        "dtype": model.ranker.backbone.dtype_name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "training_targets": model.info["training"]["targets"],
    }
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("throughput", lambda: throughput(model, histories, 64)),
        ("batches", lambda: batches(model, histories, options.batch or [1, 8], options.hf_beams)),
        ("beams", lambda: beams(model, histories, 50)),
        ("words", lambda: asked(model, histories, 20, options.repeats)),
        ("explanations", lambda: explanations(model, histories, 20)),
        ("validity", lambda: validity(model, histories, options.recommendations)),
        (
            "exactness",
            lambda: exactness(single_precision(options, model), histories, options.users),
        ),
    ]
    # The prompt lengths of 250 and 268 tokens need more than twenty titles.
    longer = loaded(options.run, options.dtype)
    config = longer.ranker.config.model_copy(update={"history_length": 60})
    longer._ranker = replace(longer.ranker, config=config)
    parts[:0] = [
        ("clicks", lambda: cold_and_click(longer, histories, options.repeats)),
        ("generate", lambda: hf_generate(longer, histories, 3)),
    ]
    for name, part in parts:
        if options.only and name not in options.only:
            continue
        say(f"{name} …")
        result |= part()
    return result


def single_precision(options: argparse.Namespace, model: GenRec) -> GenRec:
    """Return the run in float32."""
    if model.ranker.backbone.dtype_name == "float32" and model.ranker.backbone.device.type == "cpu":
        return model
    return loaded(options.run, "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/search"),
        help="run folder; trained if it does not exist",
    )
    parser.add_argument("--data", default="ml-100k", help="data set of the run")
    parser.add_argument(
        "--dtype", default="float32", help="number format: auto, float32 or bfloat16"
    )
    parser.add_argument(
        "--minutes", type=float, default=3, help="training time in minutes, if there is no run"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of measured calls per prompt"
    )
    parser.add_argument(
        "--users", type=int, default=50, help="number of histories checked by brute force"
    )
    parser.add_argument(
        "--recommendations",
        type=int,
        default=10_000,
        help="minimum number of recommendations checked for validity",
    )
    parser.add_argument(
        "--batch", type=int, action="append", help="number of users per batch; repeatable"
    )
    parser.add_argument(
        "--hf-beams",
        type=int,
        action="append",
        default=[],
        help="number of beams of HF generate in the batches; repeatable",
    )
    parser.add_argument(
        "--only", action="append", help="run only this part, e.g. clicks; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    show(run(options), options.json)


if __name__ == "__main__":
    main()
