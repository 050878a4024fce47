"""Reports of runs and comparisons, each as one HTML and one Markdown file."""

from __future__ import annotations

from genrec.report.comparison import write_comparison
from genrec.report.run import write_report

__all__ = ["write_comparison", "write_report"]
