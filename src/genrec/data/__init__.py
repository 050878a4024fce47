"""Reading interaction logs and item tables, and preparing data sets and splits."""
