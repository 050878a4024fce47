"""Turn a backbone's GGUF file into the safetensors that transformers loads."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from genrec.assets.download import say
from genrec.errors import AssetError

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


# ---- HTTP -----------------------------------------------------------------------------------


def convert(folder: Path) -> None:
    """Turn the GGUF file in `folder` into float32 safetensors and a tokenizer, once.

    float32, for a CPU computes with nothing else as fast. The model is built anew from its
    configuration, because one that was read from GGUF refuses to be saved.
    """
    say("converting the backbone (once, about 20 seconds) …")
    try:
        _convert_gguf(folder)
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        remedy = "run `genrec doctor`, and install the versions that constraints.txt names"
        raise AssetError(f"{GGUF_FILE}: cannot be converted ({error}); {remedy}") from error
    (folder / GGUF_FILE).unlink()


def _convert_gguf(folder: Path) -> None:
    with _quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE)
        read = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=GGUF_FILE, dtype=torch.float32
        )
        dropped = ("quantization_config", "_name_or_path", "_model_name_or_path")
        settings = {k: v for k, v in read.config.to_dict().items() if k not in dropped}
        model = LlamaForCausalLM(LlamaConfig(**settings))
        model.load_state_dict(read.state_dict())
        model.tie_weights()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Neither warnings nor bars of transformers: they speak of GGUF details nobody can act on."""
    with contextlib.redirect_stderr(io.StringIO()):
        from transformers.utils import logging

        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
