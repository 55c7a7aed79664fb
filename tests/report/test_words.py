"""The sentences carry the numbers of the summary, and claim no more than they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from covent.logs.explain import explanation
from covent.logs.phrases import curve_text, typographic
from covent.logs.results import fit_result
from covent.logs.run_folder import folder_series
from covent.report import numbers as n
from covent.report.accuracy import Difference
from covent.report.compare import comparisons
from covent.report.page import page
from covent.report.phases import fate
from covent.report.subject import subjects
from covent.report.summary import RunSummary, summarise
from covent.report.verdicts import answers
from covent.report.words import Finding, comparison_findings, findings, headline, verdict
from covent.store.reader import Run, read_run
from tests.support.synthetic import write_run
from tests.support.tolerances import TIGHT


def topic(found: list[Finding], name: str) -> Finding:
    (finding,) = (finding for finding in found if finding.topic == name)
    return finding


def changed(summary: RunSummary, part: str, **fields: object) -> RunSummary:
    return summary.model_copy(update={part: getattr(summary, part).model_copy(update=fields)})


def test_the_head_of_the_page_and_the_card_have_one_word_for_a_phase(
    runs: dict[str, Run], summaries: dict[str, RunSummary]
) -> None:
    pairs = {
        "Collapsed": "collapsed",
        "Spending": "was still being spent at the end",
        "Spending slowly": "was still being spent slowly at the end",
        "Plateau": "has levelled off",
        "Rising": "rose",
        "Surging": "surged late",
        "Held": "held",
        "Too short to tell": "has too few steps for a phase",
    }
    seen = set()
    base = runs["grpo"]
    for factors in (
        *([1 - x * k / 39 for k in range(40)] for x in (0.95, 0.6, 0.05)),
        [max(0.5, 1 - 0.05 * k) for k in range(40)],
        [1 + 0.01 * k for k in range(40)],
        [1 + 0.001 * k for k in range(40)],
        [1 - 0.04 * k if k < 20 else 0.2 + 0.03 * (k - 20) for k in range(40)],
        [1.0, 0.9, 0.8],
    ):
        steps = [
            row.model_copy(update={"entropy": row.entropy.model_copy(update={"sum": 0.5 * f * row.entropy.count})})
            for row, f in zip(base.steps, factors, strict=False)
        ]
        # Few blocks of a point or two, so that short runs have a law too.
        config = base.header.config | {"evaluation": {"every": 1}}
        header = base.header.model_copy(update={"config": config})
        run = Run(**(vars(base) | {"steps": steps, "header": header, "evaluations": []}))
        (subject,) = subjects([run])
        name = answers(subject)[0].answer
        head = re.search(r"<h1>Entropy (.*?) in grpo</h1>", page([run]))
        assert head is not None and head.group(1) == pairs[name]
        assert f"It {pairs[name]}: " in topic(findings(summarise(run)), "Entropy").text
        assert headline(["grpo"], [summarise(run)], []).endswith(f"it {pairs[name]}.")
        seen.add(name)
    assert seen == set(pairs)


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
    fitted = summaries["grpo"].law("validation").fit
    assert fitted is not None
    assert curve_text(fitted) in law.text
    assert n.fixed(fitted.line_r2, 3) in law.text and typographic(fitted.forms) in law.text
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
    lines = comparison_findings(comparisons(list(runs.values())), list(summaries.values()), list(summaries))
    assert "One seed for each method" in topic(lines, "How far this carries").text
    assert "One seed" in headline(list(runs), list(summaries.values()), comparisons(list(runs.values())))
    other = summarise(read_run(write_run(tmp_path / "other", "grpo", seed=1)))
    more = topic(
        comparison_findings([], [*summaries.values(), other], [*summaries, other.method]), "How far this carries"
    )
    assert "grpo 2" in more.text and "One seed" not in more.text


def test_without_a_comparison_nothing_is_said_of_differences(summaries: dict[str, RunSummary]) -> None:
    twice = [summaries["clip_cov"]] * 2
    assert comparison_findings([], twice, [s.method for s in twice]) == []
    other = summaries["clip_cov"].model_copy(update={"seed": 1})
    three = [*twice, other]
    found = comparison_findings([], three, [s.method for s in three])
    assert [finding.topic for finding in found] == ["How far this carries"]


def test_the_lead_names_the_clear_difference_before_the_others(runs: dict[str, Run]) -> None:
    (found, _) = comparisons(list(runs.values()))
    clear, unclear = Difference(value=0.039, low=0.015, high=0.063), Difference(value=-0.008, low=-0.037, high=0.022)
    comparison = found.model_copy(update={"differences": {"avg@32": unclear, "pass@4": unclear, "pass@32": clear}})
    text = headline([], [], [comparison])
    assert "pass@32 is clearly higher (+3.9 points [+1.5, +6.3])" in text
    assert "avg@32 shows no clear difference (−0.8 points [−3.7, +2.2])" in text
    assert text.index("pass@32") < text.index("avg@32") and "pass@4" not in text
    swapped = found.model_copy(update={"differences": {"avg@32": clear, "pass@32": unclear}})
    assert "pass@32 shows no clear difference" in headline([], [], [swapped])


def test_the_report_and_the_commands_on_logs_speak_with_one_voice(
    runs: dict[str, Run], summaries: dict[str, RunSummary]
) -> None:
    for name, run in runs.items():
        told, summary = explanation(folder_series(run.folder)), summaries[name]
        law = summary.law("validation").fit
        assert law == fit_result(folder_series(run.folder))
        said = {finding.topic: finding.text for finding in told.findings}
        assert topic(findings(summary), "The law").text == said["The law"]
        assert topic(findings(summary), "What next").text == f"{told.advice} Reason: {told.reason}"
        assert summary.entropy is not None and summary.thirds is not None
        assert (summary.entropy.first, summary.entropy.last) == pytest.approx(
            (told.entropy_start, told.entropy_end), rel=TIGHT
        )
        assert n.share(summary.entropy.ratio) in said["Entropy"]
        assert (summary.thirds.start_accuracy, summary.thirds.end_accuracy) == (told.accuracy_start, told.accuracy_end)
    # The control: a rule of its own, such as the mean of the first 5 %, would say another number.
    steps = [row.entropy.value or 0.0 for row in runs["grpo"].steps]
    entropy = summaries["grpo"].entropy
    assert entropy is not None and entropy.first != pytest.approx(sum(steps[:8]) / 8, rel=0.01)


def test_every_warning_of_the_law_is_on_its_card(summaries: dict[str, RunSummary]) -> None:
    law = summaries["clip_cov"].law("validation")
    assert law.fit is not None
    several = law.fit.model_copy(
        update={"identified": False, "verdict": ["Not identified: the first.", "Impossible accuracy: the second."]}
    )
    laws = [law.model_copy(update={"fit": several}), summaries["clip_cov"].law("training")]
    card = topic(findings(summaries["clip_cov"].model_copy(update={"laws": laws})), "The law")
    assert "the first" in card.text and "the second" in card.text and card.tone == "caution"
    assert "a ceiling of" not in card.text and "function of entropy" not in card.text


def test_what_lemma_1_leaves_over_is_explained_where_it_adds_up(summaries: dict[str, RunSummary]) -> None:
    def explained(one_sided: float) -> str:
        return topic(findings(changed(summaries["grpo"], "probe", one_sided_frac=one_sided)), "Explained").text

    assert "second order, and 89 % of it has one sign" in explained(0.89)
    assert "one sign" not in explained(0.6)


def test_fewer_updates_than_planned_have_a_reason(summaries: dict[str, RunSummary]) -> None:
    short = summaries["grpo"].model_copy(update={"num_updates_planned": summaries["grpo"].num_updates + 8})
    assert "few groups of mixed rewards" in topic(findings(short), "Explained").text
    assert "planned" not in topic(findings(summaries["grpo"]), "Explained").text


def test_a_note_of_the_control_is_counted(summaries: dict[str, RunSummary]) -> None:
    noted = changed(summaries["kl_cov"], "control", notes={"On-policy: no gradient.": 160}, num_updates=640)
    assert "in 160 of 640 updates: “On-policy: no gradient.”" in topic(findings(noted), "Control").text


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_short_runs_have_something_to_say(tmp_path: Path, steps: int) -> None:
    run = read_run(write_run(tmp_path / "run", stop_after=steps))
    summary = summarise(run)
    found = findings(summary)
    assert found[0].topic == "Not a whole run" and f"{steps} of 160" in found[0].text
    assert headline(["run"], [summary], [])


def test_all_runs_of_a_method_that_fared_alike_are_named_together() -> None:
    labels, kinds = ["a0", "a1", "b0", "b1", "c"], ["a", "a", "b", "b", "c"]
    gone, going = fate("collapsed", 0.98, 40), fate("spending", 0.6, 40)
    told = verdict(labels, [gone, gone, gone, going, going], kinds)
    assert told == "Entropy collapsed in both runs of a and b0, is being spent in b1 and c"
    assert verdict(labels[:2], [gone, gone]) == "Entropy collapsed in a0 and a1"
    assert verdict([*labels, "a2"], [gone] * 6, [*kinds, "a"]) == (
        "Entropy collapsed in all 3 runs of a, both runs of b and c"
    )
    assert verdict(labels[:1], [None]) == "Nothing measured yet"
