"""What a config of verl, SkyRL or TRL will in fact do to entropy, before it runs."""

from covent.lint.check import ENGINES, EngineName, Report, lint
from covent.lint.findings import Finding, Level, exit_code

__all__ = ["ENGINES", "EngineName", "Finding", "Level", "Report", "exit_code", "lint"]
