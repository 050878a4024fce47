"""A causal language model from transformers: load it, cut it, adapt it with LoRA, merge it."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from genrec.assets import backbone_folder
from genrec.config import Config
from genrec.errors import BackboneError, ConfigError, RunError
from genrec.packed import pack_linear
from genrec.processes import process_count

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
        with self._mixed_precision():
            output = self.causal_lm.get_decoder()(input_ids=input_ids, **inputs)
        return cast(torch.Tensor, output.last_hidden_state)

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        """LoRA's weights stay float32 for the optimiser; its products take the backbone's type."""
        kind = self.output_weight.dtype
        if kind == torch.float32 or not isinstance(self.model, PeftModel):
            return nullcontext()
        return torch.autocast(self.device.type, kind)

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder's layers, first to last."""
        decoder = self.causal_lm.get_decoder()
        for name in ("layers", "h"):
            if isinstance(found := getattr(decoder, name, None), nn.ModuleList):
                return found
        raise BackboneError(f"Backbone {self.name!r} has no list of decoder layers.")

    @property
    def quantized(self) -> bool:
        return getattr(self.causal_lm, "is_quantized", False)

    @property
    def sharded(self) -> bool:
        """Whether several processes hold a share each: then all of them must run every pass."""
        return bool(sharded_names(self.causal_lm))

    def freeze(self) -> None:
        """End of training: fold the adapter into the weights and lay them out for inference.

        From then on a pass costs what the bare model costs, or less; the adapter's files are kept
        for :meth:`save_adapter`. Quantized and sharded weights stay as they are, the adapter beside
        them: folding it in would round the first, and no process has the second whole.
        """
        self.model.eval().requires_grad_(False)
        if isinstance(self.model, PeftModel):
            self.adapter = _adapter_files(self.model, self.name)
            if not (self.quantized or self.sharded):
                self.model = self.model.merge_and_unload()
        if not self.sharded:
            pack_linear(self.causal_lm.get_decoder())

    def export(self, folder: Path) -> None:
        """Write weights and tokenizer as plain transformers loads them.

        Raises:
            BackboneError: the weights are quantized or sharded, and not those of a plain model.
        """
        if self.quantized or self.sharded:
            raise BackboneError("Quantized or sharded weights cannot be exported.")
        self.causal_lm.save_pretrained(folder, state_dict=self.causal_lm.state_dict())
        self.tokenizer.save_pretrained(folder)

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
    """CUDA (each process of a node its own), then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``"auto"``: bfloat16 where the device multiplies it faster than float32."""
    if name == "float16" and device.type == "cpu":
        raise BackboneError("dtype=float16 needs a GPU; on a CPU use auto, float32 or bfloat16.")
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and bf16_speedup() > 1.25 else torch.float32


def runnable_dtype(trained: str) -> str:
    """The type to load a trained model in: its own, unless this machine is slow in it."""
    if choose_device().type == "cpu" and trained != "float32":
        return "auto"
    return trained


@lru_cache
def bf16_speedup() -> float:
    """How many times as fast the CPU multiplies bfloat16 as float32; 0 where it only emulates it.

    Measured, as flags do not tell: with AVX-512 BF16 it was 3 times as fast on AMD (Zen 5) and half
    as fast on Intel (Xeon without AMX); with only AVX2 it is 40 to 500 times slower.
    """
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not any(told.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16")):
        return 0.0
    wide, short = (_seconds_of_matmul(kind) for kind in (torch.float32, torch.bfloat16))
    return wide / short


def _seconds_of_matmul(dtype: torch.dtype, size: int = 768) -> float:
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):  # the first one is also the warm-up
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times)


def load_backbone(
    name: str,
    *,
    dtype: str = "auto",
    layers: int | None = None,
    quantization: str = "none",
    folder: Path | None = None,
    device: torch.device | None = None,
) -> Backbone:
    """Load a known name, a Hub id or a local folder.

    Args:
        layers: keep only the first ``layers`` decoder layers (a cheaper, weaker model).
        quantization: ``"4bit"`` for NF4 weights.
        folder: where its weights are instead, as :meth:`Backbone.export` wrote them.

    Raises:
        BackboneError: nothing loadable there, or it does not fit into memory.
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
            model.to(device)  # type: ignore[arg-type]  # the stub's wrapper hides the signature
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackboneError(f"Backbone {name!r} cannot be loaded: {reason}") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise BackboneError(
            f"Backbone {name!r} does not fit into the memory of {device}: choose a smaller one, "
            "or set layers=N, dtype=bfloat16 or quantization=4bit."
        ) from None
    model.eval().requires_grad_(False)
    return backbone


@torch.inference_mode()
def check_architecture(backbone: Backbone, max_tokens: int, longest: int) -> None:
    """Make sure of what search and likelihood rely on, by asking the model itself.

    Raises:
        BackboneError: its logits are more than a projection of the hidden states, it ignores a
            4-D attention mask, or it does not reach over a prompt of ``max_tokens`` tokens and a
            title of the ``longest``.
    """
    kind = type(backbone.causal_lm).__name__
    reach = _reach(backbone.causal_lm)
    if reach is not None and reach < max_tokens + longest:
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) sees only {reach} tokens back: "
            f"set max_tokens={max(0, reach - longest)} or less."
        )
    device, weight = backbone.device, backbone.output_weight
    branches = torch.tensor([[1, 2, 3], [1, 2, 4]], device=device)
    hidden = backbone.hidden(branches, use_cache=False)
    logits = backbone.causal_lm(branches, use_cache=False).logits
    if not _close(hidden.to(weight.dtype) @ weight.T, logits):
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) changes its logits after the projection "
            "(a bias, a scale or a soft cap), which GenRec's likelihood does not know."
        )
    visible = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]], device=device)
    mask = torch.zeros(1, 1, 4, 4, dtype=weight.dtype, device=device)
    mask.masked_fill_(visible == 0, torch.finfo(weight.dtype).min)
    try:
        tree = backbone.hidden(
            torch.tensor([[1, 2, 3, 4]], device=device),
            position_ids=torch.tensor([[0, 1, 2, 2]], device=device),
            attention_mask=mask,
            use_cache=False,
        )
        works = _close(tree[0, 2:], hidden[:, 2])
    except (TypeError, ValueError, RuntimeError, IndexError):
        works = False
    if not works:
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) does not work with 4-D attention masks, "
            "which the exact search needs; choose another architecture (Llama, Qwen, Mistral, …)."
        )


def _reach(model: PreTrainedModel) -> int | None:
    """Tokens that a sliding window or learned positions cover; ``None`` where nothing ends."""
    config, found = model.config, [getattr(model.config, "sliding_window", None)]
    tables = [m for m in model.get_decoder().modules() if isinstance(m, nn.Embedding)]
    if len(tables) > 1:  # one of tokens, another of positions
        found.append(getattr(config, "max_position_embeddings", None))
    return min((limit for limit in found if limit is not None), default=None)


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    scale = expected.float().abs().max()
    error = (found.float() - expected.float()).abs().max()
    return bool(error <= scale * (1e-3 if expected.dtype == torch.float32 else 0.1))


def make_trainable(backbone: Backbone, config: Config) -> None:
    """Prepare the last ``config.trained_layers`` layers for training: a fresh LoRA, or themselves.

    A fresh adapter is zero-initialised: outputs do not change yet.
    """
    total = len(backbone.blocks)
    first = max(0, total - (config.trained_layers or total))
    if config.tuning == "full":
        _unfreeze(backbone, first)
    else:
        _add_lora(backbone, config, first)
    if config.gradient_checkpointing:
        backbone.causal_lm.activation_checkpointing_enable({"use_reentrant": False})
    # No gradient reaches the layers below the first trained one: they only run forward.
    for layer in () if backbone.sharded else backbone.blocks[:first]:
        pack_linear(layer)


def shard(backbone: Backbone, device: torch.device) -> None:
    """Share out the weights of the decoder's layers among the processes (FSDP).

    A pass gathers one layer at a time. Embeddings and what LoRA adds stay whole in each process, so
    that likelihood and checkpoints need not know. The layers move to the device one by one:
    load the backbone on the CPU, and no device has to hold it whole.

    Raises:
        ConfigError: there is only one process.
    """
    if process_count() == 1:
        raise ConfigError("fsdp=true needs several processes: start it with torchrun.")
    mesh = init_device_mesh(device.type, (process_count(),))
    for block in backbone.blocks:
        sharded = fully_shard(block, mesh=mesh, reshard_after_forward=True)
        # Gathered once before the first inference pass, whose tensors training could not reuse.
        sharded.unshard()
        sharded.reshard()
    backbone.causal_lm.to(device)  # type: ignore[arg-type]  # as above


def sharded_names(module: nn.Module) -> list[str]:
    """Names of the parameters of which each process holds a share."""
    return [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]


def _unfreeze(backbone: Backbone, first: int) -> None:
    decoder = backbone.causal_lm.get_decoder()
    if not first:
        backbone.causal_lm.requires_grad_(True)
        return
    for name, module in decoder.named_children():
        if "norm" in name or name == "ln_f":
            module.requires_grad_(True)
    for layer in backbone.blocks[first:]:
        layer.requires_grad_(True)


def _add_lora(backbone: Backbone, config: Config, first: int) -> None:
    targets = config.lora_targets
    if targets == "all-linear" and first:
        targets = _linear_names(backbone.causal_lm)  # PEFT selects layers by module names only
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=list(range(first, len(backbone.blocks))) if first else None,
        use_rslora=config.rslora,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():  # PEFT asks transformers by a deprecated name
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # Conv1D: it is set then
            backbone.model = get_peft_model(backbone.causal_lm, settings)
    except ValueError as error:
        raise BackboneError(f"LoRA does not fit backbone {backbone.name!r}: {error}") from None
    for module in backbone.model.modules():
        if isinstance(module, LoraLayer):  # autocast does it; first to float32 and back costs time
            module.cast_input_dtype_enabled = False


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
        (Path(folder) / "README.md").unlink(missing_ok=True)  # a form, with a local path in it
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _linear_names(model: PreTrainedModel) -> tuple[str, ...]:
    modules = model.get_decoder().named_modules()
    linear = (nn.Linear, Conv1D)
    return tuple(sorted({name.split(".")[-1] for name, m in modules if isinstance(m, linear)}))


def _keep_layers(backbone: Backbone, layers: int) -> None:
    blocks = backbone.blocks
    if layers > len(blocks):
        raise BackboneError(f"layers={layers}: the backbone has {len(blocks)} decoder layers.")
    del blocks[layers:]
    backbone.causal_lm.config.num_hidden_layers = layers
    if types := getattr(backbone.causal_lm.config, "layer_types", None):
        backbone.causal_lm.config.layer_types = types[:layers]


def _quantization(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    if name == "none":
        return {}
    if device.type != "cuda":
        raise BackboneError("quantization=4bit needs a CUDA GPU; set quantization=none.")
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def quiet_transformers() -> None:
    """Silence transformers' own progress bars and notes; GenRec prints its own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("peft").setLevel(logging.ERROR)
