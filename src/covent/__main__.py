"""The command `covent`, and `python -m covent`: what must be heard while its libraries are loaded."""

from covent.stopping import end_with_parent, leave_on_interrupt


def main() -> int:
    """Run one command with the words of the process, and return its exit code."""
    leave_on_interrupt()
    end_with_parent()
    from covent.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
