"""Data sets in verl's form and TRL's: what is read, how it is split and judged, and that a bad row is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from covent.errors import DataError, MissingExtraError, MissingPathError
from covent.tasks import Answer, DataSettings, DataTask, Problem, Verdict, VerifierSettings, make_task
from covent.tasks.data import BOXED
from covent.tasks.row_files import rows
from tests.support.figures import figure
from tests.tasks.test_base import SPLITS, split_of
from tests.verifiers.test_sandbox import MISSING

Row = dict[str, Any]


def verl_row(number: int) -> Row:
    """A row as verl's own preparation scripts write them."""
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": f"What is {number} + {number}?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(2 * number)},
        "extra_info": {"split": "train", "index": number},
    }


def trl_row(number: int) -> Row:
    """A row as TRL's examples have them."""
    return {"prompt": f"What is {number} + {number}?", "solution": f"It is $\\boxed{{{2 * number}}}$.", "level": 1}


def json_lines(path: Path, found: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def task(path: Path, **settings: Any) -> DataTask:
    return DataTask(DataSettings(path=str(path), **settings), VerifierSettings())


def everything(made: DataTask) -> list[Problem]:
    return list(made.problems())


@pytest.mark.parametrize("row", [verl_row, trl_row])
def test_both_forms_are_read(tmp_path: Path, row: Callable[[int], Row]) -> None:
    made = task(json_lines(tmp_path / "rows.jsonl", [row(number) for number in range(60)]))
    problems = {problem.prompt: problem for problem in everything(made)}
    assert len(problems) == 60 and made.rejected == []
    seven = problems["What is 7 + 7?"]
    assert seven.place == f"{tmp_path / 'rows.jsonl'}:8"
    judged = made.judge([Answer(seven, r"\boxed{14}"), Answer(seven, r"\boxed{15}"), Answer(seven, "14")])
    assert [judgement.verdict for judgement in judged] == [Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE]
    if row is verl_row:
        assert seven.messages == ({"role": "user", "content": "What is 7 + 7?"},)
        assert (seven.source, seven.columns["extra_info"]["index"]) == ("sums", 7)
    else:
        assert (seven.messages, seven.source, seven.columns["level"]) == ((), "", 1)


@pytest.mark.parametrize("key", ["answer", "ground_truth", "solution"])
def test_the_right_answer_may_have_any_of_the_usual_names(tmp_path: Path, key: str) -> None:
    for value in ("4", 4, 4.0, ["4"]):
        made = task(json_lines(tmp_path / "rows.jsonl", [{"prompt": f"p{n}", key: value} for n in range(30)]))
        assert {verdict.verdict for verdict in made.judge([Answer(everything(made)[0], r"\boxed{4}")])} == {
            Verdict.RIGHT
        }


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    found = [{"question": f"q{n}", "final": {"value": n}, "answer": "no", "from": "mine"} for n in range(30)]
    path = json_lines(tmp_path / "rows.jsonl", found)
    made = task(path, prompt_key="question", answer_key="final.value", source_key="from")
    by_prompt = {problem.prompt: problem for problem in everything(made)}
    assert (by_prompt["q3"].answer, by_prompt["q3"].source) == ("3", "mine")


def test_splits_follow_the_prompt_alone(tmp_path: Path) -> None:
    found = [trl_row(number) for number in range(300)]
    one = task(json_lines(tmp_path / "a.jsonl", found))
    other = task(json_lines(tmp_path / "b.jsonl", found[::-1]), instruction="boxed", prompt_form="chat")
    for split in SPLITS:
        streamed = [
            {p.place.rpartition(":")[0] and p.columns["solution"] for p in islice(t.stream(split, 0), 300)}
            for t in (one, other)
        ]
        assert streamed[0] == streamed[1]
        assert {split_of(p.prompt) for p in islice(one.stream(split, 0), 300)} == {split}


def test_streams_come_in_epochs(tmp_path: Path) -> None:
    made = task(json_lines(tmp_path / "rows.jsonl", [trl_row(number) for number in range(100)]))
    num_train = sum(split_of(problem.prompt) == "train" for problem in everything(made))
    first, second = (
        [problem.prompt for problem in islice(made.stream("train", 3), start, start + num_train)]
        for start in (0, num_train)
    )
    assert sorted(first) == sorted(second) and first != second
    assert first == [problem.prompt for problem in islice(made.stream("train", 3), num_train)]
    assert first != [problem.prompt for problem in islice(made.stream("train", 4), num_train)]
    held_out = [problem.prompt for problem in made.stream("validation", 0)]
    assert len(set(held_out)) == len(held_out) > 0


def test_files_of_their_own_make_the_splits(tmp_path: Path) -> None:
    train = json_lines(tmp_path / "train.jsonl", [trl_row(number) for number in range(50)])
    validation = json_lines(tmp_path / "validation.jsonl", [trl_row(number) for number in range(50, 60)])
    test = json_lines(tmp_path / "test.jsonl", [trl_row(number) for number in range(60, 70)])
    made = task(train, validation_path=str(validation), test_path=str(test))
    assert [len(list(made.stream(split, 0))) for split in ("validation", "test")] == [10, 10]
    assert len({problem.key for problem in islice(made.stream("train", 0), 50)}) == 50
    with pytest.raises(DataError, match=r"test\.jsonl:1: the same prompt as in .*train\.jsonl:1"):
        task(train, test_path=str(json_lines(test, [trl_row(0)])))


@pytest.mark.parametrize(
    ("row", "settings", "prompt", "messages"),
    [
        (trl_row(1), {"instruction": "boxed"}, f"What is 1 + 1? {BOXED}", ()),
        (verl_row(1), {"instruction": "boxed"}, f"What is 1 + 1? {BOXED}", ("user",)),
        (trl_row(1), {"prompt_form": "chat", "instruction": "Be brief."}, "What is 1 + 1? Be brief.", ("user",)),
        (verl_row(1), {"prompt_form": "text"}, "What is 1 + 1?", ()),
        (verl_row(1), {"system_prompt": "Think."}, "Think.\n\nWhat is 1 + 1?", ("system", "user")),
        (trl_row(1), {"system_prompt": "Think."}, "What is 1 + 1?", ()),
    ],
)
def test_prompts_are_asked_as_the_settings_say(
    tmp_path: Path, row: Row, settings: dict[str, Any], prompt: str, messages: tuple[str, ...]
) -> None:
    others = [verl_row(n) if "data_source" in row else trl_row(n) for n in range(2, 30)]
    made = task(json_lines(tmp_path / "rows.jsonl", [row, *others]), **settings)
    (problem,) = (each for each in everything(made) if each.place.endswith(":1"))
    assert problem.prompt == prompt
    assert tuple(message["role"] for message in problem.messages) == messages
    if messages:
        assert problem.messages[-1]["content"] in prompt and "What is 1 + 1?" in problem.messages[-1]["content"]


def test_code_rows_are_judged_by_their_tests(tmp_path: Path) -> None:
    if MISSING:
        pytest.skip(MISSING)
    tests = {"inputs": ["3\n", "4\n"], "outputs": ["6", "8"]}
    found = [{"prompt": f"Double it, {n}.", "ground_truth": json.dumps(tests)} for n in range(30)]
    made = DataTask(
        DataSettings(path=str(json_lines(tmp_path / "rows.jsonl", found)), verifier="code"),
        VerifierSettings(timeout_s=60),
    )
    problem = everything(made)[0]
    texts = ["So:\n```python\nprint(2 * int(input()))\n```\n", "```python\nprint(6)\n```", "I do not know."]
    judged = made.judge([Answer(problem, text) for text in texts])
    assert [judgement.verdict for judgement in judged] == [Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE]
    made.close()


def test_mathematics_is_judged_by_math_verify(tmp_path: Path) -> None:
    pytest.importorskip("math_verify", reason="needs the math extra")
    found = [{"prompt": f"p{n}", "answer": r"\frac{\sqrt{2}}{2}"} for n in range(30)]
    path = json_lines(tmp_path / "rows.jsonl", found)
    answer = Answer(everything(task(path))[0], r"\boxed{1/\sqrt{2}}")
    assert task(path).judge([answer])[0].verdict is Verdict.WRONG, "the exact matcher cannot calculate"
    made = DataTask(DataSettings(path=str(path), verifier="math"), VerifierSettings(timeout_s=60))
    assert made.judge([answer])[0].verdict is Verdict.RIGHT
    made.close()


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    json_lines(tmp_path / "a.jsonl", [trl_row(n) for n in range(20)])
    json_lines(tmp_path / "more" / "b.jsonl", [trl_row(n) for n in range(20, 40)])
    (tmp_path / "README.md").write_text("not data")
    assert len(everything(task(tmp_path))) == 40
    both = DataSettings(path=(str(tmp_path / "a.jsonl"), str(tmp_path / "more")))
    assert len(everything(DataTask(both, VerifierSettings()))) == 40


def test_parquet_is_read_like_json_lines(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the data extra")
    pytest.importorskip("pyarrow.parquet")
    found = [verl_row(number) for number in range(60)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), tmp_path / "rows.parquet", row_group_size=7)
    by_lines, by_table = (
        everything(task(path)) for path in (json_lines(tmp_path / "rows.jsonl", found), tmp_path / "rows.parquet")
    )
    assert [(p.prompt, p.answer, p.messages) for p in by_lines] == [(p.prompt, p.answer, p.messages) for p in by_table]
    assert by_table[0].place.startswith(f"{tmp_path / 'rows.parquet'}, row ")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes((tmp_path / "rows.parquet").read_bytes()[:-200])
    with pytest.raises(DataError, match=r"damaged\.parquet"):
        task(damaged)


def test_what_datasets_saved_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="compared with the real library where it is installed")
    found = datasets.Dataset.from_list([verl_row(number) for number in range(60)])
    found.save_to_disk(tmp_path / "one")
    assert len(everything(task(tmp_path / "one"))) == 60
    parts = datasets.DatasetDict({"train": found.select(range(40)), "test": found.select(range(40, 60))})
    parts.save_to_disk(tmp_path / "parts")
    made = task(tmp_path / "parts")
    assert {problem.columns["extra_info"]["index"] for problem in made.stream("test", 0)} == set(range(40, 60))
    found.select(range(5, 50, 3)).save_to_disk(tmp_path / "indexed")
    try:
        assert len(everything(task(tmp_path / "indexed"))) == 15
    except DataError as error:
        assert "flatten_indices" in str(error)


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"covent\[data\]"):
        task(tmp_path / "rows.parquet")


@pytest.mark.parametrize("name", ["absent.jsonl", "empty folder"])
def test_a_path_without_data_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty folder").mkdir()
    with pytest.raises(MissingPathError, match=name):
        task(tmp_path / name)


GOOD = json.dumps(trl_row(1))


def line(**values: Any) -> str:
    return json.dumps({"prompt": "p", "answer": "1"} | values)


def without(name: str) -> str:
    values = {"prompt": "p", "answer": "1"}
    del values[name]
    return json.dumps(values)


BAD_ROWS: dict[str, tuple[str | bytes, str]] = {
    "cut-off JSON": ('{"prompt": "p", "ans', "not one whole JSON object"),
    "no JSON": ("prompt,answer", "not one whole JSON object"),
    "two objects in a line": (GOOD + GOOD, "not one whole JSON object"),
    "a list": ('["p", "1"]', "a JSON list"),
    "a number": ("7", "a JSON int"),
    "NaN": ('{"prompt": "p", "answer": NaN}', "NaN is no JSON"),
    "a key twice": ('{"prompt": "p", "prompt": "q", "answer": "1"}', "twice"),
    "deep nesting": ("[" * 200_000, "not one whole JSON object"),
    "not UTF-8": (b'{"prompt": "p\xff", "answer": "1"}', "not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16")[:60], "not UTF-8|not one whole JSON object"),
    "no prompt": (without("prompt"), "no 'prompt' \\(it has answer\\)"),
    "a null prompt": (line(prompt=None), "no 'prompt'"),
    "an empty prompt": (line(prompt=" \n"), "prompt is empty"),
    "a number as prompt": (line(prompt=7), "'prompt' is a int"),
    "a long prompt": (line(prompt="x" * 30_000), "30000 characters, more than 20000"),
    "half a character": ('{"prompt": "\\ud800", "answer": "1"}', "lone surrogate"),
    "no answer": (without("answer"), "no right answer"),
    "a null answer": (line(answer=None), "no right answer"),
    "an empty answer": (line(answer=""), "right answer is empty"),
    "two answers": (line(solution="2"), "solution and answer could both"),
    "an answer of many parts": (line(answer={"value": 1}), "right answer is a dict"),
    "a chat among texts": (
        line(prompt=[{"role": "user", "content": "p"}]),
        "text where the first row's is a chat|or the other way",
    ),
    "a chat without content": (line(prompt=[{"role": "user"}]), "message 1 of the prompt is no object"),
    "an unknown role": (line(prompt=[{"role": "human", "content": "p"}]), "role 'human'"),
    "the assistant last": (line(prompt=[{"role": "assistant", "content": "p"}]), "nothing is left to answer"),
    "the same prompt twice": (GOOD, "the same prompt as in .*:1"),
}


def with_bad_row(path: Path, kind: str) -> Path:
    """A file whose 4th line of 40 is bad."""
    bad = BAD_ROWS[kind][0]
    lines = [json.dumps(trl_row(number)).encode() for number in range(1, 40)]
    lines.insert(3, bad if isinstance(bad, bytes) else bad.encode())
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    """B5 row 30: the run stops before its first step; or the row is left out, counted and kept."""
    path = with_bad_row(tmp_path / "rows.jsonl", kind)
    with pytest.raises(DataError, match=rf"rows\.jsonl:4: .*({BAD_ROWS[kind][1]})") as raised:
        task(path)
    assert "1 of 40 rows" in str(raised.value) and "skip_bad" in str(raised.value)
    made = task(path, skip_bad=True)
    assert [rejected.place for rejected in made.rejected] == [f"{path}:4"]
    assert made.num_rows == 40 and len(everything(made)) == 39


def test_a_good_file_has_no_bad_row(tmp_path: Path) -> None:
    """Negative control: the same file without the bad line; a byte order mark and empty lines are harmless."""
    lines = [json.dumps(trl_row(number)).encode() for number in range(1, 40)]
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n\n".join(lines) + b"\n\n")
    assert task(tmp_path / "rows.jsonl").rejected == []


@pytest.mark.parametrize("text", ["", "\n\n", "nonsense\n" * 3])
def test_a_file_without_a_usable_row_is_refused_even_with_skip_bad(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(DataError, match="No row to train on"):
        task(tmp_path / "rows.jsonl", skip_bad=True)


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "rows.jsonl", [trl_row(0), *({"prompt": f"p{n}"} for n in range(20))])
    with pytest.raises(DataError, match=r"20 of 21 rows .*:2: .*:6: .*and 15 more"):
        task(path)


def test_the_fingerprint_changes_with_any_row(tmp_path: Path) -> None:
    found = [trl_row(number) for number in range(30)]
    one, again = (task(json_lines(tmp_path / name, found)).fingerprint for name in ("a.jsonl", "b.jsonl"))
    assert one == again
    for changed in (found[:-1], [*found[:-1], {**found[-1], "solution": "#### 1"}], found[::-1]):
        assert task(json_lines(tmp_path / "c.jsonl", changed)).fingerprint != one


def test_rows_without_an_answer_are_for_reward_functions(tmp_path: Path) -> None:
    from covent.verifiers.settings import RewardSettings
    from tests.verifiers.test_functions import FILE

    path = json_lines(tmp_path / "rows.jsonl", [{"prompt": f"p{n}"} for n in range(30)])
    with pytest.raises(DataError, match="no right answer"):
        task(path)
    made = make_task(DataSettings(path=str(path)), 0, None, RewardSettings(function=f"{FILE}:lengths"))
    problem = next(made.stream("train", 0))
    assert made.judge([Answer(problem, "four")])[0].reward == 4.0


def test_values_of_a_row_reach_the_reward_function(tmp_path: Path) -> None:
    from covent.verifiers.settings import RewardSettings
    from tests.verifiers.test_functions import FILE

    path = json_lines(tmp_path / "rows.jsonl", [verl_row(number) for number in range(30)])
    for name, texts in (("verl_matches", ("{}", "no")), ("verl_says_more", ("{}", "no"))):
        made = make_task(DataSettings(path=str(path)), 0, None, RewardSettings(function=f"{FILE}:{name}"))
        problem = next(made.stream("train", 0))
        judged = made.judge([Answer(problem, text.format(problem.answer)) for text in texts])
        assert [judgement.verdict for judgement in judged] == [Verdict.RIGHT, Verdict.WRONG]


def test_rows_are_raw_values_with_places(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\nbad\n')
    found = list(rows(path))
    assert [(row.place, row.values) for row in found] == [(f"{path}:1", {"a": 1}), (f"{path}:3", None)]
    assert found[1].problem and found[1].text == "bad"


@pytest.mark.slow
def test_every_malformed_file_is_handled(tmp_path: Path) -> None:
    """B5 row 30: the figure for the table, from the same files as the short tests."""
    for number, kind in enumerate(BAD_ROWS):
        folder = tmp_path / str(number)
        folder.mkdir()
        test_a_bad_row_is_named_with_its_line(folder, kind)
    figure(30, f"{len(BAD_ROWS)} of {len(BAD_ROWS)}: {', '.join(BAD_ROWS)}")
