"""Functions that print the results of commands: tables, JSON and progress bars."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrec.errors import DataError

if TYPE_CHECKING:
    from genrec.evaluation.evaluate import Progress
    from genrec.evaluation.results import Evaluation
    from genrec.recommender import Influence, Recommendation


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_progress(line: str) -> None:
    """Print a line about the progress to standard error, which keeps standard output for JSON."""
    print(line, file=sys.stderr, flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # titles may contain Rich markup characters
    Console().print(table)


def print_comparison(evaluations: Sequence[Evaluation]) -> None:
    from rich.console import Console

    from genrec.evaluation.results import comparison_table

    Console().print(comparison_table(evaluations))


def print_paired(evaluations: Sequence[Evaluation]) -> None:
    """Print the paired difference between the last evaluation and each of the others."""
    from genrec.evaluation.results import compare_paired, compare_paired_nll

    subject = evaluations[-1]
    metric = f"NDCG@{max(subject.k)}"
    for other in evaluations[:-1]:
        mean, low, high = compare_paired(subject, other, metric)
        line = f"{metric} over {other.name}: {mean:+.4f} [{low:+.4f}, {high:+.4f}]"
        if (lower := compare_paired_nll(subject, other)) is not None:
            less, low, high = lower
            line += f"; NLL lower by {less:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(line)


def print_likelihood(info: Mapping[str, Any]) -> None:
    before, after = info["valid_log_likelihood"]
    if before is not None:
        print(f"validation log-likelihood per item: {before:.3f} untrained, {after:.3f} trained")


def print_recommendations(
    found: Sequence[Recommendation], reasons: Sequence[Sequence[Influence]] | None = None
) -> None:
    rows: list[tuple[str, ...]] = [
        (str(each.rank), _probability(each), each.title, each.item_id) for each in found
    ]
    columns: tuple[str, ...] = ("rank", "probability", "title", "item id")
    if reasons is not None:
        shown = [", ".join(f"{i.title} {i.effect:+.2f}" for i in each[:3]) for each in reasons]
        rows = [(*row, why) for row, why in zip(rows, shown, strict=True)]
        columns += ("strongest effects (nats)",)
    print_table(columns, rows)


def _probability(item: Recommendation) -> str:
    return "" if item.probability is None else f"{item.probability:.4f}"


class StandardError(logging.Handler):
    """Prints what GenRec announces; a terminal shows progress bars instead of progress lines."""

    def emit(self, record: logging.LogRecord) -> None:
        if not (record.name == "genrec.progress" and sys.stderr.isatty()):
            print_progress(self.format(record))


def announce() -> None:
    """Print the announced stages of long work to standard error."""
    log = logging.getLogger("genrec")
    log.handlers = [each for each in log.handlers if not isinstance(each, StandardError)]
    log.addHandler(StandardError())
    log.setLevel(logging.INFO)


def progress_bar(what: str) -> Progress:
    """Return a callback that shows progress on standard error.

    On a terminal it draws a bar and removes it when done; otherwise it prints lines.
    """
    if not sys.stderr.isatty():
        from genrec.processes import ProgressLines

        return ProgressLines(what)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what)

    def advance(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    return advance


def megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"


def mapping(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DataError(
            f"{option} takes whole numbers separated by commas, such as 5,10; got {text!r}."
        ) from None
