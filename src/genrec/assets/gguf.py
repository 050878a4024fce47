"""Conversion of a backbone's GGUF file into safetensors, which transformers loads."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from genrec.assets.download import say
from genrec.errors import AssetError


def convert(folder: Path) -> None:
    """Convert the GGUF file in ``folder`` into float32 safetensors and a tokenizer, then delete it.

    The file may come in pieces ``….gguf.part…``, which are joined in the order of their names. The
    type is float32, because it is the fastest one that every CPU computes with. The model is
    rebuilt from its configuration, because a model loaded from GGUF cannot be saved.

    Raises:
        AssetError: the file cannot be converted.
    """
    say("converting the backbone (once, about a minute at most) …")
    file = _joined(folder)
    try:
        _convert_gguf(folder, file.name)
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        remedy = "Run `genrec doctor`, and install the versions that constraints.txt lists."
        raise AssetError(f"{file.name} cannot be converted ({error}). {remedy}") from error
    file.unlink()


def _joined(folder: Path) -> Path:
    """Return the GGUF file of a folder, after joining its pieces if there are any."""
    pieces = sorted(folder.glob("*.gguf.part*"))
    if not pieces:
        return next(folder.glob("*.gguf"))
    whole = pieces[0].with_suffix("")
    with whole.open("wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())
            piece.unlink()
    return whole


def _convert_gguf(folder: Path, file: str) -> None:
    with _quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        dropped = ("quantization_config", "_name_or_path", "_model_name_or_path")
        settings = {k: v for k, v in read.config.to_dict().items() if k not in dropped}
        model = type(read)(type(read.config)(**settings))
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
