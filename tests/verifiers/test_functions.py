"""Reward functions of both signatures: what good ones get and give, and that a bad one is named and does no harm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covent.errors import ConfigError, MissingPathError
from covent.tasks import Answer, ClockSettings, Problem, VerifierSettings, make_task
from covent.verifiers.functions import RewardCall, RewardFunction
from covent.verifiers.settings import RewardSettings
from covent.verifiers.verdict import Judgement, Verdict
from tests.support.figures import figure

FILE = Path(__file__).with_name("reward_functions.py")
TIMEOUT_S = 0.5
Load = Callable[..., RewardFunction]


@pytest.fixture
def load() -> Any:
    made: list[RewardFunction] = []

    def load(name: str, **settings: Any) -> RewardFunction:
        function = RewardFunction(RewardSettings(function=f"{FILE}:{name}", **settings))
        made.append(function)
        return function

    yield load
    for function in made:
        function.close()


def call(text: str, answer: str = "7", number: int = 0) -> RewardCall:
    return RewardCall(
        prompt="3 + 4 =",
        completion=text,
        response=text,
        token_ids=[1, 2, 3],
        source="sums",
        ground_truth=answer,
        extra_info={"index": number},
        columns={"answer": answer},
        label=f"sample {number}",
    )


def calls(*texts: str) -> list[RewardCall]:
    return [call(text, number=number) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("name", "signature"), [("lengths", "trl"), ("matches_answer", "trl"), ("verl_matches", "verl")]
)
def test_the_signature_shows_in_the_parameters(load: Load, name: str, signature: str) -> None:
    assert load(name).signature == signature


@pytest.mark.parametrize("name", ["unclear", "fits_both"])
def test_an_unclear_signature_has_to_be_named(load: Load, name: str) -> None:
    with pytest.raises(ConfigError, match=r"Set reward\.signature"):
        load(name)
    assert load("fits_both", signature="verl").signature == "verl"


def test_trls_form_gets_columns_and_tokens(load: Load) -> None:
    rewards = [judgement.reward for judgement in load("matches_answer").judge(calls("7", "8"))]
    assert rewards == [1.0, 0.0]
    assert load("counts_tokens").judge(calls("7"))[0].reward == 3
    assert load("lengths").judge([]) == []
    assert load("uses_trls_extras").judge(calls("7"))[0].reward == 1.0


def test_trls_form_gets_chats_as_messages(load: Load) -> None:
    turns = [{"role": "user", "content": "3 + 4 ="}]
    asked = RewardCall(
        prompt=turns, completion=[{"role": "assistant", "content": "7"}], response="7", columns={"solution": "7"}
    )
    assert load("chat_matches").judge([asked])[0].reward == 1.0


def test_none_of_trls_form_is_not_applicable_and_no_error(load: Load) -> None:
    fine, skipped = load("some_do_not_apply").judge(calls("7", "HOSTILE"))
    assert fine == Judgement(Verdict.RIGHT, 1.0)
    assert skipped == Judgement(Verdict.NOT_APPLICABLE, None)


def test_verls_form_may_return_a_number_or_a_dict(load: Load) -> None:
    assert [each.reward for each in load("verl_matches").judge(calls("7", "8"))] == [1.0, 0.0]
    right, wrong = load("verl_says_more").judge(calls("7", "8"))
    assert (right, wrong) == (Judgement(Verdict.RIGHT, 0.5), Judgement(Verdict.WRONG, -1.0))


def test_what_counts_as_right_is_a_setting(load: Load) -> None:
    assert [each.verdict for each in load("lengths", right_at=3).judge(calls("ab", "abc"))] == [
        Verdict.WRONG,
        Verdict.RIGHT,
    ]


MISBEHAVIOUR = {
    "raises": ("raises", "ZeroDivisionError", "verl_raises"),
    "hangs": ("hangs", "did not return", "verl_hangs"),
    "wrong length": ("returns_wrong_length", "rewards for", None),
    "NaN": ("returns_nan", "returned nan", None),
    "infinity": ("returns_infinity", "returned inf", None),
    "str": ("returns_text", "str", "verl_returns_text"),
    "tensor": ("returns_a_tensor_for_one", "_Tensor.*tolist", None),
    "SystemExit": ("exits", "SystemExit", "verl_exits"),
    "os._exit": ("exits_at_once", "ended its process", None),
    "no score": (None, "without 'score'", "verl_forgets_the_score"),
}
CASES = [(kind, name, match) for kind, (trl, match, verl) in MISBEHAVIOUR.items() for name in (trl, verl) if name]


@pytest.mark.parametrize(("kind", "name", "match"), CASES, ids=[name for _, name, _ in CASES])
def test_a_misbehaviour_is_an_error_of_its_sample_alone(load: Load, kind: str, name: str, match: str) -> None:
    """B5 row 28. The others keep their rewards, the message names function and sample, and the next call is fine."""
    function = load(name, timeout_s=TIMEOUT_S if kind == "hangs" else 60)
    first, bad, last = function.judge(calls("7", "HOSTILE", "8"))
    assert bad.verdict is Verdict.ERROR and bad.reward is None
    for part in (f"{FILE}:{name}", "sample 1"):
        assert part in bad.reason
    assert re.search(match, bad.reason), bad.reason
    assert [(each.verdict, each.reward) for each in (first, last)] == [(Verdict.RIGHT, 1.0)] * 2
    assert [each.verdict for each in function.judge(calls("7", "8"))] == [Verdict.RIGHT] * 2


def test_verls_none_is_not_applicable(load: Load) -> None:
    assert load("verl_returns_nothing").judge(calls("HOSTILE"))[0].verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize("name", ["changes_its_input", "verl_changes_its_input"])
def test_a_changed_argument_is_a_copy_and_is_named(load: Load, name: str) -> None:
    asked = calls("7", "8")
    before = json.dumps([vars(each) for each in asked])
    for judgement in load(name).judge(asked):
        assert (judgement.verdict, judgement.reward) == (Verdict.RIGHT, 1.0)
        assert name in judgement.warning and "was given a copy" in judgement.warning
    assert json.dumps([vars(each) for each in asked]) == before
    assert load("lengths").judge(asked)[0].warning == ""


@pytest.mark.parametrize("name", ["returns_a_tensor", "returns_nothing", "returns_a_number"])
def test_what_is_no_list_is_an_error_of_all(load: Load, name: str) -> None:
    judged = load(name).judge(calls(*"abcdef"))
    assert {judgement.verdict for judgement in judged} == {Verdict.ERROR}
    assert "a list of" in judged[0].reason


def test_a_function_that_compares_still_sees_its_samples_together(load: Load) -> None:
    together = load("compares").judge(calls("a", "abc", "ab"))
    assert [judgement.reward for judgement in together] == [0.0, 1.0, 0.0]
    alone = [load("compares").judge([each])[0].reward for each in calls("a", "abc", "ab")]
    assert alone == [1.0, 1.0, 1.0], "the negative control: one by one, all are the longest"


def test_a_broken_function_is_not_asked_for_ever(load: Load) -> None:
    """Each call would take the time-out; after a few the rest is an error too."""
    judged = load("verl_hangs", timeout_s=TIMEOUT_S).judge(calls(*["HOSTILE"] * 50))
    assert {judgement.verdict for judgement in judged} == {Verdict.ERROR}
    assert sum("not tried" in judgement.reason for judgement in judged) == 47


@pytest.mark.parametrize(
    ("function", "error", "match"),
    [
        ("reward_functions.py", ConfigError, "path/to/file.py:name"),
        ("absent.py:score", MissingPathError, "no file 'absent.py'"),
        (f"{FILE}:absent", ConfigError, "no function 'absent'"),
        (f"{FILE}:not_a_function", ConfigError, "no function"),
        (f"{FILE}:is_async", ConfigError, "async"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_else(
    function: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        RewardFunction(RewardSettings(function=function))


@pytest.mark.parametrize(
    "text", ["def score(", "import sys\nsys.exit(0)\n", "raise KeyError('x')\n", "import os\nos._exit(3)"]
)
def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.py"):
        RewardFunction(RewardSettings(function=f"{tmp_path / 'broken.py'}:score"))


def test_a_task_can_be_judged_by_a_function(load: Load) -> None:
    reward = RewardSettings(function=f"{FILE}:matches_answer")
    task = make_task(ClockSettings(), 0, VerifierSettings(), reward)
    problem = Problem(prompt="Q 1 + 1 A", answer="2")
    judged = task.judge([Answer(problem, "2"), Answer(problem, "answer 2")])
    assert [judgement.verdict for judgement in judged] == [Verdict.RIGHT, Verdict.WRONG]
    assert next(task.stream("train", 0)) == next(make_task(ClockSettings(), 0).stream("train", 0))
    own = make_task(ClockSettings(), 0).judge([Answer(problem, "2"), Answer(problem, "answer 2")])
    assert [judgement.verdict for judgement in own] == [Verdict.UNPARSABLE, Verdict.RIGHT]


@pytest.mark.slow
def test_every_misbehaviour_is_handled(load: Load) -> None:
    """B5 row 28: the figure for the table, from the same cases as the short tests."""
    handled = []
    for kind, name, match in CASES:
        test_a_misbehaviour_is_an_error_of_its_sample_alone(load, kind, name, match)
        handled.append(kind)
    test_none_of_trls_form_is_not_applicable_and_no_error(load)
    test_a_changed_argument_is_a_copy_and_is_named(load, "changes_its_input")
    test_what_is_no_list_is_an_error_of_all(load, "returns_a_tensor")
    kinds = [*dict.fromkeys(handled), "None", "changes its input", "tensor in place of the list"]
    figure(28, f"{len(kinds)} of {len(kinds)} kinds: {', '.join(kinds)}")
