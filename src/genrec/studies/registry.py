"""The studies by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from genrec.errors import ConfigError
from genrec.studies.questions import (
    backbones,
    lora,
    prompts,
    resources,
    signals,
    size,
    titles,
    words,
)
from genrec.studies.study import Study

_QUESTIONS = (prompts, titles, lora, backbones, signals, size, resources, words)
STUDIES: Mapping[str, Study] = {each.STUDY.name: each.STUDY for each in _QUESTIONS}
"""All studies, in the order of the documentation."""


def study_named(name: str) -> Study:
    """Return a study.

    Raises:
        ConfigError: There is no study of that name; the message suggests a close one.
    """
    if name in STUDIES:
        return STUDIES[name]
    close = difflib.get_close_matches(name, STUDIES, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"There is no study {name!r}.{meant} Use one of {', '.join(STUDIES)}.")
