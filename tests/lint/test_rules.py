"""Each rule: a config on which it speaks, and a near neighbour on which it does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from covent.lint import Level, lint
from covent.lint.shell import parsed
from tests.contract.source import ROOT

DATA = Path(__file__).parent / "data"
KL, CLIP = DATA / "paper_7b_kl_cov.yaml", DATA / "paper_7b_clip_cov.yaml"
SKYRL_KL, SKYRL_CLIP = DATA / "skyrl_run_kl_cov.sh", DATA / "skyrl_run_clip_cov.sh"
FORK = DATA / "dapo_7b_kl_cov.sh"
ACTOR, LOSS = "actor_rollout_ref.actor", "actor_rollout_ref.actor.policy_loss"
ALGORITHM = "trainer.algorithm"
PACK = f"{ACTOR}.ppo_max_token_len_per_gpu"
BONUS = f"{ACTOR}.entropy_coeff"
TEMPERATURE = "actor_rollout_ref.rollout.temperature"
ADAPTIVE = ["num_generations=8", "num_iterations=2", "use_adaptive_entropy=true"]
TRL = ["num_generations=8", "num_iterations=2"]
CPU = ROOT / "recipes" / "trl" / "cpu.yaml"

Case = tuple[str, Level, Path | None, list[str], list[str]]

INFO, WARNING, ERROR = Level.INFO, Level.WARNING, Level.ERROR
CASES: list[Case] = [
    # rule, level, file, words on which it speaks so loud, words of the neighbour
    ("share", ERROR, KL, [f"{LOSS}.kl_cov_ratio=0.02"], [f"{LOSS}.kl_cov_ratio=0.019"]),
    ("share", ERROR, KL, [f"{LOSS}.kl_cov_ratio=1.5"], [f"{LOSS}.kl_cov_ratio=0.0015"]),
    ("share", ERROR, KL, [f"{LOSS}.kl_cov_ratio=0"], [f"{LOSS}.kl_cov_ratio=0.0001"]),
    ("share", WARNING, CLIP, [f"{LOSS}.clip_cov_ratio=0.011"], [f"{LOSS}.clip_cov_ratio=0.01"]),
    ("share", WARNING, FORK, [f"{ACTOR}.k_percent=0.002"], [f"{ACTOR}.k_percent=0.02"]),
    ("share-unread", WARNING, CLIP, [f"{LOSS}.kl_cov_ratio=0.2"], [f"{LOSS}.kl_cov_ratio=0.002"]),
    ("share-unread", INFO, CLIP, [f"{LOSS}.kl_cov_ratio=0.002"], []),
    ("band", ERROR, CLIP, [f"{LOSS}.clip_cov_lb=5"], [f"{LOSS}.clip_cov_lb=4.9"]),
    ("band", ERROR, CLIP, [f"{LOSS}.clip_cov_lb=40", f"{LOSS}.clip_cov_ub=50"], [f"{LOSS}.clip_cov_ub=50"]),
    ("band", ERROR, CLIP, [f"{LOSS}.clip_cov_lb=0.1", f"{LOSS}.clip_cov_ub=0.3"], [f"{LOSS}.clip_cov_ub=3"]),
    ("band", WARNING, CLIP, [f"{LOSS}.clip_cov_lb=0.3"], [f"{LOSS}.clip_cov_lb=0.4"]),
    ("band", WARNING, CLIP, ["algorithm.norm_adv_by_std_in_grpo=False"], ["algorithm.norm_adv_by_std_in_grpo=True"]),
    ("band", WARNING, CLIP, ["algorithm.adv_estimator=rloo"], ["algorithm.adv_estimator=reinforce_plus_plus"]),
    ("band", ERROR, SKYRL_CLIP, [f"{ALGORITHM}.loss_reduction=sequence_mean"],
     [f"{ALGORITHM}.clip_cov.clip_cov_lb=6e-6"]),
    ("ppo-clip-on", WARNING, CLIP, [f"{ACTOR}.clip_ratio_high=0.28"], [f"{ACTOR}.clip_ratio_high=1"]),
    ("ppo-clip-unread", INFO, KL, [f"{ACTOR}.clip_ratio_low=0.2"], []),
    ("clip-unread", WARNING, KL, [f"{ACTOR}.clip_ratio=0.4"], [f"{ACTOR}.clip_ratio=0.2"]),
    ("kl-coefficient", INFO, KL, [f"{LOSS}.ppo_kl_coef=0.1"], [f"{LOSS}.ppo_kl_coef=1"]),
    ("kl-coefficient", ERROR, KL, [f"{LOSS}.ppo_kl_coef=0"], [f"{LOSS}.ppo_kl_coef=0.01"]),
    ("kl-coefficient", ERROR, SKYRL_KL, [], [f"{ALGORITHM}.kl_cov.ppo_kl_coef=6.1e-6"]),
    ("on-policy", ERROR, KL, [f"{ACTOR}.ppo_mini_batch_size=256"], [f"{ACTOR}.ppo_mini_batch_size=255"]),
    ("on-policy", INFO, KL, [f"{ACTOR}.ppo_mini_batch_size=256", f"{ACTOR}.ppo_epochs=2"], [f"{LOSS}.loss_mode=gspo"]),
    ("on-policy", WARNING, None, ["num_generations=8", "epsilon_high=0.28"], [*TRL, "epsilon_high=0.28"]),
    ("one-response", ERROR, CLIP, [f"{PACK}=1300"], [f"{PACK}=2700"]),
    ("one-response", ERROR, SKYRL_KL, ["trainer.micro_train_batch_size_per_gpu=1"], []),
    ("few-responses", WARNING, CLIP, [f"{PACK}=2700"], [f"{PACK}=5300"]),
    ("floor-of-one", WARNING, KL, [f"{LOSS}.kl_cov_ratio=5e-5"], [f"{LOSS}.kl_cov_ratio=1e-4"]),
    ("floor-of-one", WARNING, CPU, ["covent.control.clip_cov_ratio=0.005"], ["covent.control.clip_cov_ratio=0.01"]),
    ("floor-of-one", INFO, KL, [f"{LOSS}.kl_cov_ratio=2e-4"], [f"{LOSS}.kl_cov_ratio=2e-3"]),
    ("local-choice", INFO, KL, [], [f"{PACK}=1300"]),
    ("local-choice", INFO, CPU, ["covent.scope=micro"], []),
    ("group-of-one", ERROR, KL, ["actor_rollout_ref.rollout.n=1"], ["actor_rollout_ref.rollout.n=2"]),
    ("group-of-one", WARNING, KL, ["actor_rollout_ref.rollout.n=1", f"{LOSS}.loss_mode=vanilla"],
     [f"{LOSS}.loss_mode=vanilla"]),
    ("entropy-coefficient", WARNING, KL, [f"{BONUS}=0.01"], [f"{BONUS}=0.009"]),
    ("entropy-coefficient", WARNING, KL, [f"{BONUS}=-0.001"], [f"{BONUS}=0"]),
    ("entropy-coefficient", INFO, KL, [f"{BONUS}=0.001"], [f"{BONUS}=0.0009"]),
    ("entropy-coefficient", WARNING, SKYRL_KL, [f"{ALGORITHM}.use_entropy_loss=true"],
     [f"{ALGORITHM}.entropy_loss_coef=0.01"]),
    ("entropy-coefficient", WARNING, None, ADAPTIVE, [*ADAPTIVE, "entropy_coef_max=0.005"]),
    ("entropy-target", WARNING, None, [*ADAPTIVE, "entropy_target=2"], [*TRL, "entropy_target=2"]),
    ("entropy-target", INFO, None, ADAPTIVE, TRL),
    ("top-entropy-share", WARNING, None, [*TRL, "top_entropy_quantile=0.8"], [*TRL, "top_entropy_quantile=0.2"]),
    ("top-entropy-share", INFO, None, [*TRL, "top_entropy_quantile=0.2"], [*TRL, "top_entropy_quantile=1.0"]),
    ("reference-kl", INFO, KL, [f"{ACTOR}.use_kl_loss=true"], [f"{ACTOR}.kl_loss_coef=0.001"]),
    ("reference-kl", INFO, SKYRL_KL, [], [f"{ALGORITHM}.use_kl_loss=false"]),
    ("entropy-not-logged", WARNING, KL, ["algorithm.rollout_correction.bypass_mode=true"],
     ["algorithm.rollout_correction.bypass_mode=true", f"{ACTOR}.calculate_entropy=true"]),
    ("entropy-logged", INFO, KL, [], ["algorithm.rollout_correction.bypass_mode=true"]),
    ("loss-replaced", ERROR, KL, ["algorithm.rollout_correction.bypass_mode=true", "trainer.use_v1=false"],
     ["algorithm.rollout_correction.bypass_mode=true"]),
    ("liger", WARNING, None, [*TRL, "use_liger_kernel=true"], TRL),
    ("temperature", INFO, KL, [f"{TEMPERATURE}=0.7"], [f"{TEMPERATURE}=1"]),
    ("temperature", ERROR, KL, [f"{TEMPERATURE}=0"], [f"{TEMPERATURE}=0.1"]),
    ("unknown-loss", ERROR, KL, [f"{LOSS}.loss_mode=kl-cov"], [f"{LOSS}.loss_mode=kl_cov"]),
    ("unknown-loss", WARNING, KL, [f"{LOSS}.loss_mode=gvpo"],
     [f"{LOSS}.loss_mode=gvpo", "actor_rollout_ref.model.external_lib=mine"]),
    ("unknown-loss", WARNING, SKYRL_KL, [f"{ALGORITHM}.policy_loss_type=klcov"],
     [f"{ALGORITHM}.policy_loss_type=cispo"]),
    ("refused-together", ERROR, SKYRL_KL, [f"{ALGORITHM}.off_policy_correction.tis_ratio_type=token"],
     [f"{ALGORITHM}.off_policy_correction.tis_ratio_type=null"]),
    ("unknown-setting", ERROR, KL, [f"{ACTOR}.entropy_coef=0.001"], [f"{BONUS}=0.0001"]),
    ("unknown-setting", ERROR, KL, [f"{LOSS}.scope=window"],
     [f"{LOSS}.scope=window", f"{LOSS}._target_=mine.PolicyLoss"]),
    ("two-engines", ERROR, SKYRL_KL, [f"{ACTOR}.ppo_epochs=2"], []),
    ("two-engines", ERROR, KL, [f"{ALGORITHM}.kl_cov.kl_cov_frac=0.2", "trl.epsilon=0.2"], []),
    ("unset-variable", ERROR, DATA / "dapo_7b_cliphigher.sh", [], [f"{ACTOR}.k_percent=0.2", f"{ACTOR}.ppo_kl_coef=1"]),
]  # fmt: skip


def levels(path: Path | None, words: list[str]) -> dict[str, Level]:
    """The loudest level of each rule that speaks."""
    found: dict[str, Level] = {}
    for finding in lint(path, words).findings:
        found[finding.rule] = max(finding.level, found.get(finding.rule, Level.INFO))
    return found


@pytest.mark.parametrize(
    ("rule", "level", "path", "words", "neighbour"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_a_rule_speaks_and_its_neighbour_does_not(
    rule: str, level: Level, path: Path | None, words: list[str], neighbour: list[str]
) -> None:
    assert levels(path, words).get(rule) == level
    beside = levels(path, neighbour).get(rule)
    assert beside is None or beside < level


def test_every_rule_has_a_case_and_a_line_in_the_documentation() -> None:
    documented = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
    tested = {case[0] for case in CASES} | {"unused-share", "defaults-unread"}  # in test_published.py, test_read.py
    spoken = {finding.rule for path in DATA.iterdir() for finding in lint(path).findings}
    assert spoken <= tested
    assert [rule for rule in sorted(tested) if f"`{rule}`" not in documented] == []


def test_every_finding_has_a_reason_and_a_source_and_what_is_wrong_a_remedy() -> None:
    for _, _, path, words, _ in CASES:
        for finding in lint(path, words).findings:
            assert finding.text and finding.reason and finding.source and finding.setting, finding
            assert finding.instead or finding.level == Level.INFO, finding


def test_the_remedy_of_each_wrong_setting_is_itself_accepted() -> None:
    """Where a remedy is `key=value` words, linting with them silences the rule."""
    tried = 0
    for rule, level, path, words, _ in CASES:
        (finding, *_rest) = [each for each in lint(path, words).findings if each.rule == rule]
        remedy = re.findall(r"[a-z][\w.]*=[\w.-]+(?=[ ,;]|$)", finding.instead.split(" or ")[0])
        if level == Level.INFO or not remedy:
            continue
        mended = [word for word in words if word.split("=")[0] not in {each.split("=")[0] for each in remedy}]
        after = levels(path, [*mended, *remedy]).get(rule)
        assert after is None or after < level, (rule, remedy)
        tried += 1
    assert tried >= 15


@pytest.mark.parametrize(
    "control",
    [
        "[{type:kl_cov,kl_cov_ratio:0.2}]",
        "[{type: reference_kl}, {type: kl_cov, kl_cov_ratio: 0.2}]",
        "[{type:reference_kl},{type:kl_cov,kl_cov_ratio:0.2}]",
        "{type:kl_cov,kl_cov_ratio:0.2}",
        "{type: kl_cov, kl_cov_ratio: 0.2}",
        '{"type":"kl_cov","kl_cov_ratio":0.2}',
    ],
)
def test_verl_has_the_control_of_covent_in_any_form(control: str, tmp_path: Path) -> None:
    words = [f"{LOSS}.loss_mode=covent", f"{LOSS}.control={control}"]
    script = tmp_path / "run.sh"
    script.write_text(f"python -m verl {words[0]} '{words[1]}'\n", encoding="utf-8")
    for report in (lint(KL, words), lint(script)):
        assert (report.setup.control, report.setup.share_frac) == ("kl_cov", 0.2)
        assert ("share", ERROR) in {(each.rule, each.level) for each in report.findings}


def test_a_list_of_controls_in_yaml_and_a_section_on_top(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    many = "[{type: ppo_clip}, {type: kl_cov, kl_cov_ratio: 0.2}]"
    nested = f"policy_loss: {{loss_mode: covent, control: {many}}}"
    path.write_text(f"actor_rollout_ref: {{actor: {{{nested}}}}}\n", encoding="utf-8")
    assert lint(path).setup.share_frac == 0.2
    assert lint(path, [f"{LOSS}.control={{type:clip_cov,clip_cov_ratio:0.3}}"]).setup.share_frac == 0.3


def test_a_colon_that_ends_no_key_stays() -> None:
    found = {"[a:b,http://c]": ["a:b", "http://c"], "{a:http://c,b:[d:e]}": {"a": "http://c", "b": ["d:e"]}}
    assert {text: parsed(text) for text in found} == found
    assert parsed("{'a:b':'c,d:e'}") == {"a:b": "c,d:e"}


def test_a_control_of_covent_in_verl_has_a_range_of_its_own() -> None:
    words = [f"{LOSS}.loss_mode=covent", f"{LOSS}.control.type=clip_cov", f"{ACTOR}.clip_ratio_high=0.28"]
    assert "ppo-clip-on" not in {each.rule for each in lint(CLIP, words).findings}
    own = lint(CLIP, [*words, f"{LOSS}.control.clip_ratio_high=0.28"])
    assert [each.setting for each in own.findings if each.rule == "ppo-clip-on"] == [
        f"{LOSS}.control.clip_ratio_high = 0.28"
    ]
