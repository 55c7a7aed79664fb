"""Reward functions of TRL's form in a child: what a good one gets and gives, and that a bad one is named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from covent.errors import ConfigError, MissingPathError, VerifierError
from covent.integrations.trl import KillableReward
from tests.integrations.trl import rewards_to_load
from tests.verifiers import reward_functions

FILE = Path(reward_functions.__file__)
TEXTS = ["1", "HOSTILE", "2", "3"]


@pytest.fixture
def reward() -> Any:
    made: list[KillableReward] = []

    def reward(function: Any, **settings: Any) -> KillableReward:
        made.append(KillableReward(f"{FILE}:{function}" if isinstance(function, str) else function, **settings))
        return made[-1]

    yield reward
    for each in made:
        each.close()


def called(function: Any, texts: list[str], **columns: Any) -> Any:
    """As TRL calls it."""
    extras = {"trainer_state": object(), "log_extra": print, "log_metric": print}
    ids = [[1, 2]] * len(texts)
    return function(prompts=["3 + 4 ="] * len(texts), completions=texts, completion_ids=ids, **columns, **extras)


def test_a_good_one_gets_what_trl_gives(reward: Any) -> None:
    assert called(reward("matches_answer"), ["7", "8"], answer=["7", "7"]) == [1.0, 0.0]
    assert called(reward("counts_tokens"), ["7"]) == [2.0]
    assert called(reward("uses_trls_extras"), ["7"]) == [1.0]
    assert reward("lengths").__name__ == "lengths"


def test_a_function_is_found_in_its_file(reward: Any) -> None:
    found = reward(rewards_to_load.low_digits)
    assert called(found, ["1 7", "2"]) == called(rewards_to_load.low_digits, ["1 7", "2"]) == [0.5, 1.0]
    assert found.__name__ == "low_digits"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "ZeroDivisionError"),
        ("hangs", "did not return"),
        ("returns_wrong_length", "2 rewards for 1 completions"),
        ("returns_nan", "nan"),
        ("returns_infinity", "inf"),
        ("returns_text", "str '1.0'"),
        ("returns_a_tensor_for_one", "tolist"),
        ("exits", "SystemExit"),
        ("exits_at_once", "ended its process"),
    ],
)
def test_a_bad_one_costs_its_completion_the_reward(
    reward: Any, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = reward(name, timeout_s=0.5, max_error_frac=1.0)
    with caplog.at_level(logging.WARNING):
        assert called(bad, TEXTS) == [1.0, None, 1.0, 1.0]
    assert bad.unjudged == [False, True, False, False]
    assert [row for row, _ in bad.faults] == [1]
    assert words in caplog.text and name in caplog.text and "3 + 4 =" in caplog.text
    assert called(bad, ["1", "2"]) == [1.0, 1.0] and bad.unjudged == [False, False]


def test_none_says_that_it_does_not_apply(reward: Any) -> None:
    found = reward("some_do_not_apply")
    assert called(found, TEXTS) == [1.0, None, 1.0, 1.0]
    assert found.unjudged == [False] * 4 and found.faults == []


def test_too_many_errors_stop_the_run(reward: Any) -> None:
    with pytest.raises(VerifierError, match=r"raises.*max_error_frac"):
        called(reward("raises"), ["1", *["HOSTILE"] * 2])
    called(reward("raises", max_error_frac=0.02), ["1", *["HOSTILE"] * 2])


def test_what_no_child_can_load(reward: Any, tmp_path: Path) -> None:
    def inside(completions: Any, **_: Any) -> Any:
        return [1.0] * len(completions)

    with pytest.raises(ConfigError, match=r"rewards\.py"):
        reward(inside)
    with pytest.raises(ConfigError, match="not_a_function"):
        reward("not_a_function")
    with pytest.raises(MissingPathError):
        KillableReward(f"{tmp_path}/none.py:score")


def test_what_no_child_can_be_sent(reward: Any) -> None:
    with pytest.raises(ConfigError, match="'image'"):
        called(reward("matches_answer"), ["7"], answer=["7"], image=[object()])
