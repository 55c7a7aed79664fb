"""The sentences carry the numbers of the summary, and claim no more than they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from covent.report import numbers as n
from covent.report.accuracy import Difference
from covent.report.compare import comparisons
from covent.report.summary import RunSummary, summarise
from covent.report.words import Finding, comparison_findings, findings, headline, verdict
from covent.store.reader import Run, read_run
from tests.support.synthetic import write_run


def topic(found: list[Finding], name: str) -> Finding:
    (finding,) = (finding for finding in found if finding.topic == name)
    return finding


def changed(summary: RunSummary, part: str, **fields: object) -> RunSummary:
    return summary.model_copy(update={part: getattr(summary, part).model_copy(update=fields)})


def test_collapse_is_said_below_a_tenth_only(runs: dict[str, Run], summaries: dict[str, RunSummary]) -> None:
    assert (
        verdict(list(summaries), list(summaries.values())) == "Entropy collapsed in grpo, fell in clip_cov and kl_cov"
    )
    grpo = topic(findings(summaries["grpo"]), "Entropy")
    assert "calls collapse" in grpo.text and grpo.tone == "caution"
    assert n.nats(summaries["grpo"].entropy.last) in grpo.text  # type: ignore[union-attr]
    for ratio, fate in ((0.0999, "collapsed"), (0.1001, "fell"), (0.51, "held"), (1.3, "rose")):
        summary = changed(summaries["grpo"], "entropy", ratio=ratio)
        assert verdict(["grpo"], [summary]) == f"Entropy {fate} in grpo"
        assert ("calls collapse" in topic(findings(summary), "Entropy").text) == (fate == "collapsed")


def test_an_interval_that_holds_zero_shows_no_change(summaries: dict[str, RunSummary]) -> None:
    def held_out(low: float, high: float) -> Finding:
        widest = summaries["grpo"].change("test", "pass@32")
        assert widest is not None
        paired = widest.model_copy(update={"difference": Difference(value=(low + high) / 2, low=low, high=high)})
        return topic(findings(summaries["grpo"].model_copy(update={"accuracy": [paired]})), "Held-out problems")

    assert "no change is shown" in held_out(-0.01, 0.05).text
    assert "a gain" in held_out(0.01, 0.05).text
    loss = held_out(-0.05, -0.01)
    assert "a loss" in loss.text and loss.tone == "caution"


def test_the_law_is_shown_beside_its_rival_and_never_beyond_its_ceiling(summaries: dict[str, RunSummary]) -> None:
    law = topic(findings(summaries["grpo"]), "The law")
    forms = summaries["grpo"].law("validation").forms
    assert forms is not None
    assert n.law_formula(forms.law.a, forms.law.b) in law.text
    assert n.fixed(forms.line.r2, 3) in law.text and n.typographic(forms.sentence) in law.text
    impossible = topic(findings(summaries["clip_cov"]), "The law")
    assert impossible.tone == "caution"


def test_forecast_errors_are_printed_whatever_they_are(summaries: dict[str, RunSummary]) -> None:
    for summary in summaries.values():
        text = topic(findings(summary), "Forecast").text
        for forecast in summary.law("validation").forecasts:
            for prediction in (forecast.unconditional, forecast.conditional, forecast.unchanged):
                assert prediction.end_error is not None
                assert n.fixed(100 * abs(prediction.end_error), 1) in text


def test_a_control_that_takes_every_candidate_says_so(summaries: dict[str, RunSummary]) -> None:
    summary = changed(summaries["clip_cov"], "control", took_all_frac=0.62)
    control = topic(findings(summary), "Control")
    assert "62 % of the updates it took every candidate" in control.text and control.tone == "caution"
    none = changed(summaries["clip_cov"], "control", took_all_frac=0.0)
    assert "every candidate" not in topic(findings(none), "Control").text


def test_prediction_is_not_praised_for_the_common_trend(summaries: dict[str, RunSummary]) -> None:
    assert "common trend." in topic(findings(summaries["grpo"]), "Predicted").text
    probe = summaries["grpo"].probe
    assert probe is not None

    def with_correlations(whole: float, bare: float) -> Finding:
        values = {"kept": whole, "removed": bare}
        rows = [a.model_copy(update={"correlation": values[a.trend]}) for a in probe.agreements]
        return topic(findings(changed(summaries["grpo"], "probe", agreements=rows)), "Predicted")

    assert "most of the agreement is the common trend" not in with_correlations(0.9, 0.8).text
    assert "does not predict" in with_correlations(-0.2, 0.0).text
    assert (
        "does not account"
        in topic(
            findings(
                changed(
                    summaries["grpo"],
                    "probe",
                    agreements=[a.model_copy(update={"correlation": 0.9}) for a in probe.agreements],
                )
            ),
            "Explained",
        ).text
    )


def test_one_seed_is_called_one_seed(runs: dict[str, Run], summaries: dict[str, RunSummary], tmp_path: Path) -> None:
    lines = comparison_findings(comparisons(list(runs.values())), list(summaries.values()))
    assert "One seed for each method" in topic(lines, "How far this carries").text
    assert "One seed" in headline(list(runs), list(summaries.values()), comparisons(list(runs.values())))
    other = summarise(read_run(write_run(tmp_path / "other", "grpo", seed=1)))
    more = topic(comparison_findings([], [*summaries.values(), other]), "How far this carries")
    assert "grpo 2" in more.text and "One seed" not in more.text


def test_a_solved_task_is_not_an_argument_for_a_control(summaries: dict[str, RunSummary]) -> None:
    assert "Try Clip-Cov" in topic(findings(summaries["grpo"]), "What next").text
    solved = topic(findings(changed(summaries["grpo"], "thirds", end_accuracy=0.99)), "What next")
    assert "solved" in solved.text and "Try" not in solved.text


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_short_runs_have_something_to_say(tmp_path: Path, steps: int) -> None:
    run = read_run(write_run(tmp_path / "run", stop_after=steps))
    summary = summarise(run)
    found = findings(summary)
    assert found[0].topic == "Not a whole run" and f"{steps} of 160" in found[0].text
    assert headline(["run"], [summary], []) and verdict(["run"], [summary])
