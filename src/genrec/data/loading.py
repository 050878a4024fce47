"""Loading of data sets by name or folder."""

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
    """Load a prepared data set folder or a known data set.

    A known data set is downloaded and prepared once and then read from the cache.

    Args:
        name: path of a folder that ``genrec prepare`` wrote, or a name of ``genrec data list``.

    Raises:
        DataError: The folder holds no prepared data set.
        AssetError: The name is unknown, or the data set cannot be downloaded.
    """
    folder = Path(name)
    if (folder / "dataset.json").is_file():
        return Dataset.load(folder)
    if folder.exists() or (len(folder.parts) > 1 and not str(name).startswith("amazon-")):
        raise DataError(
            f"{folder} is not a folder with a prepared data set; create one with "
            "`genrec prepare LOG --items ITEMS --out FOLDER`"
        )
    prepared = cache_dir() / "prepared" / str(name)
    if (prepared / "dataset.json").is_file():
        try:
            data = Dataset.load(prepared)
            # Runs refer to a known data set by its name, because the cache may move.
            return replace(data, provenance=replace(data.provenance, folder=None))
        except DataError:
            pass  # another version of GenRec wrote it, so it is prepared again below
    read = read_interactions(dataset_files(str(name)))
    data = Dataset.from_interactions(read, name=str(name))
    prepared.parent.mkdir(parents=True, exist_ok=True)
    data.save(prepared)
    return data
