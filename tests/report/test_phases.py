"""What became of the entropy is said in one tense, no further than its rows go, and not where they are lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from covent.report.page import page
from covent.report.phases import fate_of
from covent.report.subject import subjects
from covent.report.summary import summarise
from covent.report.verdicts import answers
from covent.report.words import findings
from covent.store.reader import Run, read_run
from covent.store.salvage import salvaged_run
from tests.support.synthetic import write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that spends to its end."""
    return write_run(tmp_path_factory.mktemp("phases") / "kl_cov", "kl_cov", num_steps=40)


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Callable[[str, Callable[[str], str]], Run]:
    """The run with one of its files changed; an empty text removes the file's rows."""

    def change(name: str, by: Callable[[str], str]) -> Run:
        folder = shutil.copytree(whole, tmp_path / "kl_cov")
        (folder / name).write_text(by((folder / name).read_text(encoding="utf-8")), encoding="utf-8")
        return salvaged_run(folder)

    return change


def head(run: Run) -> str:
    """The headline of the page, its banners and the card, without markup."""
    (text,) = re.findall("<header>.*?</header>", page([run]), re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", text).split())


def card(run: Run) -> dict[str, str]:
    (subject,) = subjects([run])
    return {answer.question: answer.answer for answer in answers(subject)}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("finished", "was still being spent at the end"),
        ("interrupted", "was still being spent at the end"),
        ("failed", "was still being spent at the end"),
        ("running", "is being spent"),
    ],
)
def test_only_a_run_that_goes_on_is_spending(whole: Path, state: str, words: str) -> None:
    run = read_run(whole)
    run = Run(**(vars(run) | {"status": run.status.model_copy(update={"state": state})}))
    assert f"Entropy {words} in kl_cov" in head(run)
    assert any(f"It {words}: " in finding.text for finding in findings(summarise(run)))
    found = fate_of(summarise(run))
    assert found is not None and found.verb == words and card(run)["Phase"] == "Spending"


def test_a_run_whose_rows_end_early_is_spoken_of_up_to_there(
    whole: Path, damaged: Callable[[str, Callable[[str], str]], Run]
) -> None:
    run = damaged("steps.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:30]))
    assert "Entropy was still being spent up to step 29 in kl_cov" in head(run)
    assert "it was still being spent up to step 29." in head(run)
    assert card(run)["Phase"] == "Spending up to step 29"
    # The control: nothing of the kind where the rows are whole.
    assert "up to step" not in head(read_run(whole)) and card(read_run(whole))["Phase"] == "Spending"


def test_rows_that_end_early_without_a_status_are_seen_by_the_updates(
    damaged: Callable[[str, Callable[[str], str]], Run],
) -> None:
    run = damaged("steps.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:30]))
    (run.folder / "status.json").unlink()
    assert card(salvaged_run(run.folder))["Phase"] == "Spending up to step 29"


def test_lost_step_rows_are_not_a_run_without_steps(
    damaged: Callable[[str, Callable[[str], str]], Run], tmp_path: Path
) -> None:
    run = damaged("steps.jsonl", lambda _: "")
    text = head(run)
    assert "Entropy is not known for want of step rows in kl_cov" in text
    for false in ("Nothing measured", "no rollout step yet", "Too little was recorded"):
        assert false not in text
    assert card(run)["Phase"] == "Not known" and "%" in card(run)["Accuracy"]
    # The control: a run that has just begun.
    young = head(read_run(write_run(tmp_path / "young", stop_after=0)))
    for true in ("Nothing measured yet", "no rollout step yet", "Too little was recorded"):
        assert true in young


def test_without_settings_the_card_agrees_with_the_headline(
    whole: Path, damaged: Callable[[str, Callable[[str], str]], Run]
) -> None:
    run = damaged("run.json", lambda text: json.dumps(json.loads(text) | {"config": {}}))
    for name in ("run.json", "config.yaml"):
        (run.folder / name).unlink(missing_ok=True)
    lost = salvaged_run(run.folder)
    found = card(lost)
    assert "Entropy was still being spent at the end in kl_cov" in head(lost)
    assert found["Phase"] == "Spending" and found["Ceiling"] == "Not identified"
    assert "Too little was recorded" not in head(lost) and "--window" not in head(lost)
    # The same numbers as with the settings, which only the law needs.
    assert {key: card(read_run(whole))[key] for key in ("Phase", "Accuracy", "Entropy spent")} == {
        key: found[key] for key in ("Phase", "Accuracy", "Entropy spent")
    }
