"""Pack everything that a GPU machine without a network lacks, in parts that can be uploaded.

    python scripts/gpu/pack.py --data DATA … [--out .carry]

The script writes ``.carry/0/part``, ``.carry/1/part``, …, each small enough to be uploaded with the
working tree. Joined, the parts are one archive with the downloads of the backbone and of ML-100K in
the layout of GenRec's cache, wheels of packages that the machine lacks, and prepared data sets.
``ready.sh`` unpacks the archive on the machine.
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

PACKAGES = (
    "annotated-types",
    "cachetools",
    "gguf",
    "polars",
    "polars-runtime-32",
    "pydantic",
    "pydantic-core",
    "typing-extensions",
    "typing-inspection",
)
"""Packages that the machine's Python lacks; it has all other dependencies of pyproject.toml."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PART = 26 * 2**20
"""Size of a part in bytes; one upload holds at most 64 MiB, including the working tree (33 MiB)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", nargs="*", type=Path, default=[], help="prepared data set folders"
    )
    parser.add_argument(
        "--backbone",
        action="append",
        help="known language model; repeatable; smollm2-135m if omitted",
    )
    parser.add_argument("--python", default="3.12", help="Python version of the machine")
    parser.add_argument("--out", type=Path, default=Path(".carry"), help="folder for the parts")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        kit = Path(folder) / "kit"
        fetch("dataset", "ml-100k", kit / "cache" / "downloads" / "ml-100k")
        for name in options.backbone or ["smollm2-135m"]:
            fetch("backbone", name, kit / "cache" / "downloads" / name)
        wheels(options.python, kit / "wheels")
        for data in options.data:
            shutil.copytree(data, kit / "data" / data.name)
        archive = Path(folder) / "kit.tar"
        with tarfile.open(archive, "w") as tar:  # wheels are compressed already
            tar.add(kit, "kit")
        print(f"wrote {split(archive, options.out)} parts to {options.out}")


def fetch(kind: cache.Kind, name: str, folder: Path) -> None:
    """Download the archives of a known asset into a folder, in the layout of GenRec's cache."""
    folder.mkdir(parents=True)
    for part in known._catalogue(kind)[name].parts:
        cache._fetched(part, folder, "")


def wheels(python: str, folder: Path) -> None:
    """Download wheels of the missing packages, in the versions that are installed here."""
    from importlib.metadata import version

    where = ["--python-version", python, "--implementation", "cp"]
    where += [part for platform in PLATFORMS for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", *where, "--dest", str(folder)]
    command += [f"{name}=={version(name)}" for name in PACKAGES]
    subprocess.run(command, check=True)


def split(archive: Path, out: Path) -> int:
    """Split a file into parts, each in its own folder, and return their number."""
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
