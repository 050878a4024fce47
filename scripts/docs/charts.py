"""Draw the bar charts of the results pages from their own tables: docs/assets/charts/*.svg.

    python scripts/docs/charts.py

Run it after a table has changed and commit the files. Needs the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = r"[+−-]?\d*\.?\d+"
WIDTH, LABEL, VALUE, ROW = 480, 200, 60, 24
TEXT, BAR, BEST, LEAK, WHISKER = "#78818d", "#8fa3b8", "#14857b", "#c2410c", "#4b535e"


@dataclass(frozen=True)
class Chart:
    """A column of a table as bars.

    table: the number of the table on its page, from 0. part: which number of a cell such as
    ".0859 / .0449". least: whether small values are good.
    """

    name: str
    page: str
    table: int
    column: int
    title: str
    part: int = 0
    least: bool = False


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None


CHARTS = (
    Chart("overview-ml-100k", "index", 0, 1, "ML-100K, NDCG@10", part=1),
    Chart("overview-toys", "index", 0, 3, "Amazon Toys, NDCG@10", part=1),
    Chart("time-ml-1m", "index", 2, 2, "ML-1M by global time, NDCG@10", part=1),
    Chart("time-beauty", "index", 2, 3, "Amazon Beauty by global time, NDCG@10", part=1),
    *(
        Chart(f"{name}-{short}", page, 0, column, title)
        for name, page in (
            ("ml-100k", "ml-100k"),
            ("ml-1m", "ml-1m"),
            ("toys", "amazon-toys"),
            ("beauty", "amazon-beauty"),
        )
        for short, column, title in (("hr", 1, "HR@10"), ("ndcg", 2, "NDCG@10"))
    ),
    Chart("ml-100k-genrec", "ml-100k", 1, 2, "NDCG@10"),
    Chart("ml-1m-genrec", "ml-1m", 1, 2, "NDCG@10"),
    Chart("toys-genrec", "amazon-toys", 2, 2, "NDCG@10"),
    Chart("beauty-genrec", "amazon-beauty", 2, 2, "NDCG@10"),
    Chart("speed-search", "speed", 0, 1, "seconds, less is better", least=True),
    Chart("speed-training", "speed", 1, 1, "training targets per second"),
)


def main() -> None:
    folder = DOCS / "assets" / "charts"
    folder.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        rows = tables(DOCS / "results" / f"{chart.page}.md")[chart.table]
        (folder / f"{chart.name}.svg").write_text(draw(chart, list(bars(chart, rows))))


def tables(page: Path) -> list[list[list[str]]]:
    """The body rows of each table of a page."""
    found: list[list[list[str]]] = []
    before = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return [table[2:] for table in found]


def bars(chart: Chart, rows: list[list[str]]) -> Iterator[Bar]:
    for row in rows:
        cell = row[chart.column].replace("*", "")
        values = re.findall(NUMBER, re.sub(r"\[.*?\]", "", cell))
        if len(values) <= chart.part:
            continue
        ends = re.search(rf"\[({NUMBER}), ({NUMBER})\]", cell)
        low, high = (float(end) for end in ends.groups()) if ends else (None, None)
        label = re.sub(r"\*\*|`|\(\d.*?\)", "", row[0]).strip()
        text = values[chart.part]
        yield Bar(label, float(text), text, low, high)


def draw(chart: Chart, rows: list[Bar]) -> str:
    top = max(row.high or row.value for row in rows)
    fair = [row.value for row in rows if "leak" not in row.label]
    best = min(fair) if chart.least else max(fair)
    height = 34 + ROW * len(rows)
    parts = [text(0, 16, chart.title, "start", bold=True)]
    for place, row in enumerate(rows):
        y = 32 + ROW * place
        colour = LEAK if "leak" in row.label else BEST if row.value == best else BAR
        parts.append(text(LABEL - 10, y + 12, row.label, "end"))
        parts.append(
            f'<rect x="{LABEL}" y="{y}" width="{length(row.value, top):.1f}" height="16" rx="2" '
            f'fill="{colour}"/>'
        )
        if row.low is not None and row.high is not None:
            parts.append(whisker(y + 8, length(row.low, top), length(row.high, top)))
        end = LABEL + length(row.high or row.value, top) + 8
        parts.append(text(end, y + 12, row.text, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img">'
        f"<title>{escape(chart.title)}</title>{''.join(parts)}</svg>\n"
    )


def length(value: float, top: float) -> float:
    return (WIDTH - LABEL - VALUE) * max(value, 0.0) / top


def whisker(y: float, low: float, high: float) -> str:
    left, right = LABEL + low, LABEL + high
    path = f"M{left:.1f} {y}H{right:.1f}M{left:.1f} {y - 4}v8M{right:.1f} {y - 4}v8"
    return f'<path d="{path}" stroke="{WHISKER}" stroke-width="1.5" fill="none"/>'


def text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{TEXT}"{weight}>'
        f"{escape(words)}</text>"
    )


if __name__ == "__main__":
    main()
