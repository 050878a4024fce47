"""Metrics with intervals, comparisons, and the search for leaks."""
