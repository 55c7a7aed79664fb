"""`python -m covent` is `covent`."""

from covent.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
