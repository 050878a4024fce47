"""A data set by name or folder, ready to split."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from genrec.assets.cache import cache_dir
from genrec.assets.known import dataset_files
from genrec.data.dataset import Dataset
from genrec.data.interactions import read_interactions
from genrec.errors import DataError


def load_dataset(name: str | os.PathLike[str]) -> Dataset:
    """Load a prepared folder, or a known data set by name.

    A known data set is fetched, prepared once and kept in the cache.

    Raises:
        DataError: a folder that holds no prepared data set.
        AssetError: a name that is not known, or a data set that cannot be fetched.
    """
    folder = Path(name)
    if (folder / "dataset.json").is_file():
        return Dataset.load(folder)
    if folder.exists() or (len(folder.parts) > 1 and not str(name).startswith("amazon-")):
        raise DataError(f"{folder}: no prepared data set here; make one with `genrec prepare`.")
    prepared = cache_dir() / "prepared" / str(name)
    if (prepared / "dataset.json").is_file():
        try:
            data = Dataset.load(prepared)
            # A known data set is referred to by its name, not by its folder in the cache.
            return replace(data, provenance=replace(data.provenance, folder=None))
        except DataError:
            pass  # made by another version: prepare it afresh below
    read = read_interactions(dataset_files(str(name)))
    data = Dataset.from_interactions(read, name=str(name))
    prepared.parent.mkdir(parents=True, exist_ok=True)
    data.save(prepared)
    return data
