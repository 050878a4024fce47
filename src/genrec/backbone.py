"""A causal language model from transformers: load it, cut it, adapt it with LoRA, merge it."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from genrec.assets import backbone_folder
from genrec.config import Config
from genrec.errors import BackboneError, RunError
from genrec.packed import pack_linear

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Backbone:
    """A tokenizer and its causal LM, with or without a LoRA adapter around it."""

    name: str
    source: str
    model: PreTrainedModel | PeftModel
    tokenizer: Any
    adapter: dict[str, bytes] = field(default_factory=dict)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model inside the adapter."""
        model = self.model
        return cast(
            PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model
        )

    @property
    def device(self) -> torch.device:
        return self.output_weight.device

    @property
    def dtype_name(self) -> str:
        """Name of the weights' type, as in ``Config.dtype``."""
        return str(self.output_weight.dtype).removeprefix("torch.")

    @property
    def output_weight(self) -> torch.Tensor:
        """Rows of the output projection, shape [vocabulary, hidden]."""
        return cast(torch.Tensor, self.causal_lm.get_output_embeddings().weight)

    def hidden(self, input_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Final hidden states, shape [rows, tokens, hidden]; no vocabulary projection is run."""
        output = self.causal_lm.get_decoder()(input_ids=input_ids, **inputs)
        return cast(torch.Tensor, output.last_hidden_state)

    def freeze(self) -> None:
        """End of training: fold the adapter into the weights and lay them out for inference.

        From then on a pass costs what the bare model costs, or less; the adapter's files are kept
        for :meth:`save_adapter`.
        """
        if isinstance(self.model, PeftModel):
            self.adapter = _adapter_files(self.model, self.name)
            self.model.eval()
            self.model = self.model.merge_and_unload()
        pack_linear(self.causal_lm.get_decoder())

    def fingerprint(self) -> str | None:
        """sha256 of the weight files of a local backbone; ``None`` for one named by Hub id."""
        digest = hashlib.sha256()
        files = sorted(Path(self.source).glob("*.safetensors"))
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest() if files else None

    def save_adapter(self, folder: Path) -> None:
        """Write the frozen adapter's plain PEFT files."""
        folder.mkdir()
        for name, content in self.adapter.items():
            (folder / name).write_bytes(content)


def choose_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``"auto"``: bfloat16 where the device multiplies it natively, otherwise float32.

    A CPU with AVX-512 BF16 or AMX runs it 2.5 times faster than float32; one with only AVX2
    emulates it 40 to 500 times slower.
    """
    if name == "float16" and device.type == "cpu":
        raise BackboneError("dtype=float16 needs a GPU; on a CPU use auto, float32 or bfloat16.")
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def runnable_dtype(trained: str) -> str:
    """The type to load a trained model in: its own, unless this machine would emulate it."""
    if choose_device().type == "cpu" and trained != "float32":
        return "auto"
    return trained


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively; False where torch (< 2.13) cannot tell."""
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(told.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def load_backbone(
    name: str, *, dtype: str = "auto", layers: int | None = None, device: torch.device | None = None
) -> Backbone:
    """Load a known name, a Hub id or a local folder.

    Args:
        layers: keep only the first ``layers`` decoder layers (a cheaper, weaker model).

    Raises:
        BackboneError: nothing loadable there, or it does not fit into memory.
    """
    device = device or choose_device()
    source = backbone_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        kind = choose_dtype(dtype, device)
        attention = _attention(kind, device)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=kind, **attention)
        _keep_layers(model, layers)
        model.to(device)  # type: ignore[arg-type]  # the stub's wrapper hides the signature
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackboneError(f"Backbone {name!r} cannot be loaded: {reason}") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise BackboneError(
            f"Backbone {name!r} does not fit into the memory of {device}: choose a smaller one, "
            "or set layers=N or dtype=bfloat16."
        ) from None
    model.eval().requires_grad_(False)
    return Backbone(name, source, model, tokenizer)


def add_lora(backbone: Backbone, config: Config) -> None:
    """Put a fresh LoRA adapter around the model (zero-initialised: outputs do not change yet)."""
    targets = config.lora_targets
    if targets == "all-linear" and config.lora_layers is not None:
        targets = _linear_names(backbone.causal_lm)  # PEFT selects layers by module names only
    total = backbone.causal_lm.config.num_hidden_layers
    last = None if config.lora_layers is None else range(max(0, total - config.lora_layers), total)
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=None if last is None else list(last),
        use_rslora=config.rslora,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():  # PEFT asks transformers by a deprecated name
            warnings.simplefilter("ignore", FutureWarning)
            backbone.model = get_peft_model(backbone.causal_lm, settings)
    except ValueError as error:
        raise BackboneError(f"LoRA does not fit backbone {backbone.name!r}: {error}") from None
    # No gradient reaches the layers below the first adapted one: they only run forward.
    layers = getattr(backbone.causal_lm.get_decoder(), "layers", [])
    for layer in [] if last is None else layers[: last.start]:
        pack_linear(layer)


def load_adapter(backbone: Backbone, folder: Path) -> None:
    """Load an adapter saved by :meth:`Backbone.save_adapter`.

    Raises:
        RunError: the adapter is missing or belongs to another backbone.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing: the run is incomplete; train it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            backbone.model = PeftModel.from_pretrained(backbone.causal_lm, str(folder))
    except (RuntimeError, ValueError, OSError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{folder}: not an adapter of {backbone.name!r}: {reason}") from None


def _attention(dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    """On CPUs transformers' plain attention is an eighth faster in bfloat16 than torch's fused."""
    plain = device.type == "cpu" and dtype == torch.bfloat16
    return {"attn_implementation": "eager"} if plain else {}


def _adapter_files(model: PeftModel, name: str) -> dict[str, bytes]:
    """Plain PEFT files by name; ``base_model_name_or_path`` is a name, not a local path."""
    for settings in model.peft_config.values():
        settings.base_model_name_or_path = name
    with tempfile.TemporaryDirectory(prefix="genrec-") as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _linear_names(model: PreTrainedModel) -> tuple[str, ...]:
    modules = model.get_decoder().named_modules()
    return tuple(sorted({name.split(".")[-1] for name, m in modules if isinstance(m, nn.Linear)}))


def _keep_layers(model: PreTrainedModel, layers: int | None) -> None:
    if layers is None:
        return
    decoder = model.get_decoder()
    blocks = getattr(decoder, "layers", None)
    if not isinstance(blocks, nn.ModuleList) or layers > len(blocks):
        have = len(blocks) if isinstance(blocks, nn.ModuleList) else "no list of"
        raise BackboneError(f"layers={layers}: the backbone has {have} decoder layers.")
    decoder.layers = blocks[:layers]
    model.config.num_hidden_layers = layers


def quiet_transformers() -> None:
    """Silence transformers' own progress bars and notes; GenRec prints its own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("peft").setLevel(logging.ERROR)
