"""Metrics with confidence intervals, comparisons, and leak checks."""
