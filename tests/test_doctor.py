from __future__ import annotations

import io
import json
import platform
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from rich.console import Console

from genrec import doctor


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def printed(diagnosis: doctor.Diagnosis) -> str:
    console = Console(file=io.StringIO(), width=200)
    doctor.render(diagnosis, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_diagnosis_names_what_matters_and_is_json() -> None:
    diagnosis = doctor.diagnose()
    told = json.loads(json.dumps(diagnosis.to_json()))
    assert told["versions"]["python"] == platform.python_version()
    assert told["versions"]["torch"] == torch.__version__
    assert told["cpu"]["threads"] == torch.get_num_threads()
    assert 0 < told["memory"]["available"] <= told["memory"]["total"]
    assert len(told["devices"]) == torch.cuda.device_count() + torch.backends.mps.is_available()
    assert told["cache"]["assets"] == []


def test_looking_makes_no_folder(cache: Path) -> None:
    assert doctor.diagnose().cache["writable"]
    assert not cache.exists()


def test_the_diagnosis_is_printed(cache: Path) -> None:
    text = printed(doctor.diagnose())
    assert f"torch {torch.__version__}" in text
    assert str(cache) in text
    assert "nothing yet" in text


def test_a_cache_in_the_way_of_a_file_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path / "file"))
    diagnosis = doctor.diagnose()
    assert any("cannot be written. Set GENREC_CACHE" in text for text in diagnosis.warnings)
    assert "NOT writable" in printed(diagnosis)


def test_what_is_short_or_wrong_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 0))
    monkeypatch.setattr(doctor, "_memory", lambda: {"total": 2**30, "available": 2**29})
    monkeypatch.setattr(doctor, "_DISTRIBUTIONS", ["torch", "no-such-package"])
    warnings = "\n".join(doctor.diagnose().warnings)
    assert "torch runs 10000 threads" in warnings
    assert "0.0 GiB are free" in warnings
    assert "0.5 GiB of memory are free" in warnings
    assert "Packages are missing: no-such-package" in warnings


def test_a_missing_extra_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EXTRAS", {"fly": ("no_such_module", "flying"), "x": ("os", "x")})
    diagnosis = doctor.diagnose()
    assert diagnosis.extras == {"fly": "flying"}
    assert "fly: for flying" in printed(diagnosis)
