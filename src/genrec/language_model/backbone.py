"""The backbone: a causal language model from transformers.

It can be cut to its first layers, frozen and exported.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from genrec.assets.known import backbone_folder
from genrec.errors import BackboneError
from genrec.language_model.attention import attend_in_rows
from genrec.language_model.devices import choose_device, choose_dtype
from genrec.language_model.packed import pack_linear
from genrec.language_model.sharding import sharded_names
from genrec.language_model.word_vectors import WordVectors


@dataclass
class Backbone:
    """A tokenizer and its causal language model, with or without a LoRA adapter.

    Attributes:
        name: known name, Hub id or folder, as the user gave it.
        source: Hub id or folder that the weights were loaded from.
        model: the transformers model, or PEFT's wrapper around it.
        tokenizer: its tokenizer.
        adapter_files: PEFT files of a merged adapter, by file name.
    """

    name: str
    source: str
    model: PreTrainedModel | PeftModel
    tokenizer: Any
    adapter_files: dict[str, bytes] = field(default_factory=dict)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model inside the adapter."""
        model = self.model
        return cast(
            PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model
        )

    @cached_property
    def word_vectors(self) -> WordVectors:
        """Vectors of single words."""
        embeddings = cast(nn.Embedding, self.causal_lm.get_input_embeddings())
        return WordVectors(self.tokenizer, embeddings)

    @property
    def device(self) -> torch.device:
        """Device of the output projection."""
        return self.output_weight.device

    @property
    def dtype_name(self) -> str:
        """Name of the weights' type, as in ``Config.dtype``."""
        return str(self.output_weight.dtype).removeprefix("torch.")

    @property
    def output_weight(self) -> torch.Tensor:
        """Weight of the output projection, shape [vocabulary, hidden]."""
        return cast(torch.Tensor, self.causal_lm.get_output_embeddings().weight)

    def hidden(self, input_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Return final hidden states without projecting them to the vocabulary.

        Args:
            input_ids: shape [rows, tokens].
            inputs: further arguments of the decoder.

        Returns:
            Shape [rows, tokens, hidden].
        """
        with self.mixed_precision():
            output = self.causal_lm.get_decoder()(input_ids=input_ids, **inputs)
        return cast(torch.Tensor, output.last_hidden_state)

    def mixed_precision(self) -> AbstractContextManager[Any]:
        """Run LoRA in the backbone's type; its weights stay float32 for the optimiser."""
        kind = self.output_weight.dtype
        if kind == torch.float32 or not isinstance(self.model, PeftModel):
            return nullcontext()
        return torch.autocast(self.device.type, kind)

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder's layers, first to last."""
        return cast(nn.ModuleList, getattr(self.causal_lm.get_decoder(), self.blocks_name))

    @property
    def blocks_name(self) -> str:
        """Name of the decoder's list of layers."""
        decoder = self.causal_lm.get_decoder()
        for name in ("layers", "h"):
            if isinstance(getattr(decoder, name, None), nn.ModuleList):
                return name
        raise BackboneError(
            f"Backbone {self.name!r} has no list of decoder layers. Choose another architecture "
            "(Llama, Qwen, Mistral, …)."
        )

    @property
    def final_norms(self) -> list[tuple[str, nn.Module]]:
        """Names and modules of the normalisation after the last layer."""
        children = self.causal_lm.get_decoder().named_children()
        return [(name, child) for name, child in children if "norm" in name or name == "ln_f"]

    @property
    def quantized(self) -> bool:
        """Whether the weights are quantized."""
        return getattr(self.causal_lm, "is_quantized", False)

    @property
    def sharded(self) -> bool:
        """Whether the weights are sharded; all processes must then run every forward pass."""
        return bool(sharded_names(self.causal_lm))

    def merge_for_inference(self) -> None:
        """Merge the adapter into the weights and lay the weights out for inference.

        Call this at the end of training. A forward pass then costs at most as much as that of the
        plain model. The adapter's files are kept for :meth:`save_adapter`. Quantized and sharded
        weights stay unmerged: merging would round quantized weights, and no process holds sharded
        weights in full.
        """
        self.model.eval().requires_grad_(False)
        if isinstance(self.model, PeftModel):
            self.adapter_files = _adapter_files(self.model, self.name)
            if not (self.quantized or self.sharded):
                self.model = self.model.merge_and_unload()
        if not self.sharded:
            pack_linear(self.causal_lm.get_decoder())

    def export(self, folder: Path) -> None:
        """Write weights and tokenizer in the format of transformers.

        Raises:
            BackboneError: the weights are quantized or sharded, so they are not those of a plain
                model.
        """
        if self.quantized or self.sharded:
            raise BackboneError(
                "Quantized or sharded weights cannot be exported. Train with quantization=none "
                "and fsdp=false to export the model."
            )
        self.causal_lm.save_pretrained(folder, state_dict=self.causal_lm.state_dict())
        self.tokenizer.save_pretrained(folder)

    def fingerprint(self) -> str | None:
        """Return the SHA-256 of the weight files of a local backbone; ``None`` for a Hub id."""
        digest = hashlib.sha256()
        files = sorted(Path(self.source).glob("*.safetensors"))
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest() if files else None

    def save_adapter(self, folder: Path) -> None:
        """Write the merged adapter as plain PEFT files."""
        folder.mkdir()
        for name, content in self.adapter_files.items():
            (folder / name).write_bytes(content)


def load_backbone(
    name: str,
    *,
    dtype: str = "auto",
    layers: int | None = None,
    quantization: str = "none",
    folder: Path | None = None,
    device: torch.device | None = None,
    on: torch.device | None = None,
) -> Backbone:
    """Load a backbone by known name, Hub id or local folder.

    Args:
        name: known name, Hub id or local folder.
        dtype: number type; ``"auto"`` chooses the fastest one.
        layers: keep only the first ``layers`` decoder layers (a cheaper, weaker model).
        quantization: ``"4bit"`` for NF4 weights, or ``"none"``.
        folder: load weights from here instead, as :meth:`Backbone.export` wrote them.
        device: device on which the model computes; chosen automatically if ``None``.
        on: device to load the weights to, if it is another one for now.

    Raises:
        BackboneError: no backbone can be loaded from there, or it does not fit into memory.
    """
    device = device or choose_device()
    source = backbone_folder(name) if folder is None else str(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        kind = choose_dtype(dtype, device)
        how = {**_attention(kind, device), **_quantization(quantization, kind, device)}
        model = AutoModelForCausalLM.from_pretrained(source, dtype=kind, **how)
        backbone = Backbone(name, source, model, tokenizer)
        if layers is not None:
            _keep_layers(backbone, layers)
        if quantization == "none":
            model.to(on or device)  # type: ignore[arg-type]  # the stub's wrapper hides the signature
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackboneError(f"Backbone {name!r} cannot be loaded: {reason}") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise BackboneError(
            f"Backbone {name!r} does not fit into the memory of {device}. Choose a smaller one, "
            "or set layers=N, dtype=bfloat16 or quantization=4bit."
        ) from None
    model.eval().requires_grad_(False)
    attend_in_rows(model)
    return backbone


def _attention(dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    """Choose eager attention for bfloat16 on a CPU, an eighth faster than torch's fused one."""
    plain = device.type == "cpu" and dtype == torch.bfloat16
    return {"attn_implementation": "eager"} if plain else {}


def _adapter_files(model: PeftModel, name: str) -> dict[str, bytes]:
    """Return plain PEFT files by name; ``base_model_name_or_path`` is a name, not a local path."""
    for settings in model.peft_config.values():
        settings.base_model_name_or_path = name
    with tempfile.TemporaryDirectory(prefix="genrec-") as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        (Path(folder) / "README.md").unlink(missing_ok=True)  # a template with a local path in it
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _keep_layers(backbone: Backbone, layers: int) -> None:
    blocks = backbone.blocks
    if layers > len(blocks):
        raise BackboneError(
            f"layers={layers} is too large: the backbone has {len(blocks)} decoder layers. Set "
            f"layers to {len(blocks)} or less."
        )
    del blocks[layers:]
    backbone.causal_lm.config.num_hidden_layers = layers
    if types := getattr(backbone.causal_lm.config, "layer_types", None):
        backbone.causal_lm.config.layer_types = types[:layers]


def _quantization(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    if name == "none":
        return {}
    if device.type != "cuda":
        raise BackboneError("quantization=4bit needs a CUDA GPU. Set quantization=none.")
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def quiet_transformers() -> None:
    """Silence the progress bars and messages of transformers; GenRec prints its own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("peft").setLevel(logging.ERROR)
