"""``python -m genrec``: what launchers of several processes start."""

from genrec.cli import main

main()
