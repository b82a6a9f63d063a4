"""``python -m infoplace``."""

from infoplace.cli import main

main()
