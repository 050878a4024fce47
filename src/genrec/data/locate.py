"""Where a log and its item table are."""

from __future__ import annotations

from pathlib import Path

from genrec.data.formats import parts_of
from genrec.errors import DataError

_BESIDE = {"ratings.csv": "movies.csv", "ratings.dat": "movies.dat", "u.data": "u.item"} | {
    f"interactions.{suffix}": f"items.{suffix}" for suffix in ("parquet", "csv", "tsv", "jsonl")
}


def locate(log: Path, items: Path | None) -> tuple[Path, Path | None]:
    """Find a log and its item table.

    Args:
        log: the log, or a folder that holds one log or the parts of one.
        items: the item table; if ``None``, a table with the usual name beside the log, if any.

    Raises:
        DataError: A file is missing or empty, or the folder does not hold exactly one log.
    """
    log = _log_inside(log) if log.is_dir() and not parts_of(log) else log
    if items is None:
        beside = log.with_name(_BESIDE.get(log.name, log.name.replace(".inter.", ".item.")))
        beside = log.with_suffix(".item") if log.suffix == ".inter" else beside
        items = beside if beside != log and beside.exists() else None
    for path in filter(None, (log, items)):
        if not path.exists():
            raise DataError(f"{path}: no such file; check the path")
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; download or export it again")
    return log, items


def _log_inside(folder: Path) -> Path:
    logs = [folder / name for name in _BESIDE if (folder / name).exists()]
    logs += sorted([*folder.glob("*.inter"), *folder.glob("*.inter.json")])
    if len(logs) != 1:
        found = ", ".join(path.name for path in logs) or "none"
        known = ", ".join([*_BESIDE, "NAME.inter", "part-*"])
        raise DataError(
            f"{folder}: the folder must hold exactly one log ({known}), found {found}; give the "
            "path of the log file instead"
        )
    return logs[0]
