"""A backbone with random weights, which shows what pretraining is worth."""

from __future__ import annotations

import hashlib
from pathlib import Path

from genrec.assets.cache import cache_dir
from genrec.assets.known import backbone_folder
from genrec.files import replace_folder


def random_backbone(name: str, seed: int) -> str:
    """Return a folder with a backbone of the same architecture and tokenizer, but random weights.

    Args:
        name: the backbone: a known name, a Hub id or a folder.
        seed: seed of the weights.
    """
    own = hashlib.sha256(name.encode()).hexdigest()[:8]  # two owners may use one name
    folder = cache_dir() / "random-backbones" / f"{Path(name).name}-{own}-{seed}"
    if not (folder / "config.json").is_file():
        replace_folder(folder, lambda new: _write(new, backbone_folder(name), seed))
    return str(folder)


def _write(folder: Path, source: str, seed: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
