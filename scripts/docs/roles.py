"""Shows Sphinx roles of docstrings (:class:`X`, :meth:`Y`) as plain code on the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc|obj):`[~.]*([^`]+)`")


class PlainRoles(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(_shown, obj.docstring.value).replace("``", "`")


def _shown(role: re.Match[str]) -> str:
    name = role[1].removeprefix("genrec.")
    return f"`{name.rpartition('.')[2] if name.count('.') > 1 else name}`"
