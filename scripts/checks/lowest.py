"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

What GenRec itself imports is held at its lower bound. Three kinds are not:
tools that only the tests need, and torch, are held at the versions of constraints.txt;
everything that comes in by way of others is left to pip.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = ("serve", "postgres", "tracking", "compare")  # those that the tests can try on a CPU
TOOLS = "test"
# Older builds of torch come with several GB of CUDA packages, so only this version was tried.
AS_IN_USE = frozenset({"torch"})
REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?>=(?P<lower>[^,;\s]+)")


def lower_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """Name → lowest version; raises ValueError for a requirement that states none."""
    found = {}
    for requirement in requirements:
        if requirement.startswith("genrec["):
            continue  # an extra that is made of others
        match = REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound (name>=version)")
        found[normal(match["name"])] = match["lower"]
    return found


def exact_versions(constraints: str) -> dict[str, str]:
    """Name → version in use, from the lines of constraints.txt."""
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {normal(name): version for name, version in pairs}


def normal(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lowest(root: Path = ROOT) -> Iterator[str]:
    """Lines ``name==version``, sorted."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    in_use = exact_versions((root / "constraints.txt").read_text(encoding="utf-8"))
    ours = lower_bounds([*project["dependencies"], *(r for name in EXTRAS for r in extras[name])])
    held = {name: in_use[name] for name in {*lower_bounds(extras[TOOLS]), *AS_IN_USE}}
    return (f"{name}=={version}" for name, version in sorted({**ours, **held}.items()))


if __name__ == "__main__":
    print("\n".join(lowest()))
