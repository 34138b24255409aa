"""``python -m pacslite`` is ``pacslite``."""

from pacslite.cli.main import main

if __name__ == "__main__":
    main()
