"""Rendering of report pages: templates, escaping, and files that are written whole.

The HTML contains its style and plots and forbids the browser all outside requests. Titles come from
other people's data, so all templates escape every printed value by default.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.errors import DataError
from genrec.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment


def write_pages(folder: Path, kind: str, page: Mapping[str, Any]) -> Path:
    """Fill the templates ``kind.html`` and ``kind.md`` and write report.html and report.md.

    Args:
        folder: the folder; created if it is missing.
        kind: name of the templates.
        page: values for the templates.

    Returns:
        The path of report.html.

    Raises:
        DataError: the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"The report needs a folder, but {folder} is a file. Choose another path.")
    texts = {
        f"report.{form}": _environment(markup=form == "html")
        .get_template(f"{kind}.{form}")
        .render(page)
        for form in ("md", "html")
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.html"


def _environment(markup: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("genrec.report"),
        autoescape=markup,
        finalize=None if markup else _markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _markdown(value: object) -> str:
    """Escape a value so that Markdown shows it as text, even inside a table cell."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)


def percent(share: float) -> str:
    """Format a share as an SVG length."""
    return f"{100.0 * share:.2f}%"


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested mappings into ("outer.inner", text) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _fact(value)))
    return rows


def _fact(value: object) -> str:
    if isinstance(value, list | tuple | set):
        value = ", ".join(str(each) for each in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # without thousands separators, because seeds and years are numbers too
    text = "–" if value is None or value in ("", {}) else str(value)
    return text if len(text) <= 400 else f"{text[:400]}…"
