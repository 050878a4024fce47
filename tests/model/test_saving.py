"""Saving a run: killed processes and simultaneous ones lose nothing."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from conftest import make_dataset
from genrec import GenRec, leave_last_out
from genrec.data.splits import Split
from genrec.errors import NotFittedError, RunError
from genrec.model import saving


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(make_dataset(users=20))


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a run; hidden ones are of the program."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


class Killed(BaseException):
    """What no clean-up of the program sees."""


def killed_save(model: GenRec, folder: Path, moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save, and leave the folder as a process does that is killed after some moves of files."""
    move, left = os.replace, iter(range(moves))

    def replace(source: Path, target: Path) -> None:
        if folder in (source.parent, target.parent) and next(left, None) is None:
            raise Killed
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(saving.os, "replace", replace)
        # A killed process cleans nothing up.
        patch.setattr(saving, "_remove", lambda path: None)
        patch.setattr(Path, "unlink", lambda path, **how: None)
        patch.setattr(saving.shutil, "rmtree", lambda path, **how: None)
        with pytest.raises(Killed):
            model.save_pretrained(folder)


@pytest.mark.parametrize("moves", [0, 1, 4, 7, 8, 10, 13])
def test_a_killed_save_can_be_repeated_and_the_older_run_returns(
    tiny_backbone: str,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moves: int,
) -> None:
    model = GenRec(backbone=tiny_backbone, prior="popularity").build(split.train)
    model.save_pretrained(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")  # the newer run has none
    before = files_of(tmp_path)
    newer = GenRec(backbone=tiny_backbone, prior="none").build(split.train)
    killed_save(newer, tmp_path, moves, monkeypatch)
    if not (tmp_path / "genrec.json").exists():
        with pytest.raises(RunError, match="saving a run was interrupted, unless a process"):
            GenRec.from_pretrained(tmp_path)
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    shutil.copytree(tmp_path, copy)
    saving._restore(copy)
    assert files_of(copy) == before
    newer.save_pretrained(tmp_path)
    assert GenRec.from_pretrained(tmp_path).ranker.prior is None
    assert not list(tmp_path.glob(".saving-*"))


def test_a_killed_first_save_can_be_repeated(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    (tmp_path / ".saving-abc" / "new").mkdir(parents=True)
    GenRec(backbone=tiny_backbone, prior="none").build(split.train).save_pretrained(tmp_path)
    GenRec.from_pretrained(tmp_path)


def test_several_processes_may_save_at_once(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    models = [GenRec(backbone=tiny_backbone, prior="none").build(split.train) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda model: model.save_pretrained(tmp_path), models * 3))
    GenRec.from_pretrained(tmp_path)


def test_one_process_trains_in_a_folder(tiny_backbone: str, split: Split, tmp_path: Path) -> None:
    model = GenRec(backbone=tiny_backbone, prior="none", epochs=1)
    with (
        FileLock(tmp_path / saving.TRAINING_LOCK),
        pytest.raises(RunError, match="another process is training a run in this folder"),
    ):
        model.fit(split.train, output=tmp_path, progress=False)
    model.fit(split.train, output=tmp_path, progress=False)


def test_a_loaded_model_chooses_again_what_was_automatic(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    model = GenRec(backbone=tiny_backbone, epochs=1, history_length=8)
    model.fit(split.train, split.valid, progress=False).save_pretrained(tmp_path)
    loaded = GenRec.from_pretrained(tmp_path)
    assert loaded.ranker.config.lm_weight != "auto"
    assert (loaded.config.lm_weight, loaded.config.experts) == ("auto", "auto")
    assert loaded.config.history_length == 8
    fixed = GenRec(backbone=tiny_backbone, epochs=1, lm_weight=0.5)
    fixed.fit(split.train, split.valid, progress=False).save_pretrained(tmp_path)
    assert GenRec.from_pretrained(tmp_path).config.lm_weight == 0.5


def test_a_restore_that_is_killed_loses_nothing(
    tiny_backbone: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GenRec(backbone=tiny_backbone, prior="popularity").build(split.train)
    model.save_pretrained(tmp_path)
    before = files_of(tmp_path)
    newer = GenRec(backbone=tiny_backbone, prior="none").build(split.train)
    killed_save(newer, tmp_path, 10, monkeypatch)
    move, left = os.replace, iter(range(2))

    def killed(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Killed
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(saving.os, "replace", killed)
        with pytest.raises(Killed):
            saving._restore(tmp_path)
    saving._restore(tmp_path)
    assert files_of(tmp_path) == before


def test_a_file_system_without_locks_will_do(
    tiny_backbone: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(lock: FileLock) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(saving.FileLock, "acquire", refused)
    model = GenRec(backbone=tiny_backbone, prior="none", epochs=1)
    model.fit(split.train, output=tmp_path, progress=False).save_pretrained(tmp_path)
    GenRec.from_pretrained(tmp_path)


def test_an_unfitted_model_says_so(split: Split) -> None:
    for ask in (GenRec().fit_words_weight, lambda valid: GenRec().fuse(split.train, valid)):
        with pytest.raises(NotFittedError):
            ask(split.valid)  # type: ignore[operator]
