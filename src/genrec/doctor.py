"""Diagnosis of this machine: versions, devices, threads, memory, cache and missing extras."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.assets.cache import cache_dir
from genrec.assets.known import list_assets

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Diagnosis", "diagnose", "render"]

_GIB = 1 << 30
_DISTRIBUTIONS = [
    "genrec",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "gguf",
    "numpy",
    "scipy",
    "scikit-learn",
    "polars",
    "pydantic",
    "typer",
    "rich",
]
# For each extra: one module that it installs, and its purpose.
_EXTRAS = {
    "serve": ("fastapi", "the recommendation service and its page"),
    "postgres": ("psycopg", "events in PostgreSQL"),
    "tracking": ("tensorboard", "training curves in TensorBoard"),
    "compare": ("bm25s", "the baseline title-search"),
    "quantization": ("bitsandbytes", "backbones in 4 bits on CUDA"),
    "ray": ("ray", "clusters"),
    "dev": ("pytest", "tests and checks of GenRec itself"),
}
_DISK_WANTED = 2 * _GIB  # for the wheel, the converted backbone and some runs
_MEMORY_WANTED = 4 * _GIB  # for a 135M model in float32 with its training state and the data


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: name of the hardware.
        kind: torch device, such as "cuda:0".
        memory: memory in bytes; ``None`` if it shares the machine's memory.
    """

    name: str
    kind: str
    memory: int | None


@dataclass(frozen=True)
class Diagnosis:
    """The result of ``genrec doctor``; sizes are in bytes.

    Attributes:
        versions: version of each package; ``None`` if it is missing.
        system: operating system.
        cpu: name, cores, threads and number formats of the processor.
        memory: total and available memory.
        devices: accelerators.
        cache: folder, free space and assets of the cache.
        extras: purpose of each missing extra, by name.
        warnings: sentences that name a problem and its remedy.
    """

    versions: dict[str, str | None]
    system: str
    cpu: dict[str, Any]
    memory: dict[str, int]
    devices: list[Device]
    cache: dict[str, Any]
    extras: dict[str, str]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that ``json.dumps`` accepts."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Inspect this machine. This only reads and downloads nothing, but imports torch."""
    memory, cpu, cache = _memory(), _cpu(), _cache()
    versions = {"python": platform.python_version()}
    found = versions | {name: _version(name) for name in _DISTRIBUTIONS}
    return Diagnosis(
        versions=found,
        system=platform.platform(),
        cpu=cpu,
        memory=memory,
        devices=(devices := _devices()),
        cache=cache,
        extras=_missing_extras(),
        warnings=_warnings(found, cpu, memory, devices, cache),
    )


def render(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print a diagnosis for people."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(diagnosis):
        table.add_row(name, escape(text))
    console = console or Console()
    console.print(table)
    for warning in diagnosis.warnings:
        console.print(f"[yellow]![/yellow] {escape(warning)}", highlight=False)
    if not diagnosis.warnings:
        console.print("[green]No problem found: GenRec has everything it needs.[/green]")


def _lines(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    cpu, memory, cache = diagnosis.cpu, diagnosis.memory, diagnosis.cache
    found = [f"{name} {version or 'missing'}" for name, version in diagnosis.versions.items()]
    bf16 = "no bfloat16"
    if cpu["bf16_speedup"]:
        bf16 = f"bfloat16 at {cpu['bf16_speedup']:.1f} times the speed of float32"
    shown = [_device_line(device) for device in diagnosis.devices]
    missing = [f"{name}: for {use}" for name, use in diagnosis.extras.items()]
    writable = "" if cache["writable"] else ", NOT writable"
    return [
        ("versions", ", ".join(found)),
        ("system", diagnosis.system),
        ("processor", f"{cpu['name']}, {cpu['capability']}, {bf16}"),
        ("threads", f"{cpu['threads']} used by torch, on {cpu['cores']} usable cores"),
        ("memory", f"{_gib(memory['available'])} free of {_gib(memory['total'])}"),
        ("devices", "\n".join(shown) or "no accelerator; the CPU is used"),
        ("cache", f"{cache['folder']}{writable}, {_gib(cache['free'])} free on its disk"),
        ("cached", ", ".join(cache["assets"]) or "nothing yet"),
        ("not installed", "\n".join(missing) or "no extra is missing"),
    ]


def _device_line(device: Device) -> str:
    memory = "shared memory" if device.memory is None else _gib(device.memory)
    return f"{device.kind}: {device.name}, {memory}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _version(name: str) -> str | None:
    if name == "genrec":
        from genrec._version import __version__

        return __version__
    if name == "torch":  # its metadata may lack the build, as in 2.13.0+cu130
        with contextlib.suppress(ImportError):
            import torch

            return str(torch.__version__)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _cpu() -> dict[str, Any]:
    facts: dict[str, Any] = {"name": _cpu_name(), "cores": usable_cores()}
    unknown = {
        "capability": "torch is missing",
        "bf16_speedup": 0.0,
        "threads": 0,
        "cuda_build": False,
    }
    try:
        import torch
    except ImportError:
        return facts | unknown
    from genrec.language_model.devices import bf16_speedup

    return facts | {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_speedup": round(bf16_speedup(), 2),
        "threads": torch.get_num_threads(),
        "cuda_build": bool(torch.version.cuda or torch.version.hip),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of cores for this process; a container can have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> dict[str, int]:
    import psutil

    memory = psutil.virtual_memory()
    return {"total": int(memory.total), "available": int(memory.available)}


def _devices() -> list[Device]:
    try:
        import torch
    except ImportError:
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(Device(properties.name, f"cuda:{index}", int(properties.total_memory)))
    if torch.backends.mps.is_available():
        found.append(Device(platform.processor() or "Apple GPU", "mps", None))
    return found


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    # The first download creates the folder; until then, its nearest existing parent is checked.
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return {
        "folder": str(folder),
        "writable": existing.is_dir() and os.access(existing, os.W_OK | os.X_OK),
        "free": shutil.disk_usage(existing).free,
        "assets": [asset.name for asset in list_assets() if asset.cached],
    }


def _missing_extras() -> dict[str, str]:
    found = importlib.util.find_spec
    return {name: use for name, (module, use) in _EXTRAS.items() if found(module) is None}


def _warnings(
    versions: dict[str, str | None],
    cpu: dict[str, Any],
    memory: dict[str, int],
    devices: list[Device],
    cache: dict[str, Any],
) -> list[str]:
    missing = [name for name, version in versions.items() if version is None]
    idle_gpu = not devices and shutil.which("nvidia-smi")
    room = f"Only {_gib(cache['free'])} are free on the disk of {cache['folder']}"
    checks = {
        "Python is too old. Use 3.11 or later.": sys.version_info < (3, 11),
        f"Packages are missing: {', '.join(missing)}. Reinstall GenRec with pip.": missing,
        f"{cache['folder']} cannot be written. Set GENREC_CACHE to another folder.": (
            not cache["writable"]
        ),
        f"{room}, but the backbone and runs need {_gib(_DISK_WANTED)}. Set GENREC_CACHE to a "
        "folder on another disk.": cache["free"] < _DISK_WANTED,
        f"Only {_gib(memory['available'])} of memory are free, but training needs "
        f"{_gib(_MEMORY_WANTED)}. Close other programs, or set layers to use fewer layers.": (
            memory["available"] < _MEMORY_WANTED
        ),
        f"torch runs {cpu['threads']} threads on {cpu['cores']} cores, which is much slower."
        f" Set OMP_NUM_THREADS={cpu['cores']}.": cpu["threads"] > cpu["cores"],
        "There is an NVIDIA driver, but torch was built for the CPU only. Install torch with "
        "CUDA.": idle_gpu and not cpu["cuda_build"],
        "There is an NVIDIA driver, but torch finds no GPU that it can use. Update the driver, or "
        "install a build of torch for its version of CUDA.": idle_gpu and cpu["cuda_build"],
    }
    return [text for text, applies in checks.items() if applies]
