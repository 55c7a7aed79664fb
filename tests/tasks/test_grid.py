"""The grid's verdicts against all legal walks, listed by brute force; hostile walks; the corpus' overlooked walls."""

from __future__ import annotations

from itertools import combinations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covent.tasks import GridSettings, GridTask, Problem, Verdict

TASK = GridTask(GridSettings(), corpus_seed=0)
SMALL = GridTask(GridSettings(size=3, num_walls=2), corpus_seed=0)
COMPASS = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}
EXAMPLE = Problem(prompt="G 0 1 T 2 2 X 1 1 X 0 3 X 3 3 A", answer="E 0 2 S 1 2 S 2 2 stop")


def layout(prompt: str) -> tuple[tuple[int, int], tuple[int, int], set[tuple[int, int]]]:
    cells = [tuple(map(int, part.split())) for part in prompt[1:-1].replace("T", ",").replace("X", ",").split(",")]
    return cells[0], cells[1], set(cells[2:])


def spelled(start: tuple[int, int], moves: tuple[str, ...]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a walk and the cells it reaches, legal or not."""
    row, column = start
    words, cells = [], []
    for move in moves:
        row, column = row + COMPASS[move][0], column + COMPASS[move][1]
        words.append(f"{move} {row} {column}")
        cells.append((row, column))
    return " ".join([*words, "stop"]), cells


def right_walks(prompt: str, size: int, longest: int) -> set[str]:
    """Every right response of at most so many moves, from all sequences of moves."""
    start, target, walls = layout(prompt)
    free = {(row, column) for row in range(size) for column in range(size)} - walls
    walks = [spelled(start, moves) for length in range(longest + 1) for moves in product("NESW", repeat=length)]
    return {text for text, cells in walks if set(cells) <= free and [start, *cells][-1] == target}


def drawn(task: GridTask, count: int, seed: int = 0) -> list[Problem]:
    rng = Random(seed)
    return [task.draw(rng) for _ in range(count)]


def test_the_example_of_the_documentation() -> None:
    assert layout(EXAMPLE.prompt) == ((0, 1), (2, 2), {(1, 1), (0, 3), (3, 3)})
    assert TASK.verdict(EXAMPLE, EXAMPLE.answer) is Verdict.RIGHT


def test_verdicts_are_membership_among_all_legal_walks() -> None:
    """341 walks of up to four moves on each of 40 grids: right exactly if listed, wrong or off the grid otherwise."""
    found = {verdict: 0 for verdict in (Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE)}
    ignoring_walls = 0
    for problem in drawn(SMALL, 40):
        start, target, _ = layout(problem.prompt)
        right = right_walks(problem.prompt, size=3, longest=4)
        for length in range(5):
            for moves in product("NESW", repeat=length):
                text, cells = spelled(start, moves)
                verdict = SMALL.verdict(problem, text)
                found[verdict] += 1
                assert (verdict is Verdict.RIGHT) == (text in right)
                reaches = [start, *cells][-1] == target and all(0 <= c < 3 for cell in cells for c in cell)
                ignoring_walls += reaches and text not in right
    assert min(found.values()) > 100
    assert ignoring_walls > 50, "a checker that overlooks walls would be told apart"


def test_the_given_answer_is_a_shortest_walk() -> None:
    for problem in drawn(SMALL, 30, seed=1):
        right = right_walks(problem.prompt, size=3, longest=5)
        moves = problem.answer.split()[:-1:3]
        assert len(moves) >= 2
        if len(moves) <= 5:
            assert problem.answer in right
            assert len(problem.answer) == min(map(len, right))
        assert SMALL.verdict(problem, problem.answer) is Verdict.RIGHT


CROWDED = GridSettings(size=6, num_walls=12)


def test_every_problem_can_be_solved_within_the_longest_response() -> None:
    """In some crowded grids the shortest walk is longer; they are drawn again."""
    task, unbounded = GridTask(CROWDED, corpus_seed=0), GridTask(CROWDED, corpus_seed=0)
    unbounded._max_moves = 36
    lengths = [len(problem.answer.split()) for problem in drawn(task, 3000)]
    assert max(lengths) <= task.max_response_words
    assert max(len(problem.answer.split()) for problem in drawn(unbounded, 3000)) > task.max_response_words


def test_the_default_grid_never_needs_another_draw() -> None:
    """Its shortest walks around any three walls fit, so its problems are those of every earlier version."""
    cells = list(product(range(4), repeat=2))
    longest = 0
    for walls in combinations(cells, GridSettings().num_walls):
        for start in set(cells) - set(walls):
            seen, frontier, length = {start}, {start}, 0
            while frontier:
                longest = max(longest, length)
                near = {(r + dr, c + dc) for r, c in frontier for dr, dc in COMPASS.values()}
                frontier = (near & set(cells)) - set(walls) - seen
                seen |= frontier
                length += 1
    assert 3 * longest + 1 <= TASK.max_response_words
    assert longest > 6, "walls do make walks longer than the grid's half perimeter"


def test_every_perturbation_of_a_right_walk_is_refused() -> None:
    """Any one word replaced by any other of the vocabulary, or left out."""
    for problem in drawn(TASK, 20, seed=2):
        words = problem.answer.split()
        for place in range(len(words)):
            for other in set(TASK.vocabulary) - {words[place]}:
                changed = " ".join([*words[:place], other, *words[place + 1 :]])
                assert TASK.verdict(problem, changed) is not Verdict.RIGHT
            left_out = " ".join([*words[:place], *words[place + 1 :]])
            assert TASK.verdict(problem, left_out) is not Verdict.RIGHT
        assert TASK.verdict(problem, "\n".join(words)) is Verdict.RIGHT


def test_a_walk_may_be_long_but_must_end_on_the_target() -> None:
    back_and_forth = "E 0 2 W 0 1 E 0 2 S 1 2 S 2 2 stop"
    assert TASK.verdict(EXAMPLE, back_and_forth) is Verdict.RIGHT
    assert TASK.verdict(EXAMPLE, "E 0 2 S 1 2 S 2 2 S 3 2 stop") is Verdict.WRONG
    assert TASK.verdict(EXAMPLE, "E 0 2 S 1 2 stop") is Verdict.WRONG
    assert TASK.verdict(EXAMPLE, "stop") is Verdict.WRONG
    assert TASK.verdict(EXAMPLE, "S 1 1 E 1 2 S 2 2 stop") is Verdict.WRONG, "through a wall"
    assert TASK.verdict(EXAMPLE, "S 2 2 stop") is Verdict.WRONG, "a jump"
    assert TASK.verdict(EXAMPLE, "N 2 2 stop") is Verdict.WRONG


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("", Verdict.UNPARSABLE),
        (" \n ", Verdict.UNPARSABLE),
        ("E 0 2 S 1 2 S 2 2", Verdict.UNPARSABLE),
        ("stop stop", Verdict.UNPARSABLE),
        ("E 0 2 S 1 2 S 2 stop", Verdict.UNPARSABLE),
        ("E 0 ² S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("E 0 ٢ S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("E ０ ２ S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("E 0 +2 S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("E 0 2.0 S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("E 0 0_2 S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("N -1 1 stop", Verdict.UNPARSABLE),
        ("e 0 2 S 1 2 S 2 2 stop", Verdict.UNPARSABLE),
        ("E 0 02 S 1 2 S 2 2 stop", Verdict.WRONG),
        ("E 0 " + "9" * 5000 + " S 1 2 S 2 2 stop", Verdict.WRONG),
        ("E 0 2 W 0 1 " * 20_000 + "stop", Verdict.WRONG),
        ("stop " * 50_000, Verdict.UNPARSABLE),
    ],
    ids=lambda value: repr(str(value)[:20]),
)
def test_hostile_walks(response: str, verdict: Verdict) -> None:
    assert TASK.verdict(EXAMPLE, response) is verdict


@given(
    st.text(alphabet="NESW0123456789²٣ stop").map(lambda text: text + " stop")
    | st.lists(st.sampled_from([*TASK.vocabulary, "²", "٣"]), max_size=31).map(" ".join)
)
def test_any_text_has_a_verdict(response: str) -> None:
    verdict = TASK.verdict(EXAMPLE, response)
    assert verdict is not Verdict.RIGHT or " ".join(response.split()) in right_walks(EXAMPLE.prompt, 4, 5)


def demonstrated(overlook: float) -> tuple[float, float]:
    """Share of right demonstrations, and share that step into a wall."""
    task, rng = GridTask(GridSettings(overlook=overlook), corpus_seed=0), Random(0)
    right = walled = 0
    for _ in range(400):
        problem = task.draw(rng)
        words = task.demonstration(problem, rng).split()
        cells = {(int(row), int(column)) for row, column in zip(words[1::3], words[2::3], strict=True)}
        right += task.verdict(problem, " ".join(words)) is Verdict.RIGHT
        walled += bool(cells & layout(problem.prompt)[2])
    return right / 400, walled / 400


def test_writers_who_see_every_wall_are_right() -> None:
    assert demonstrated(0.0) == (1.0, 0.0)
    right, walled = demonstrated(0.6)
    assert 0.99 <= right + walled <= 1, "nearly every mistake is a wall that was overlooked"
    assert 0.1 < walled < 0.9
    assert demonstrated(1.0)[1] > walled


@pytest.mark.parametrize("wrong", [{"size": 2}, {"size": 3, "num_walls": 5}, {"overlook": 60}, {"walls": 3}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GridSettings.model_validate(wrong)
