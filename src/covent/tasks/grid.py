"""The grid task: walk from a start to a target on a small grid with walls. Many walks are right; none is *the* answer.

    G 0 1 T 2 2 X 1 1 X 0 3 X 4 4 A   →   E 0 2 S 1 2 S 2 2 stop

The prompt gives the start (row column), the target, and the walls. The response is a list of moves, each a compass
direction and the cell it reaches, then `stop`. It is right when every move is legal, no cell is a wall, and the walk
ends on the target. The corpus' writers walk straight towards the target and often overlook walls, so that its most
common walk is often wrong. Unlike the clock task there is no arithmetic and no single answer: the verifier checks the
whole walk.
"""

from __future__ import annotations

from random import Random
from typing import Literal, Self

from pydantic import Field, model_validator

from covent.tasks.base import GeneratedTask, Problem, TaskSettings
from covent.verifiers.verdict import Verdict

Cell = tuple[int, int]
_MOVES: dict[str, Cell] = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}


class GridSettings(TaskSettings):
    """Settings of the grid task."""

    name: Literal["grid"] = "grid"
    size: int = Field(default=4, ge=3, le=9)
    """Cells on a side."""
    num_walls: int = Field(default=3, ge=0, le=12)
    """Cells that cannot be entered; at most half of the grid."""
    overlook: float = Field(default=0.6, ge=0, le=1)
    """Probability that a writer of the corpus overlooks the walls at a step."""
    corpus_seed: int | None = None
    """Seed of the corpus; None: the seed of the run."""

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.num_walls > self.size**2 // 2:
            raise ValueError(f"num_walls ({self.num_walls}) must leave half of the {self.size**2} cells free")
        return self


class GridTask(GeneratedTask):
    """See the module's docstring."""

    answer_format = "The response is a list of moves 'direction row column' and ends with the word 'stop'."

    def __init__(self, settings: GridSettings, corpus_seed: int) -> None:
        self._settings = settings
        self.vocabulary = (*(str(i) for i in range(settings.size)), *_MOVES, "G", "T", "X", "A", "stop")
        self.max_prompt_words = 7 + 3 * settings.num_walls
        # Across the grid and one detour. Where walls make the shortest walk longer, `draw` draws again.
        self._max_moves = 2 * settings.size + 2
        self.max_response_words = 3 * self._max_moves + 1

    def draw(self, rng: Random) -> Problem:
        cells = [(row, column) for row in range(self._settings.size) for column in range(self._settings.size)]
        while True:
            start, target, *walls = rng.sample(cells, 2 + self._settings.num_walls)
            walk = self._shortest_walk(start, target, set(walls))
            if walk is not None and 2 <= len(walk) <= self._max_moves:
                wall_words = " ".join(f"X {row} {column}" for row, column in sorted(walls))
                prompt = f"G {start[0]} {start[1]} T {target[0]} {target[1]} {wall_words} A".replace("  ", " ")
                return Problem(prompt=prompt, answer=_walk_text(start, walk))

    def demonstration(self, problem: Problem, rng: Random) -> str:
        start, target, walls = _parse_prompt(problem.prompt)
        walk: list[str] = []
        cell = start
        while cell != target and len(walk) < self._max_moves:
            seen_walls = set() if rng.random() < self._settings.overlook else walls
            rest = {
                move: self._shortest_walk(_reach(cell, move), target, seen_walls)
                for move in _MOVES
                if self._is_free(_reach(cell, move), seen_walls)
            }
            lengths = {move: len(way) for move, way in rest.items() if way is not None}
            if not lengths:  # standing in a wall with no way out as seen now: walk as if there were none
                walls = set()
                continue
            best = min(lengths.values())
            move = rng.choice([move for move, length in lengths.items() if length == best])
            walk.append(move)
            cell = _reach(cell, move)
        return _walk_text(start, walk)

    def verdict(self, problem: Problem, response: str) -> Verdict:
        words = response.split()
        if not words or words[-1] != "stop" or len(words) % 3 != 1:
            return Verdict.UNPARSABLE
        start, target, walls = _parse_prompt(problem.prompt)
        cell = start
        for move, row, column in zip(words[0:-1:3], words[1::3], words[2::3], strict=False):
            if move not in _MOVES or not all(word.isascii() and word.isdecimal() for word in (row, column)):
                return Verdict.UNPARSABLE
            cell = _reach(cell, move)
            # Compared as text: a number of thousands of digits is wrong, and Python refuses to read it.
            if (row, column) != (str(cell[0]), str(cell[1])) or not self._is_free(cell, walls):
                return Verdict.WRONG
        return Verdict.RIGHT if cell == target else Verdict.WRONG

    def _is_free(self, cell: Cell, walls: set[Cell]) -> bool:
        return all(0 <= coordinate < self._settings.size for coordinate in cell) and cell not in walls

    def _shortest_walk(self, start: Cell, target: Cell, walls: set[Cell]) -> list[str] | None:
        """Breadth-first search; None when the target cannot be reached."""
        frontier: list[tuple[Cell, list[str]]] = [(start, [])]
        seen = {start}
        while frontier:
            following = []
            for cell, walk in frontier:
                if cell == target:
                    return walk
                for move in _MOVES:
                    reached = _reach(cell, move)
                    if reached not in seen and self._is_free(reached, walls):
                        seen.add(reached)
                        following.append((reached, [*walk, move]))
            frontier = following
        return None


def _reach(cell: Cell, move: str) -> Cell:
    return cell[0] + _MOVES[move][0], cell[1] + _MOVES[move][1]


def _walk_text(start: Cell, walk: list[str]) -> str:
    words: list[str] = []
    cell = start
    for move in walk:
        cell = _reach(cell, move)
        words += [move, str(cell[0]), str(cell[1])]
    return " ".join([*words, "stop"])


def _parse_prompt(prompt: str) -> tuple[Cell, Cell, set[Cell]]:
    words = prompt.split()
    start, target = (int(words[1]), int(words[2])), (int(words[4]), int(words[5]))
    walls = {(int(row), int(column)) for row, column in zip(words[7:-1:3], words[8:-1:3], strict=True)}
    return start, target, walls
