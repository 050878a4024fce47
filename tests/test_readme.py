"""The README's Python runs as it stands, but on a tiny backbone and with little training."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_examples_run(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    example = "\n".join(blocks)
    for said, tried in (("minutes=1", "minutes=0.02"), ("smollm2-135m", tiny_backbone)):
        assert said in example
        example = example.replace(said, tried)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "films" / "genrec.json").is_file()


def test_it_is_short() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
