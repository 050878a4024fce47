"""Pack what a bare accelerator machine without a network lacks, in parts that can travel.

    python scripts/gpu/pack.py --data DATA … [--out .carry]

Writes ``.carry/0/part``, ``.carry/1/part``, …, each small enough to go along with the working tree.
Together they are one archive: the wheels of the backbone and of ML-100K where GenRec's cache looks
for downloads, wheels of packages that the machine does not have, and prepared data sets.
``ready.sh`` unpacks it there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from genrec.assets import cache, known

ASSETS = (("backbone", "smollm2-135m"), ("dataset", "ml-100k"))
PACKAGES = (
    "annotated-types",
    "cachetools",
    "gguf",
    "polars",
    "polars-runtime-32",
    "pydantic",
    "pydantic-core",
)
"""What the machine's Python lacks; the rest of pyproject's dependencies is there."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PART = 34 * 2**20
"""Bytes of a part: 64 MiB may travel at a time, the working tree included."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="prepared data sets")
    parser.add_argument("--python", default="3.12", help="Python of the machine")
    parser.add_argument("--out", type=Path, default=Path(".carry"))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        kit = Path(folder) / "kit"
        for kind, name in ASSETS:
            fetch(kind, name, kit / "cache" / "downloads" / name)
        wheels(options.python, kit / "wheels")
        for data in options.data:
            shutil.copytree(data, kit / "data" / data.name)
        archive = Path(folder) / "kit.tar"
        with tarfile.open(archive, "w") as tar:  # wheels are compressed already
            tar.add(kit, "kit")
        print(f"{split(archive, options.out)} parts in {options.out}")


def fetch(kind: cache.Kind, name: str, folder: Path) -> None:
    """The archives of a known asset, as GenRec leaves them before it unpacks them."""
    folder.mkdir(parents=True)
    for part in known._catalogue(kind)[name].parts:
        cache._fetched(part, folder, "")


def wheels(python: str, folder: Path) -> None:
    """Wheels of the missing packages in the versions that are installed here."""
    from importlib.metadata import version

    where = ["--python-version", python, "--implementation", "cp"]
    where += [part for platform in PLATFORMS for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", *where, "--dest", str(folder)]
    command += [f"{name}=={version(name)}" for name in PACKAGES]
    subprocess.run(command, check=True)


def split(archive: Path, out: Path) -> int:
    """Cut a file into parts, each in a folder of its own; returns how many."""
    with archive.open("rb") as file:
        count = 0
        while content := file.read(PART):
            folder = out / str(count)
            folder.mkdir(parents=True)
            (folder / "part").write_bytes(content)
            count += 1
    return count


if __name__ == "__main__":
    main()
