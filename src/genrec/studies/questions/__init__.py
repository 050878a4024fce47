"""The questions that the studies answer, one module each."""
