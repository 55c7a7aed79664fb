"""What the benchmarks of covent inside an engine share: the clock of covent's own methods, the record, the tables.

The difference of two runs of an engine is as uncertain as either run, some percent on a machine with other work, and
covent's cost is of that size. So the time inside covent's own methods is kept too: it is a small number measured by
itself. It holds choosing and planning, with the extra forward pass where there is one, covent's terms of the loss and
the readings; what it leaves out is the backward pass through terms of covent's own.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.law_tables import write_table
from covent.provenance import commit

BATCH, LENGTH, HIDDEN, LAYERS = 128, 32, 256, 2
"""Responses of an optimizer step, their tokens, and the size of the model."""
UPDATES = 4
"""Optimizer steps on each rollout: the first is on-policy, the others are not."""
MICRO_BATCHES = (1, 4)
"""Of an optimizer step."""
PHASES = ("scoring", "first update", "later update")
INSIDE = {"first update": "inside covent, first", "later update": "inside covent, later"}
COLUMNS = (*PHASES, *INSIDE.values())

Seconds = dict[str, float]
"""CPU seconds by phase."""
Table = dict[str, dict[str, list[float]]]
"""By variant and phase, those of each round."""


class Inside:
    """CPU seconds inside some methods; one that another calls counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def watch(self, owner: Any, *names: str) -> None:
        """Time these methods of a class from now on."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self._depth += 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.process_time() - start

        return timed


def record(
    path: Path,
    settings: dict[str, int],
    libraries: Sequence[str],
    variants: Sequence[str],
    splits: Sequence[int],
    seconds_of: Callable[[int, str, int], Seconds],
    rounds: int,
) -> None:
    """All rounds, each with every variant on the same responses in another order; written down after each round.

    Args:
      path: of the result.
      settings: of the model and the batch.
      libraries: whose versions are kept.
      variants: by name, the bare engine first.
      splits: micro-batches of an optimizer step.
      seconds_of: runs one variant: split, name and round.
      rounds: how many.
    """
    import torch

    found: dict[str, Table] = {str(split): {name: defaultdict(list) for name in variants} for split in splits}
    for number in range(rounds):
        for split in splits:
            for place in range(len(variants)):
                name = variants[(place + number) % len(variants)]
                for phase, value in seconds_of(split, name, number).items():
                    found[str(split)][name][phase].append(value)
        result = {
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
            "versions": {name: version(name) for name in (*libraries, "torch")},
            "commit": commit(),
            "settings": {**settings, "rounds": number + 1},
            "cpu_seconds": found,
        }
        path.write_text(json.dumps(result, indent=1) + "\n")


def tables(result: dict[str, Any]) -> str:
    """The bare engine's CPU seconds, and what the others add: by the least of the rounds, and by the median share."""
    settings = result["settings"]
    lines = []
    for split, table in result["cpu_seconds"].items():
        bare = next(iter(table.values()))
        lines += [
            "",
            f"Micro-batches in an optimizer step: {split}. Least of {settings['rounds']} rounds (median of the shares)",
            "",
            f"| variant | {' | '.join(COLUMNS)} |",
            "|" + "---|" * (len(COLUMNS) + 1),
        ]
        for name, phases in table.items():
            cells = [_difference(phases[phase], bare[phase], phases is bare) for phase in PHASES]
            cells += [_inside(phases.get(inside, []), bare[phase]) for phase, inside in INSIDE.items()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def _difference(values: list[float], bare: list[float], is_bare: bool) -> str:
    if is_bare:
        return f"{min(values):.3f} s"
    shares = [100 * (ours / theirs - 1) for ours, theirs in zip(values, bare, strict=True)]
    return f"{100 * (min(values) / min(bare) - 1):+.1f} % ({median(shares):+.1f} %)"


def _inside(values: list[float], bare: list[float]) -> str:
    """Least over least; nothing for an engine without covent."""
    return f"{100 * min(values) / min(bare):.1f} %" if any(values) else "–"


def command(description: str, run: Callable[[int, Path], None], result: Path, page: Path) -> None:
    """The benchmark's command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=result)
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the tables of a result and run nothing")
    parser.add_argument("--page", action="store_true", help=f"write them into {page.name} too")
    arguments = parser.parse_args()
    if arguments.table is None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        run(arguments.rounds, arguments.json)
    found = tables(json.loads((arguments.table or arguments.json).read_text()))
    print(found)
    if arguments.page:
        write_table(page, "cost", found)
