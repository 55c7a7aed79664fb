"""The command `covent`, and `python -m covent`. Here, so that Ctrl-C while libraries are loaded prints no traceback."""

from covent.stopping import leave_on_interrupt


def main() -> int:
    """Run one command with the words of the process, and return its exit code."""
    leave_on_interrupt()
    from covent.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
