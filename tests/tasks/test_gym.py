"""reasoning-gym's problems and scores, through children with a fixed hash seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from covent.errors import ConfigError, MissingExtraError, VerifierError
from covent.tasks import Answer, GymSettings, GymTask, Verdict, VerifierSettings

VERIFIER = VerifierSettings(timeout_s=60)
CHAINS = GymSettings(dataset="chain_sum", options={"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2})


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"covent\[tasks\]"):
        GymTask(CHAINS, 0, VERIFIER)


@pytest.fixture(scope="module")
def task() -> Iterator[GymTask]:
    pytest.importorskip("reasoning_gym", reason="needs the tasks extra")
    made = GymTask(CHAINS, 0, VERIFIER)
    yield made
    made.close()


def test_gold_scores_and_perturbed_gold_does_not(task: GymTask) -> None:
    problems = list(islice(task.stream("train", 0), 40))
    judged = task.judge(
        [
            Answer(problem, text)
            for problem in problems
            for text in (problem.answer, str(int(problem.answer) + 1), "", "x")
        ]
    )
    verdicts = [judgement.verdict for judgement in judged]
    assert verdicts[0::4] == [Verdict.RIGHT] * 40
    assert set(verdicts[1::4]) == set(verdicts[3::4]) == {Verdict.WRONG}
    assert set(verdicts[2::4]) == {Verdict.UNPARSABLE}


def test_the_answer_is_the_sum(task: GymTask) -> None:
    """Truth by another route: add up the numbers of the question."""
    for problem in islice(task.stream("train", 1), 40):
        words = problem.prompt.partition(":")[2].replace("=", " ").replace("+ ", "+").replace("- ", "-").split()
        assert sum(int(word) for word in words) == int(problem.answer)


def test_problems_are_the_same_in_every_process(task: GymTask) -> None:
    other = GymTask(CHAINS, 0, VERIFIER)
    assert list(islice(task.stream("test", 0), 30)) == list(islice(other.stream("test", 0), 30))
    other.close()


def test_a_model_made_here_can_spell_it(task: GymTask) -> None:
    rng = Random(0)
    for problem in islice(task.stream("train", 2), 200):
        shown = task.demonstration(problem, rng)
        assert set(problem.prompt) | set(shown) <= set(task.vocabulary)
        assert len(problem.prompt) <= task.max_prompt_words and len(shown) <= task.max_response_words


def test_marked_answers(task: GymTask) -> None:
    marked = GymTask(CHAINS.model_copy(update={"marked": True}), 0, VERIFIER)
    problem = next(marked.stream("train", 0))
    texts = [f"<answer>{problem.answer}</answer>", problem.answer]
    judged = marked.judge([Answer(problem, text) for text in texts])
    assert [judgement.verdict for judgement in judged] == [Verdict.RIGHT, Verdict.UNPARSABLE]
    marked.close()


@pytest.mark.parametrize(("dataset", "options"), [("no_such_data_set", {}), ("chain_sum", {"no_such_option": 1})])
def test_what_does_not_exist_is_named(dataset: str, options: dict[str, int]) -> None:
    pytest.importorskip("reasoning_gym", reason="needs the tasks extra")
    with pytest.raises((ConfigError, VerifierError), match="no_such"):
        GymTask(GymSettings(dataset=dataset, options=options), 0, VERIFIER)
