"""Reward functions as users write them, for TRL and for verl: good ones, and every way of going wrong. They are loaded
by path, in a child; HOSTILE in a completion asks the bad ones to misbehave."""

import os
import sys
import time


class _Tensor:
    """What a tensor on a GPU looks like from outside."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values


def lengths(prompts, completions, completion_ids, **kwargs):
    return [float(len(text)) for text in completions]


def matches_answer(completions, answer, **kwargs):
    return [1.0 if text == right else 0.0 for text, right in zip(completions, answer, strict=True)]


def chat_matches(prompts, completions, solution, **kwargs):
    assert all(message["role"] == "user" for prompt in prompts for message in prompt)
    return [float(turns[0]["content"] == right) for turns, right in zip(completions, solution, strict=True)]


def counts_tokens(completions, completion_ids, **kwargs):
    return [len(ids) for ids in completion_ids]


def some_do_not_apply(completions, **kwargs):
    return [None if "HOSTILE" in text else 1.0 for text in completions]


def compares(completions, **kwargs):
    longest = max(map(len, completions))
    return [float(len(text) == longest) for text in completions]


def uses_trls_extras(completions, trainer_state, log_extra, log_metric, **kwargs):
    log_extra("texts", completions)
    log_metric("mean", 0.5)
    return [1.0] * len(completions)


def _by_text(completions, act):
    return [act() if "HOSTILE" in text else 1.0 for text in completions]


def raises(completions, **kwargs):
    return _by_text(completions, lambda: 1 / 0)


def hangs(completions, **kwargs):
    return _by_text(completions, lambda: time.sleep(600))


def returns_wrong_length(completions, **kwargs):
    return [1.0] * (len(completions) + sum("HOSTILE" in text for text in completions))


def returns_nan(completions, **kwargs):
    return _by_text(completions, lambda: float("nan"))


def returns_infinity(completions, **kwargs):
    return _by_text(completions, lambda: float("inf"))


def returns_text(completions, **kwargs):
    return _by_text(completions, lambda: "1.0")


def returns_a_tensor_for_one(completions, **kwargs):
    return _by_text(completions, lambda: _Tensor(1.0))


def returns_a_tensor(completions, **kwargs):
    return _Tensor([1.0] * len(completions))


def returns_nothing(completions, **kwargs):
    return None


def returns_a_number(completions, **kwargs):
    return 1.0


def exits(completions, **kwargs):
    return _by_text(completions, lambda: sys.exit(0))


def exits_at_once(completions, **kwargs):
    return _by_text(completions, lambda: os._exit(0))


def changes_its_input(completions, answer, **kwargs):
    answer.clear()
    completions[:] = ["changed"] * len(completions)
    return [1.0] * len(completions)


async def is_async(completions, **kwargs):
    return [1.0] * len(completions)


def verl_matches(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth)


def verl_counts_characters(data_source, solution_str, ground_truth, extra_info=None):
    return len(solution_str)


def verl_says_more(data_source, solution_str, ground_truth, extra_info=None):
    score = -1.0 if solution_str != ground_truth else 0.5
    return {"score": score, "acc": solution_str == ground_truth, "source": data_source, "index": extra_info["index"]}


def verl_forgets_the_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"acc": 1.0} if "HOSTILE" in solution_str else {"score": 1.0}


def verl_raises(data_source, solution_str, ground_truth, extra_info=None):
    return 1 / 0 if "HOSTILE" in solution_str else 1.0


def verl_hangs(data_source, solution_str, ground_truth, extra_info=None):
    return time.sleep(600) if "HOSTILE" in solution_str else 1.0


def verl_exits(data_source, solution_str, ground_truth, extra_info=None):
    return sys.exit(0) if "HOSTILE" in solution_str else 1.0


def verl_returns_text(data_source, solution_str, ground_truth, extra_info=None):
    return "1.0" if "HOSTILE" in solution_str else 1.0


def verl_returns_nothing(data_source, solution_str, ground_truth, extra_info=None):
    return None if "HOSTILE" in solution_str else 1.0


def verl_changes_its_input(data_source, solution_str, ground_truth, extra_info=None):
    extra_info["index"] = "changed"
    return 1.0


def unclear(text, label):
    return 1.0


def fits_both(completions, solution_str, ground_truth):
    return 1.0


not_a_function = 3
