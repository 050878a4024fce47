"""The check of sizes finds what is too large, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).parents[1] / "scripts" / "checks" / "house.py"


def function(name: str, lines: int) -> str:
    """Source of a function of this many lines."""
    return "\n".join([f"def {name}():", *("    pass" for _ in range(lines - 1))]) + "\n"


def check(package: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECK), str(package)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_functions_above_50_lines_fail_and_above_35_are_reported(tmp_path: Path) -> None:
    sizes = {"rule": 35, "longer": 36, "most": 50, "too_long": 51}
    (tmp_path / "made_up.py").write_text("\n".join(function(*each) for each in sizes.items()))
    done = check(tmp_path)
    assert done.returncode == 1
    assert "3 of 4 functions (75.0%) have more than 35 lines" in done.stdout
    assert "too_long has 51 lines" in done.stderr
    assert not any(f"{name} has" in done.stderr for name in ("rule", "longer", "most"))


def test_methods_and_functions_inside_of_functions_count(tmp_path: Path) -> None:
    inner = function("inner", 51).replace("\n", "\n    ")
    (tmp_path / "made_up.py").write_text(f"class Large:\n    async {inner}\n")
    assert "inner has 51 lines" in check(tmp_path).stderr


def test_long_files_and_a_crowded_root_fail(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "long.py").write_text("pass\n" * 401)
    assert "long.py: has 401 lines (at most 400)" in check(tmp_path).stderr
    for number in range(13):
        (tmp_path / f"file_{number}.py").write_text("")
    assert "holds 13 files beside packages (at most 12)" in check(tmp_path).stderr


def test_a_tidy_package_passes(tmp_path: Path) -> None:
    (tmp_path / "tidy.py").write_text(function("small", 8))
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 of 1 functions (0.0%)")
