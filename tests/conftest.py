"""Fixtures: a tiny random LLaMA with a real byte-level tokenizer, and a small readable data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories

# Machines differ in speed, and neighbours make them slower still: no example has a time limit.
settings.register_profile("genrec", deadline=None)
settings.load_profile("genrec")

WORDS = ("Red", "Blue", "Green", "Moon", "Sun", "River", "Stone", "Night", "Storm", "Garden")


def make_titles(count: int, seed: int = 0) -> list[str]:
    """Unique titles that share prefixes, as real ones do; some end in a year."""
    rng = np.random.default_rng(seed)
    titles: dict[str, None] = {}
    while len(titles) < count:
        words = " ".join(rng.choice(WORDS, size=rng.integers(1, 5)))
        titles[words + (f" ({rng.integers(1930, 2020)})" if rng.random() < 0.5 else "")] = None
    return list(titles)


TINY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,  # large, so that a random model has clear preferences
    "eos_token_id": 0,
    "bos_token_id": 0,
    "pad_token_id": 0,
}


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer of :data:`TINY`'s vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(make_titles(200), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random two-layer LLaMA, float32."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    save_tokenizer(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True, scope="session")
def _title_states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Title states of the tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr("genrec.language_model.title_states.cache_dir", lambda: folder)
        yield


def make_dataset(users: int = 40, items: int = 30, seed: int = 0) -> Dataset:
    """Users walk along the catalogue with noise, so that the next item is partly predictable."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        steps = rng.integers(1, 4, size=rng.integers(5, 12))
        rows.append(list(dict.fromkeys((rng.integers(items) + np.cumsum(steps)) % items)))
    titles = make_titles(items)
    ids = [f"i{n}" for n in range(items)]
    metadata = pl.DataFrame({"genre": ["odd" if n % 2 else "even" for n in range(items)]})
    return Dataset("walks", Catalogue(ids, titles, metadata), Histories.from_lists(rows))


@pytest.fixture
def walks() -> Dataset:
    return make_dataset()


def children_named(name: str, pid: int | None = None) -> list[psutil.Process]:
    """Return the living descendants of a process, by default this one, whose command has a name."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if any(name in part for part in child.cmdline()):
                found.append(child)
    return found
