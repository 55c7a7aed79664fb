"""The table of docs/reliability.md: every fault, what must hold, and the figure that its test saw at the full count.

    python -m benchmarks.reliability                   # runs all tests of reliability, short and full; takes hours
    python -m benchmarks.reliability --row 7 --row 8   # runs the tests of some rows and keeps the other rows' figures
    python -m benchmarks.reliability --table           # writes the table again from benchmarks/results/reliability.json

A test reports what it saw with `tests.support.figures.figure(row, text)`. To add a row: name its fault in `FAULTS`, and
call `figure` in its test.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.law_tables import with_table
from covent import __version__
from tests.support.figures import VARIABLE

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "reliability.json"
PEER = ROOT / "benchmarks" / "results" / "trl_faults.json"
"""What `benchmarks.trl_faults` saw."""
PAGE = ROOT / "docs" / "reliability.md"
TESTS = ["tests/reliability", "tests/verifiers", "tests/tasks"]

FAULTS: dict[int, tuple[str, str]] = {
    1: ("SIGKILL at any moment", "resumes without help; no saved step is lost; weights and rows are identical"),
    2: ("a kill at each single write", "the old or the new checkpoint is whole, never neither"),
    4: ("SIGTERM, SIGINT or SIGHUP once", "saved, exit code 143, 130 or 129, identical when resumed"),
    5: ("a second signal", "gone within 2 s; the checkpoint before it is whole"),
    6: ("stopped at every place, in every mode", "weights and rows identical to the run that was never stopped"),
    7: ("a truncated file in the newest checkpoint", "found and named; set aside; the next older one goes on"),
    8: ("a flipped bit", "found before use"),
    9: ("missing, extra, empty, linked, stale", "the right checkpoint, no crash"),
    10: ("all checkpoints bad", "an exit code of its own, advice, never a new start"),
    11: ("a full disk, at each place that writes", "clear stop; what was saved is valid; identical once there is room"),
    12: ("a read-only folder", "a clear error"),
    13: ("a kill inside the deletion of old checkpoints", "one whole checkpoint always, with keep = 1 too"),
    14: ("two runs, one folder; the lock of a killed run", "one proceeds, the other names its process; stale is free"),
    15: (
        "changed settings, data, reward code, weights, tokenizer, hardware, versions",
        "refused with the difference, or allowed and recorded",
    ),
    16: ("resume of a finished run", "nothing is done, the folder is byte-identical"),
    17: ("the same seed twice, and another", "identical, and different"),
    18: ("rows after a resume", "none doubled, missing or torn"),
    19: ("NaN and infinity in reward, advantage, logits, loss, gradient, weight", "never applied; named; three stop"),
    21: ("groups that teach nothing", "counted; no NaN"),
    24: ("hostile mathematical answers", "each ends within its deadline + 0.5 s; the next right answer scores"),
    25: ("memory bombs, crashes and SIGKILL in a verifier's child", "a typed verdict; the trainer's memory stays flat"),
    26: ("hostile programs", "no escape, no false pass, no process left"),
    27: ("injection by an answer or a file", "nothing runs; the code has no call that could"),
    28: ("a reward function misbehaves", "policy applied; the message names function and sample"),
    29: ("a verifier that is wrong", "right answers score, changed ones do not"),
    30: ("malformed data files", "stops before step 1 with file and line; --skip-bad counts and keeps the rejects"),
    31: ("unknown settings and options", "exit code 2, with a suggestion"),
    32: ("malicious checkpoints and model folders", "nothing runs; refused"),
    34: (
        "a tracker without network, with errors, hanging, locked, crashing",
        "the run is the same; all rows come later",
    ),
    35: ("the trainer is killed", "no process of it is left after 2 s"),
}
"""Number, fault, what must hold. The numbers are those of the project's fault list, which has gaps here."""


def main() -> None:
    """Run the tests that are asked for, keep what they saw, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=int, action="append", choices=sorted(FAULTS), help="only the tests of this row")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument(
        "--figures", type=Path, help="take figures from this file, which tests have written, run nothing"
    )
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"rows": {}}
    if not asked.table:
        seen = asked.figures.read_text(encoding="utf-8") if asked.figures else run_tests(tests_of(asked.row, found))
        lines = [json.loads(line) for line in seen.splitlines()]
        for row, figures in aggregated(lines).items():
            commits = sorted({line["commit"] for line in lines if line["row"] == row})
            found["rows"][str(row)] = {"figures": figures, "commits": commits, **circumstances()}
        RESULT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    page = with_table(PAGE.read_text(encoding="utf-8"), "faults", table(found))
    peer = json.loads(PEER.read_text(encoding="utf-8"))
    PAGE.write_text(with_table(page, "trl", peer_table(found, peer)), encoding="utf-8")


def tests_of(rows: list[int] | None, found: dict[str, Any]) -> list[str]:
    """The tests that saw these rows' figures, or all."""
    if not rows:
        return TESTS
    return sorted({figure["test"] for row in rows for figure in found["rows"].get(str(row), {}).get("figures", [])})


def run_tests(tests: list[str]) -> str:
    """What the tests reported, one JSON line each. Ends the program when one of them fails."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.jsonl"
        command = [sys.executable, "-m", "pytest", "-m", "not gpu", "-q", *tests]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {VARIABLE: str(figures)})
        if done.returncode:
            raise SystemExit("A test failed, so there is no table to write.")
        return figures.read_text(encoding="utf-8")


def aggregated(seen: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, str]]]:
    """Figures by row; `{count}` in a figure becomes the number of tests that reported it."""
    counts = Counter((each["row"], each["figure"], re.sub(r"\[.*", "", each["test"])) for each in seen)
    found: dict[int, list[dict[str, str]]] = {}
    for (row, text, test), count in sorted(counts.items()):
        found.setdefault(row, []).append({"figure": text.replace("{count}", str(count)), "test": test})
    return found


def circumstances() -> dict[str, Any]:
    """Where and when the figures were put together."""
    return {
        "covent": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def table(found: dict[str, Any]) -> str:
    """The Markdown table, rows in the order of their numbers."""
    lines = ["| | fault | what must hold | seen | test | commit |", "| --- | --- | --- | --- | --- | --- |"]
    for number, (fault, hold) in sorted(FAULTS.items()):
        row = found["rows"].get(str(number), {})
        figures = row.get("figures", [])
        seen = "<br>".join(each["figure"] for each in figures) or "not run yet"
        tests = "<br>".join(dict.fromkeys(f"`{each['test'].removeprefix('tests/')}`" for each in figures))
        commits = "<br>".join(short_hash(commit) for commit in row.get("commits", []))
        lines.append(f"| {number} | {fault} | {hold} | {seen} | {tests} | {commits} |")
    return "\n".join(lines)


def short_hash(commit: str) -> str:
    """The hash as git shows it, and whether the package differed from it.

    Example:
      >>> short_hash("d92d505cda05d54107a64bd7978d5e555ab59958+dirty")
      'd92d505+dirty'
    """
    found, sign, dirty = commit.partition("+")
    return f"{found[:7]}{sign}{dirty}"


def peer_table(found: dict[str, Any], peer: dict[str, Any]) -> str:
    """The rows that were given to TRL too, side by side."""
    versions = {row["versions"]["trl"] for row in peer.values()}
    lines = [f"| | fault | covent | TRL {', '.join(sorted(versions))} |", "| --- | --- | --- | --- |"]
    for row in sorted(peer, key=int):
        ours = "<br>".join(each["figure"] for each in found["rows"].get(row, {}).get("figures", []))
        lines.append(
            f"| {row} | {FAULTS[int(row)][0]} | {ours or 'not run yet'} | {'<br>'.join(peer[row]['figures'])} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
