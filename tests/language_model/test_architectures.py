"""Any causal language model of transformers that passes the check works; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from conftest import TINY, make_dataset, save_tokenizer
from genrec import GenRec, GenRecError, Histories, leave_last_out

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
SPECIAL = {key: TINY[key] for key in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id")}
WORKING = {
    "llama": hf.LlamaConfig(**TINY),
    "llama, one key for two queries, biases": hf.LlamaConfig(
        **{**TINY, "attention_bias": True, "mlp_bias": True}
    ),
    "qwen2": hf.Qwen2Config(**TINY),
    "qwen3": hf.Qwen3Config(**TINY, head_dim=8),
    "mistral": hf.MistralConfig(**TINY, sliding_window=1024),
    "gemma": hf.GemmaConfig(**TINY, head_dim=8),
    "gemma3": hf.Gemma3TextConfig(**TINY, head_dim=8, sliding_window=1024),
    "stablelm, whose attention stays its own": hf.StableLmConfig(**TINY, rotary_pct=1.0),
    "gpt2": hf.GPT2Config(**SPECIAL, **GPT2, initializer_range=0.4),
}
REFUSED = {
    "4-D": hf.MambaConfig(**SPECIAL, hidden_size=32, num_hidden_layers=2, state_size=4),
    "soft cap": hf.Gemma2Config(**TINY, head_dim=8, final_logit_softcapping=2.0),
    "scale": hf.GraniteConfig(**TINY, logits_scaling=3.0),
    "only 300 tokens back": hf.GPT2Config(**SPECIAL, **{**GPT2, "n_positions": 300}),
    "only 64 tokens back": hf.MistralConfig(**TINY, sliding_window=64),
}
SMALL: dict[str, Any] = {"dtype": "float32", "lora_rank": 4, "batch_size": 8, "max_tokens": 512}


def random_backbone(folder: Path, config: hf.PretrainedConfig) -> str:
    save_tokenizer(folder)
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("trained_layers", "context_layers"), [(1, None), (None, None), (None, 1)])
@pytest.mark.parametrize("name", WORKING)
def test_trains_and_searches_exactly(
    name: str, trained_layers: int | None, context_layers: int | None, tmp_path: Path
) -> None:
    data = make_dataset(users=20)
    split = leave_last_out(data)
    backbone = random_backbone(tmp_path / "backbone", WORKING[name])
    layers = {"trained_layers": trained_layers, "context_layers": context_layers}
    model = GenRec(backbone=backbone, prior="none", **layers, **SMALL)
    model.fit(split.train, epochs=1, progress=False)
    histories = split.test.histories.select([0, 1])
    found = model.recommend_batch(histories, 30, exclude_seen=False)
    for row in range(2):
        repeated = Histories.from_lists([histories[row]] * 30)
        scores = model.log_likelihood(repeated, np.arange(30, dtype=np.int32))
        np.testing.assert_allclose(found.scores[row], scores[found.items[row]], atol=5e-4)
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-3)
    model.save_pretrained(tmp_path / "run")
    loaded = GenRec.from_pretrained(tmp_path / "run")
    again = loaded.recommend_batch(histories, 30, exclude_seen=False)
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-4)


def test_layers_that_do_not_run_in_parts_are_refused_with_the_remedy(tmp_path: Path) -> None:
    config = hf.GPTJConfig(**SPECIAL, **GPT2, rotary_dim=4)
    settings = {"backbone": random_backbone(tmp_path / "backbone", config), **SMALL}
    with pytest.raises(GenRecError, match=r"two parts.*Set context_layers=null"):
        GenRec(**settings).build(make_dataset(users=5))
    model = GenRec(**settings, context_layers=None).build(make_dataset(users=5))
    assert len(model.recommend([], 3)) == 3


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(reason: str, tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path / "backbone", REFUSED[reason])
    with pytest.raises(GenRecError, match=reason):
        GenRec(backbone=backbone, **SMALL).build(make_dataset(users=5))
