"""From files of interactions and titles to data sets and splits."""
