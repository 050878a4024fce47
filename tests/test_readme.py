"""The README's Python runs as it stands, but on a tiny backbone and little data."""

from __future__ import annotations

from pathlib import Path

import pytest

import genrec
from genrec import Dataset
from genrec.data.catalogue import Catalogue

TITLES = [
    *("Toy Story (1995)", "GoldenEye (1995)", "Fargo (1996)", "Titanic (1997)", "Alien (1979)"),
    *("Casino (1995)", "Heat (1995)", "Sabrina (1995)", "Babe (1995)", "Clueless (1995)"),
]


def small_movielens() -> Dataset:
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    rows = [rng.permutation(len(TITLES))[:6].tolist() for _ in range(40)]
    metadata = pl.DataFrame({"genres": ["Drama"] * len(TITLES), "year": ["1995"] * len(TITLES)})
    ids = [str(number) for number in range(1, len(TITLES) + 1)]
    histories = genrec.Histories.from_lists(rows)
    return Dataset("ml-100k", Catalogue(ids, TITLES, metadata), histories)


def test_the_examples_run(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    example = "\n".join(blocks)
    for said, tried in (("minutes=5", "minutes=0.02"), ("smollm2-135m", tiny_backbone)):
        assert said in example
        example = example.replace(said, tried)
    monkeypatch.setattr("genrec.load_dataset", lambda name: small_movielens(), raising=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "demo" / "genrec.json").is_file()
