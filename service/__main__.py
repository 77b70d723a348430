"""``python -m service`` is ``tailrace``."""

from service.cli import main

main()
