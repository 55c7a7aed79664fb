"""Configs that were published, their settings typed again: what the linter finds in each, and that it finds no more.

`data/` has the authors' eight scripts and the one of May 2025, verl-recipe's entropy scripts, SkyRL's examples and
defaults, and the paper's own settings in verl's names. covent's TRL recipes are those of the project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from covent.lint import Level, Report, exit_code, lint
from tests.contract.source import ROOT

DATA = Path(__file__).parent / "data"
SIZES = ("7b", "32b")

Found = dict[str, Level]

PUBLISHED: dict[str, Found] = {
    "dapo_7b_baseline.sh": {},
    "dapo_7b_clip_cov.sh": {},
    "dapo_7b_cliphigher.sh": {"unset-variable": Level.ERROR},
    "dapo_7b_kl_cov.sh": {},
    "dapo_32b_baseline.sh": {},
    "dapo_32b_clip_cov.sh": {},
    "dapo_32b_cliphigher.sh": {},
    "dapo_32b_kl_cov.sh": {},
    "dapo_7b_kl_cov_may_2025.sh": {"on-policy": Level.ERROR},
    "recipe_7b_clip_cov.sh": {"unused-share": Level.WARNING},
    "recipe_32b_clip_cov.sh": {"unused-share": Level.WARNING, "unknown-setting": Level.ERROR},
    "recipe_7b_kl_cov.sh": {},
    "recipe_32b_kl_cov.sh": {"unknown-setting": Level.ERROR},
    "recipe_32b_kl_cov_mininbsz.sh": {},
    "skyrl_clip_cov_defaults.yaml": {
        "band": Level.ERROR,
        "one-response": Level.ERROR,
        "ppo-clip-on": Level.WARNING,
    },
    "skyrl_kl_cov_defaults.yaml": {"share": Level.ERROR, "kl-coefficient": Level.ERROR, "one-response": Level.ERROR},
    "skyrl_run_clip_cov.sh": {"band": Level.ERROR, "ppo-clip-on": Level.WARNING},
    "skyrl_run_kl_cov.sh": {"share": Level.ERROR, "kl-coefficient": Level.ERROR},
    **{f"paper_{size}_{control}.yaml": {} for size in SIZES for control in ("clip_cov", "kl_cov")},
}
"""By file: the rules that warn or worse, and how loud."""


def wrong(report: Report) -> Found:
    return {finding.rule: finding.level for finding in report.findings if finding.level > Level.INFO}


def text_of(name: str, rule: str) -> str:
    (finding,) = [each for each in lint(DATA / name).findings if each.rule == rule]
    return f"{finding.text} {finding.reason} {finding.instead}"


def test_every_file_is_in_the_table() -> None:
    assert {path.name for path in DATA.iterdir()} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_found(name: str) -> None:
    assert wrong(lint(DATA / name)) == PUBLISHED[name]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("control", ["clip_cov", "kl_cov"])
def test_the_papers_own_settings_are_nothing_above_information(size: str, control: str) -> None:
    for path in (DATA / f"paper_{size}_{control}.yaml", ROOT / "recipes" / "trl" / f"{control}_{size}.yaml"):
        report = lint(path)
        assert exit_code(report.findings) == 0, path
        assert report.setup.control == control
        assert report.setup.batch.updates_per_rollout == 8


@pytest.mark.parametrize("place", ["trl", "verl"])
def test_our_own_recipes_are_nothing_above_information(place: str) -> None:
    """Those of verl build on `paper.yaml` beside them, and that is read too."""
    for path in sorted((ROOT / "recipes" / place).glob("*_*b.yaml")):
        report = lint(path)
        assert wrong(report) == {}, path
        assert report.setup.batch.updates_per_rollout == 8
        assert report.setup.batch.max_response.value == 8192
        assert report.setup.scope == "window"
    assert wrong(lint(ROOT / "recipes" / place / "cpu.yaml")) == {}


def test_percent_and_fraction_are_told_apart() -> None:
    """0.2 is 0.2 % to the authors' fork and 20 % to verl and to SkyRL."""
    fork = lint(DATA / "dapo_7b_kl_cov.sh").setup
    verl = lint(DATA / "paper_7b_kl_cov.yaml", ["actor_rollout_ref.actor.policy_loss.kl_cov_ratio=0.2"]).setup
    skyrl = lint(DATA / "skyrl_kl_cov_defaults.yaml").setup
    assert (fork.engine, verl.engine, skyrl.engine) == ("verl-fork", "verl", "skyrl")
    assert [setup.share_frac for setup in (fork, verl, skyrl)] == pytest.approx([0.002, 0.2, 0.2])
    assert "percentage" in text_of("dapo_7b_kl_cov.sh", "share")
    assert "20 % of the tokens" in text_of("skyrl_kl_cov_defaults.yaml", "share")
    assert "20 %" in text_of("recipe_7b_clip_cov.sh", "unused-share")


def test_the_trap_is_told_where_the_authors_scripts_do_not_read_it() -> None:
    for name in ("dapo_7b_baseline.sh", "dapo_32b_clip_cov.sh"):
        assert "k_percent is a percentage" in text_of(name, "share-unread")


def test_the_script_of_may_2025_is_inert_and_that_of_june_is_not() -> None:
    may, june = lint(DATA / "dapo_7b_kl_cov_may_2025.sh"), lint(DATA / "dapo_7b_kl_cov.sh")
    assert may.setup.batch.updates_per_rollout == 1 and june.setup.batch.updates_per_rollout == 8
    assert "KL-Cov does nothing" in text_of("dapo_7b_kl_cov_may_2025.sh", "on-policy")
    assert "acts in 7 of 8 updates" in text_of("dapo_7b_kl_cov.sh", "on-policy")


def test_the_clip_that_stays_on_is_told_with_the_ratios_it_leaves() -> None:
    assert "ratios from 0.8 to 1.2" in text_of("skyrl_run_clip_cov.sh", "ppo-clip-on")
    off = ["trainer.algorithm.eps_clip_low=1", "trainer.algorithm.eps_clip_high=1"]
    assert "ppo-clip-on" not in wrong(lint(DATA / "skyrl_run_clip_cov.sh", off))


def test_the_number_of_tokens_of_the_papers_settings() -> None:
    """By hand: 32 prompts x 8 over 32 GPUs are 8 responses each, 8 x 1,024 tokens; 2e-3 of them are 16."""
    counted = lint(DATA / "paper_7b_kl_cov.yaml").counts
    assert counted is not None
    assert (counted.choices, counted.responses, counted.tokens, counted.taken) == (32, 8, 8192, 16)


def test_skyrls_mending_is_accepted() -> None:
    """With a constant divisor, bounds in its units and the clip off nothing above information is left."""
    algorithm, per = "trainer.algorithm", 1280 * 1024
    words = [
        f"{algorithm}.loss_reduction=seq_mean_token_sum_norm",
        f"{algorithm}.max_seq_len=1024",
        f"{algorithm}.clip_cov.clip_cov_lb={1 / per}",
        f"{algorithm}.clip_cov.clip_cov_ub={5 / per}",
        f"{algorithm}.eps_clip_low=1",
        f"{algorithm}.eps_clip_high=1",
    ]
    assert wrong(lint(DATA / "skyrl_run_clip_cov.sh", words)) == {}
    assert wrong(lint(DATA / "skyrl_run_clip_cov.sh", words[:2] + words[4:])) == {"band": Level.ERROR}


@pytest.mark.parametrize(
    ("words", "choices", "taken"),
    [
        (["loss_mode=covent_kl_cov"], 1, 524),
        (["loss_mode=covent_kl_cov", "scope=micro"], 32, 16),
        (["loss_mode=covent", "control={type: kl_cov, kl_cov_ratio: 0.002}"], 1, 524),
        (["loss_mode=kl_cov"], 32, 16),
    ],
)
def test_covents_own_losses_in_verl_choose_over_the_batch(words: list[str], choices: int, taken: int) -> None:
    """By hand: 256 responses of 1,024 tokens at 2e-3 are 524; 8 of them 16."""
    loss = "actor_rollout_ref.actor.policy_loss"
    own = [f"{loss}._target_=covent.integrations.verl.CoventPolicyLossConfig", *(f"{loss}.{word}" for word in words)]
    report = lint(DATA / "paper_7b_kl_cov.yaml", own)
    assert report.counts is not None and wrong(report) == {}
    assert (report.counts.choices, report.counts.taken) == (choices, taken)
