"""``python -m genrec``: what launchers of several processes start."""

from __future__ import annotations

from genrec.cli.app import main

main()
