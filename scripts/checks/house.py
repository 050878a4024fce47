"""Check the size of functions, files and the package's root; CONTRIBUTING.md states the rules.

``python scripts/checks/house.py [PACKAGE]`` lists what is too large, and exits with 1 then.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RULE = 35  # lines of a function; more is reported
MOST = 50  # lines of a function; more fails
MOST_IN_FILE = 400
MOST_BESIDE_PACKAGES = 12


@dataclass(frozen=True, order=True)
class Function:
    """A function or method: its length in lines, from `def` to its end, docstring included."""

    lines: int
    file: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name} has {self.lines} lines"


def functions(file: Path) -> Iterator[Function]:
    """All functions of a file; those inside of others count for both."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None  # always set by ast.parse
            yield Function(node.end_lineno - node.lineno + 1, file, node.lineno, node.name)


def faults(package: Path) -> list[str]:
    """What breaks a rule, one line each."""
    files = sorted(package.rglob("*.py"))
    found = [f"{each} (at most {MOST})" for each in all_functions(package) if each.lines > MOST]
    for file in files:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > MOST_IN_FILE:
            found.append(f"{file}: has {lines} lines (at most {MOST_IN_FILE})")
    beside = [path.name for path in package.iterdir() if path.is_file()]
    if len(beside) > MOST_BESIDE_PACKAGES:
        most = MOST_BESIDE_PACKAGES
        found.append(f"{package}: holds {len(beside)} files beside packages (at most {most})")
    return found


def all_functions(package: Path) -> list[Function]:
    """Every function of a package, the longest first."""
    found = (each for file in package.rglob("*.py") for each in functions(file))
    return sorted(found, reverse=True)


def report(package: Path) -> str:
    """How many functions keep to the rule, and which do not."""
    found = all_functions(package)
    above = [each for each in found if each.lines > RULE]
    share = len(above) / max(len(found), 1)
    head = f"{len(above)} of {len(found)} functions ({share:.1%}) have more than {RULE} lines"
    return "\n".join([head, *(f"  {each}" for each in above)])


def main(arguments: list[str]) -> int:
    package = Path(arguments[0] if arguments else os.path.relpath(ROOT / "src" / "genrec"))
    print(report(package))
    found = faults(package)
    print("\n".join(f"error: {each}" for each in found), file=sys.stderr, end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
