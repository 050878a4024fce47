"""A run on one page: report.html for people, report.md for repositories and terminals.

The HTML carries its style and plots inline and forbids the browser every outside request. Titles
come from other people's data, so both templates escape every value they print by default.
"""

from __future__ import annotations

import html
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.errors import DataError
from genrec.evaluation import (
    LEVEL,
    Evaluation,
    cell,
    compare_paired,
    decimals,
    default_columns,
    short,
)

if TYPE_CHECKING:
    from jinja2 import Environment

Point = tuple[float, float]

_HISTORY_SHOWN = 12  # a phone screen of titles; the count of older ones is printed
_POINTS_DRAWN = 80  # more than a phone can show; their means also lift the trend out of the noise


def write_report(
    folder: str | Path,
    *,
    title: str,
    dataset_info: Mapping[str, Any],
    evaluations: Sequence[Evaluation],
    config: Mapping[str, Any],
    training_log: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> Path:
    """Write report.html and report.md into `folder` (made if missing) and return the former.

    evaluations: in table order; the last is the model the report is about. training_log: the
    Trainer's `log_history`; "loss" and "eval_loss" are drawn over "step". samples:
    {"history": [title, oldest first], "recommendations": [{"title", "probability"}, best first]},
    optionally with "user" and "target" (the title chosen next). Mappings may be nested. Raises
    DataError for a sample without these keys or a folder that is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"The report needs a folder, but {folder} is a file; name another one.")
    page = {
        "title": title,
        "training": _curves(training_log),
        "samples": [_sample(each, number) for number, each in enumerate(samples, start=1)],
        "facts": [
            ("Data", _flat(dataset_info)),
            ("Configuration", _flat(config)),
            ("Environment", _flat(environment)),
        ],
        **_results(evaluations),
    }
    texts = {
        "report.md": _render(_MARKDOWN, page),
        "report.html": _render(_HTML, page, markup=True),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        _write(folder / name, text)
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would keep a web server from reading it
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _render(template: str, page: Mapping[str, Any], *, markup: bool = False) -> str:
    return _environment(markup).from_string(template).render(page, css=_CSS)


def _environment(markup: bool) -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(
        autoescape=markup,
        finalize=None if markup else _markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _markdown(value: object) -> str:
    """Escape a value so that Markdown shows it as text, also inside a table cell."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)


def _results(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    columns = default_columns(evaluations)
    places = decimals(evaluations, columns)
    subject = evaluations[-1]
    charted = [name for name in columns if name.endswith(f"@{max(subject.k)}")] or columns
    main = charted[-1]  # NDCG at the largest k: it rewards a hit by its place
    return {
        "subject": subject.name,
        "subtitle": f"{subject.name} · {subject.split} split · {subject.users:,} users",
        "level": f"{LEVEL:.0%}",
        "cards": _cards(subject, charted, places),
        "columns": columns,
        "rows": [_row(each, evaluations, columns, places) for each in evaluations],
        "charts": [(name, _bars(evaluations, name, places)) for name in charted],
        "metric": main,
        "paired": [_paired(subject, each, main) for each in evaluations[:-1]],
        "definition": subject.definition,
    }


def _cards(subject: Evaluation, names: Sequence[str], places: int) -> list[tuple[str, str, str]]:
    cut = max(subject.k)
    covered = subject.coverage[f"coverage@{cut}"]
    return [
        *((name, *cell(subject, name, places)) for name in names),
        (f"Coverage@{cut}", f"{covered:.1%}", "of the catalogue"),
        ("Time", f"{_milliseconds(subject):.3g} ms", "per user"),
    ]


def _row(
    each: Evaluation, evaluations: Sequence[Evaluation], columns: Sequence[str], places: int
) -> dict[str, Any]:
    best = {name: max(other.metrics[name] for other in evaluations) for name in columns}
    cut = max(each.k)
    return {
        "name": each.name,
        "cells": [
            (*cell(each, name, places), each.metrics[name] == best[name]) for name in columns
        ],
        "users": f"{each.users:,}",
        "coverage": f"{each.coverage[f'coverage@{cut}']:.1%}",
        "milliseconds": f"{_milliseconds(each):.3g}",
        "counts": [each.counts[name] for name in ("invalid", "duplicates", "seen", "unfilled")],
    }


def _milliseconds(evaluation: Evaluation) -> float:
    return 1000.0 * evaluation.seconds / evaluation.users


def _bars(evaluations: Sequence[Evaluation], metric: str, places: int) -> list[dict[str, Any]]:
    """Bars from zero with interval whiskers; x positions in percent of the plot's width."""
    ends = [each.intervals.get(metric, (each.metrics[metric],) * 2) for each in evaluations]
    full = 1.02 * max(max(high for _, high in ends), 1e-9)
    return [
        {
            "name": each.name,
            "text": " ".join(cell(each, metric, places)).strip(),
            "value": short(each.metrics[metric], places),
            "width": _percent(each.metrics[metric] / full),
            "low": _percent(low / full),
            "high": _percent(high / full),
            "subject": each is evaluations[-1],
        }
        for each, (low, high) in zip(evaluations, ends, strict=True)
    ]


def _percent(share: float) -> str:
    return f"{100.0 * share:.2f}%"


def _paired(subject: Evaluation, other: Evaluation, metric: str) -> dict[str, str]:
    if subject.fingerprint != other.fingerprint:
        return {
            "name": other.name,
            "difference": "–",
            "interval": "other users or another protocol",
            "verdict": "not comparable",
        }
    mean, low, high = compare_paired(subject, other, metric)
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return {
        "name": other.name,
        "difference": f"{'+' if mean > 0 else ''}{short(mean, 4)}",
        "interval": f"[{short(low, 4)}, {short(high, 4)}]",
        "verdict": verdict,
    }


def _curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Training and validation loss as SVG paths in a 100 × 100 box, with the axes' labels."""
    series = {
        name: points
        for name, key in (("training loss", "loss"), ("validation loss", "eval_loss"))
        if (points := _points(log, key))
    }
    if not series:
        return None
    steps = [step for points in series.values() for step, _ in points]
    drawn = {name: _thinned(points) for name, points in series.items()}
    losses = [loss for points in drawn.values() for _, loss in points]
    left, right, bottom, top = min(steps), max(steps), min(losses), max(losses)
    box = (left, bottom, right - left or 1.0, top - bottom or 1.0)
    return {
        "series": [
            {"name": name, "path": _path(drawn[name], box), "last": f"{points[-1][1]:.4g}"}
            for name, points in series.items()
        ],
        "heights": [(100 - 25 * n, f"{bottom + box[3] * n / 4:.3g}") for n in range(5)],
        "steps": [f"{left:,.0f}", f"{left + box[2] / 2:,.0f}", f"{right:,.0f}"],
    }


def _points(log: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """(step, value) of the finite values under `key`."""
    return [
        (float(entry.get("step", number)), float(entry[key]))
        for number, entry in enumerate(log)
        if isinstance(entry.get(key), int | float) and math.isfinite(entry[key])
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = math.ceil(len(points) / _POINTS_DRAWN)
    parts = (np.array(points[start : start + size]) for start in range(0, len(points), size))
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]


def _path(points: Sequence[Point], box: tuple[float, float, float, float]) -> str:
    left, bottom, width, height = box
    places = [
        f"{100 * (x - left) / width:.2f} {100 - 100 * (y - bottom) / height:.2f}" for x, y in points
    ]
    # A lone point needs a stroke of no length, which round line caps draw as a dot.
    return f"M{places[0]}h0" if len(places) == 1 else "M" + "L".join(places)


def _sample(sample: Mapping[str, Any], number: int) -> dict[str, Any]:
    try:
        history = [str(title) for title in sample["history"]]
        recommended = [
            (str(each["title"]), each.get("probability")) for each in sample["recommendations"]
        ]
    except KeyError as error:
        raise DataError(f"Sample {number} of the report lacks {error}; see write_report.") from None
    top = max((p for _, p in recommended if p is not None), default=0.0) or 1.0
    user, target = sample.get("user"), sample.get("target")
    return {
        "heading": f"User {user}" if user is not None else f"Sample {number}",
        "history": history[-_HISTORY_SHOWN:],
        "older": max(0, len(history) - _HISTORY_SHOWN),
        "target": target,
        "missed": target is not None and target not in {title for title, _ in recommended},
        "recommended": [
            {
                "title": title,
                "hit": title == target,
                "probability": None if p is None else _chance(p),
                "width": None if p is None else _percent(p / top),
            }
            for title, p in recommended
        ],
    }


def _chance(probability: float) -> str:
    percent = 100 * probability
    return f"{percent:.2f}\u202f%" if percent >= 0.1 else f"{percent:.2g}\u202f%"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as ("outer.inner", text) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _fact(value)))
    return rows


def _fact(value: object) -> str:
    if isinstance(value, list | tuple | set):
        value = ", ".join(str(each) for each in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # no separators: seeds and years are numbers too
    text = "–" if value is None or value in ("", {}) else str(value)
    return text if len(text) <= 400 else f"{text[:400]}…"


_CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#14171f;--soft:#5b6372;
--line:#e3e6ec;--track:#eef0f4;--bar:#a9b2c3;--main:#0f766e;--main-bar:#14857c;--main-soft:#d5f0ec;--bad:#b91c1c;--bad-soft:#fde4e4;--second:#b45309;--whisker:#2a303c}
@media (prefers-color-scheme:dark){:root{--page:#0f1217;--card:#171b22;--ink:#e8eaef;--soft:#9aa3b2;
--line:#2a303b;--track:#222832;--bar:#566175;--main:#2dd4bf;--main-bar:#0d9488;--main-soft:#12383a;--bad:#fca5a5;--bad-soft:#451d22;--second:#fbbf24;
--whisker:#f1f3f7}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1040px;margin:0 auto;padding:40px 24px 64px}
header{margin-bottom:28px}
.eyebrow{margin:0;color:var(--main);font-weight:650;font-size:.8rem;letter-spacing:.08em;
text-transform:uppercase}
h1{margin:4px 0 6px;font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;letter-spacing:-.02em;
overflow-wrap:anywhere;text-wrap:balance}
h2{margin:0 0 4px;font-size:1.15rem;letter-spacing:-.01em}
h3{margin:0 0 10px;font-size:.95rem}
p{margin:0 0 12px}
.soft{color:var(--soft)}
small{font-size:.82rem}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;
margin-top:18px}
.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:14px}
.cards div{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:16px 18px;
min-width:0}
.cards b{display:block;font-size:1.75rem;line-height:1.25;font-weight:650;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.cards span{color:var(--soft);font-size:.82rem}
.scroll{overflow-x:auto;margin:0 -24px;padding:0 24px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:9px 0 9px 18px;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--soft);font-weight:550;font-size:.82rem;white-space:nowrap}
tr:last-child>*{border-bottom:0}
th:first-child,td:first-child{text-align:left;padding-left:0}
td small{display:block;color:var(--soft);font-weight:400;white-space:nowrap}
td:first-child{font-weight:550;overflow-wrap:anywhere;min-width:7.5rem}
tr.main td:first-child{color:var(--main)}
.best{font-weight:700}
.charts{display:grid;grid-template-columns:1fr 1fr;gap:30px;margin-top:16px}
.bar{display:grid;grid-template-columns:8.5rem 1fr 3.2rem;gap:10px;align-items:center;
margin-top:7px;font-size:.88rem}
.bar>span{overflow-wrap:anywhere;line-height:1.25}
.bar b{text-align:right;font-weight:600;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;overflow:visible}
.track{fill:var(--track)}.fill{fill:var(--bar)}.main .fill{fill:var(--main-bar)}
.whisker{stroke:var(--whisker);stroke-width:1.5}
.plot{display:grid;grid-template-columns:auto 1fr;gap:0 12px;margin-top:18px;font-size:.8rem;
color:var(--soft);font-variant-numeric:tabular-nums}
.plot svg{height:220px}
.heights{position:relative;min-width:2.6rem}
.heights span{position:absolute;right:0;transform:translateY(-50%)}
.steps{grid-column:2;display:flex;justify-content:space-between;padding-top:8px}
.grid{stroke:var(--line)}
.curve{fill:none;stroke:var(--main);stroke-width:2;stroke-linecap:round;stroke-linejoin:round}
.curve1{stroke:var(--second);stroke-width:2.5}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.85rem;margin-top:10px}
.legend i{display:inline-block;width:18px;height:3px;border-radius:2px;margin-right:8px;
vertical-align:middle;background:var(--main)}
.legend .curve1{background:var(--second)}
.sample{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,7fr);gap:32px;padding-top:18px;
margin-top:18px;border-top:1px solid var(--line)}
ol{list-style:none;margin:0;padding:0;font-size:.9rem}
li{padding:4px 0;overflow-wrap:anywhere}
.rank{counter-reset:rank}
.rank li{display:grid;grid-template-columns:1.6rem 1fr auto;gap:0 8px;counter-increment:rank}
.rank li:before{content:counter(rank);color:var(--soft);font-variant-numeric:tabular-nums}
.rank svg{grid-column:2/-1;height:4px;margin-top:3px}
.rank svg .fill{fill:var(--main-bar)}
.badge{background:var(--track);border-radius:99px;padding:1px 9px;
font-size:.75rem;font-weight:600;white-space:nowrap}
.better{background:var(--main-soft);color:var(--main)}.worse{background:var(--bad-soft);color:var(--bad)}
.number{color:var(--soft);font-variant-numeric:tabular-nums;white-space:nowrap}
ul{margin:8px 0 0;padding-left:1.2rem;font-size:.92rem}
ul li{padding:3px 0}
details{border-top:1px solid var(--line);padding:12px 0}
details:last-child{padding-bottom:0}
summary{cursor:pointer;font-weight:600;font-size:.95rem}
dl{display:grid;grid-template-columns:minmax(9rem,auto) 1fr;gap:6px 24px;margin:12px 0 4px;
font-size:.85rem}
dt{color:var(--soft);overflow-wrap:anywhere}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:760px){main{padding:24px 14px 48px}.cards{grid-template-columns:1fr 1fr;gap:10px}
.cards div{padding:12px 14px}.cards b{font-size:1.45rem}section{padding:18px 16px;
border-radius:12px}
.scroll{margin:0 -16px;padding:0 16px}.charts,.sample{grid-template-columns:minmax(0,1fr);gap:22px}
.bar{grid-template-columns:1fr auto;gap:2px 8px}.bar svg{grid-column:1/-1;grid-row:2}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}th,td{padding-left:14px}}
@media print{body{background:#fff}section,.cards div{break-inside:avoid}}
"""

_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>{{ css | safe }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">GenRec report</p>
<h1>{{ title }}</h1>
<p class="soft">{{ subtitle }}</p>
</header>
<div class="cards">
{% for label, value, note in cards %}
<div><span>{{ label }}</span><b>{{ value }}</b><span>{{ note }}</span></div>
{% endfor %}
</div>
<section>
<h2>Results</h2>
<p class="soft"><small>Full ranking over the catalogue. Brackets and whiskers: {{ level }} \
intervals, user bootstrap. Bold: best value of a column.</small></p>
<div class="scroll" tabindex="0" role="region" aria-label="Results table">
<table>
<thead><tr><th scope="col">Model</th>
{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}
<th scope="col">Coverage</th><th scope="col">ms/user</th><th scope="col">Users</th></tr></thead>
<tbody>
{% for row in rows %}
<tr{% if loop.last %} class="main"{% endif %}><td>{{ row.name }}</td>
{% for value, interval, best in row.cells %}
<td{% if best %} class="best"{% endif %}>{{ value }}<small>{{ interval }}</small></td>
{% endfor %}
<td>{{ row.coverage }}</td><td>{{ row.milliseconds }}</td><td>{{ row.users }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<div class="charts">
{% for name, bars in charts %}
<div>
<h3>{{ name }}</h3>
{% for bar in bars %}
<div class="bar{% if bar.subject %} main{% endif %}"><span>{{ bar.name }}</span>
<svg height="20" role="img" aria-label="{{ bar.name }}: {{ name }} {{ bar.text }}">
<rect class="track" width="100%" height="20" rx="4"/>
<rect class="fill" width="{{ bar.width }}" height="20" rx="4"/>
<line class="whisker" x1="{{ bar.low }}" x2="{{ bar.high }}" y1="10" y2="10"/>
<line class="whisker" x1="{{ bar.low }}" x2="{{ bar.low }}" y1="5" y2="15"/>
<line class="whisker" x1="{{ bar.high }}" x2="{{ bar.high }}" y1="5" y2="15"/>
</svg><b>{{ bar.value }}</b></div>
{% endfor %}
</div>
{% endfor %}
</div>
</section>
{% if paired %}
<section>
<h2>User by user</h2>
<p class="soft"><small>{{ metric }} of {{ subject }} minus the other model's, on the same users. \
This interval, not the overlap of the two above, says which is better.</small></p>
<div class="scroll" tabindex="0" role="region" aria-label="Paired differences">
<table>
<thead><tr><th scope="col">{{ subject }} against</th><th scope="col">Difference</th>\
<th scope="col">Verdict</th></tr></thead>
<tbody>
{% for row in paired %}
<tr><td>{{ row.name }}</td><td>{{ row.difference }}<small>{{ row.interval }}</small></td>\
<td><span class="badge {{ row.verdict }}">{{ row.verdict }}</span></td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}
{% if training %}
<section>
<h2>Training</h2>
<div class="legend">
{% for line in training.series %}
<span><i class="curve{{ loop.index0 }}"></i>{{ line.name }}, last {{ line.last }}</span>
{% endfor %}
</div>
<div class="plot">
<div class="heights">
{% for y, label in training.heights %}<span style="top:{{ y }}%">{{ label }}</span>{% endfor %}
</div>
<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Loss over steps">
{% for y, label in training.heights %}
<line class="grid" x1="0" x2="100" y1="{{ y }}" y2="{{ y }}" vector-effect="non-scaling-stroke"/>
{% endfor %}
{% for line in training.series %}
<path class="curve curve{{ loop.index0 }}" d="{{ line.path }}" vector-effect="non-scaling-stroke"/>
{% endfor %}
</svg>
<div class="steps">
{% for step in training.steps %}
<span>{% if loop.first %}step {% endif %}{{ step }}</span>
{% endfor %}
</div>
</div>
</section>
{% endif %}
{% if samples %}
<section>
<h2>What {{ subject }} recommends</h2>
<p class="soft"><small>Bars are relative to the first recommendation of each list.</small></p>
{% for sample in samples %}
<div class="sample">
<div>
<h3>{{ sample.heading }}: history</h3>
{% if sample.older %}
<p class="soft"><small>{{ sample.older }} older, then</small></p>
{% endif %}
<ol>
{% for name in sample.history %}
<li>{{ name }}</li>
{% endfor %}
</ol>
</div>
<div>
<h3>Recommended next</h3>
<ol class="rank">
{% for item in sample.recommended %}
<li><span>{{ item.title }}
{% if item.hit %} <span class="badge better">chosen next</span>{% endif %}</span>
{% if item.probability %}
<span class="number">{{ item.probability }}</span>
<svg aria-hidden="true"><rect class="track" width="100%" height="4" rx="2"/>\
<rect class="fill" width="{{ item.width }}" height="4" rx="2"/></svg>
{% endif %}
</li>
{% endfor %}
</ol>
{% if sample.missed %}
<p class="soft"><small>Chosen next, not in this list: {{ sample.target }}</small></p>
{% endif %}
</div>
</div>
{% endfor %}
</section>
{% endif %}
<section>
<h2>How this was measured</h2>
<ul>
{% for line in definition %}
<li>{{ line }}</li>
{% endfor %}
</ul>
</section>
<section>
<h2>Details</h2>
<details>
<summary>List checks</summary>
<div class="scroll" tabindex="0" role="region" aria-label="List checks">
<table>
<thead><tr><th scope="col">Places in all lists</th><th scope="col">No such item</th>\
<th scope="col">Duplicates</th><th scope="col">Already seen</th><th scope="col">Unfilled</th></tr>
</thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.name }}</td>{% for count in row.counts %}<td>{{ count }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% for heading, rows in facts if rows %}
<details>
<summary>{{ heading }}</summary>
<dl>
{% for key, value in rows %}
<dt>{{ key }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
</details>
{% endfor %}
</section>
</main>
</body>
</html>
"""

_MARKDOWN = """# {{ title }}

{{ subtitle }}

## Results

| Model |{% for name in columns %} {{ name }} |{% endfor %} Coverage | ms/user | Users |
|:--|{% for name in columns %}--:|{% endfor %}--:|--:|--:|
{% for row in rows %}
| {{ row.name }} |\
{% for value, interval, best in row.cells %}\
{% if best %} **{{ value }}**{% else %} {{ value }}{% endif %} {{ interval }} |\
{% endfor %} {{ row.coverage }} | {{ row.milliseconds }} | {{ row.users }} |
{% endfor %}

Brackets: {{ level }} intervals, user bootstrap. Bold: best value of a column.
{% if paired %}

## User by user

{{ metric }} of {{ subject }} minus the other model's, on the same users.

| Against | Difference | Verdict |
|:--|--:|:--|
{% for row in paired %}
| {{ row.name }} | {{ row.difference }} {{ row.interval }} | {{ row.verdict }} |
{% endfor %}
{% endif %}
{% if training %}

## Training

{% for line in training.series %}
- Last {{ line.name }}: {{ line.last }}
{% endfor %}
- Steps: {{ training.steps[-1] }}
{% endif %}
{% if samples %}

## What {{ subject }} recommends
{% for sample in samples %}

### {{ sample.heading }}

History, oldest first{% if sample.older %}, after {{ sample.older }} older{% endif %}:

{% for name in sample.history %}
- {{ name }}
{% endfor %}

Recommended next:

{% for item in sample.recommended %}
1. {{ item.title }}{% if item.probability %}, {{ item.probability }}{% endif %}\
{% if item.hit %} (**chosen next**){% endif %}

{% endfor %}
{% if sample.missed %}

Chosen next, not in this list: {{ sample.target }}
{% endif %}
{% endfor %}
{% endif %}

## How this was measured

{% for line in definition %}
- {{ line }}
{% endfor %}
{% for heading, rows in facts if rows %}

## {{ heading }}

| | |
|:--|:--|
{% for key, value in rows %}
| {{ key }} | {{ value }} |
{% endfor %}
{% endfor %}
"""
