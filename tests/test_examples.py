"""The examples run from start to end, on a tiny backbone and little data, without a network."""

from __future__ import annotations

import json
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import genrec
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset

FOLDER = Path(__file__).parents[1] / "examples"
TITLES = [
    *("Toy Story (1995)", "GoldenEye (1995)", "Fargo (1996)", "Titanic (1997)", "Alien (1979)"),
    *("Casino (1995)", "Heat (1995)", "Sabrina (1995)", "Babe (1995)", "Clueless (1995)"),
]
MINUTES = 0.02


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prepared folder that holds the films that the examples speak of."""
    dice = np.random.default_rng(0)
    rows = [dice.permutation(len(TITLES))[:6].tolist() for _ in range(40)]
    metadata = pl.DataFrame({"genres": ["Drama", "Comedy"] * (len(TITLES) // 2)})
    ids = [str(number) for number in range(1, len(TITLES) + 1)]
    catalogue = Catalogue(ids, TITLES, metadata)
    folder = tmp_path_factory.mktemp("examples") / "films"
    Dataset("films", catalogue, genrec.Histories.from_lists(rows)).save(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    command = [name, *arguments, "--minutes", str(MINUTES)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(FOLDER / name), run_name="__main__")


@pytest.mark.parametrize("name", ["quick_start.py", "compare.py", "add_items_and_filters.py"])
def test_an_example_on_films_runs(
    name: str,
    data: str,
    tiny_backbone: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, name, "--data", data, "--backbone", tiny_backbone)
    printed = capsys.readouterr().out
    assert any(title in printed for title in TITLES)


def test_an_example_on_data_frames_runs(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "your_dataframe.py", "--backbone", tiny_backbone)
    assert "['sku-5', 'sku-7'] ->" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_of_the_service_runs(
    data: str,
    tiny_backbone: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = ["--data", data, "--backbone", tiny_backbone, "--port", port]
    run(monkeypatch, "serve_and_call.py", *where)
    answers = capsys.readouterr().out
    assert answers.count("'items':") == 2
    assert "Fargo (1996)" in answers.splitlines()[-1]  # the stored event is the history


def test_the_notebook_runs_cell_by_cell(
    data: str, tiny_backbone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((FOLDER / "quick_start.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []  # outputs do not belong into the repository
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= {"DATA": data, "BACKBONE": tiny_backbone, "MINUTES": MINUTES}
    assert Path("runs", "quick-start", "genrec.json").is_file()
    assert "1. " in capsys.readouterr().out


def test_examples_are_short_and_listed() -> None:
    files = sorted(path.name for path in FOLDER.iterdir() if path.is_file())
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(name in listed for name in files if name != "README.md")
    for file in FOLDER.glob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 60
