"""Every form of a config says the same; what is no config ends with a message."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from covent.errors import ConfigError, CoventError, MissingPathError
from covent.lint import lint
from covent.lint.settings import Settings

NESTED = {"actor_rollout_ref": {"actor": {"policy_loss": {"loss_mode": "kl_cov", "kl_cov_ratio": 0.2}}}}
WORDS = [
    "actor_rollout_ref.actor.policy_loss.loss_mode=kl_cov",
    "actor_rollout_ref.actor.policy_loss.kl_cov_ratio=0.2",
]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_json_a_script_and_words_are_one_config(tmp_path: Path) -> None:
    paths = [
        written(tmp_path, "a.yaml", json.dumps(NESTED)),
        written(tmp_path, "a.json", json.dumps(NESTED)),
        written(tmp_path, "a.sh", "python -m verl \\\n" + " \\\n".join(WORDS)),
        written(tmp_path, "a.txt", "\n".join(WORDS)),
    ]
    reports = [lint(path) for path in paths] + [lint(None, WORDS)]
    assert len({each.findings for each in reports}) == 1
    assert reports[0].findings[0].rule == "share"
    assert lint(None, [WORDS[0]]).findings != reports[0].findings


def test_a_word_on_top_replaces_what_the_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, "a.yaml", json.dumps(NESTED))
    assert lint(path, ["actor_rollout_ref.actor.policy_loss.kl_cov_ratio=0.002"]).setup.share_frac == 0.002


def test_a_config_beside_it_that_it_builds_on_is_read(tmp_path: Path) -> None:
    loss = "actor_rollout_ref: {actor: {policy_loss: {loss_mode: kl_cov, kl_cov_ratio: %s}}}"
    written(tmp_path, "base.yaml", "defaults: [elsewhere]\n" + loss % 0.2 + "\ndata: {train_batch_size: 64}")
    last = lint(written(tmp_path, "last.yaml", "defaults: [base, _self_]\n" + loss % 0.002))
    implied = lint(written(tmp_path, "implied.yaml", "defaults: [base]\n" + loss % 0.002))
    first = lint(written(tmp_path, "first.yaml", "defaults: [_self_, base]\n" + loss % 0.002))
    assert [each.setup.share_frac for each in (last, implied, first)] == [0.002, 0.002, 0.2]
    assert {each.setup.batch.prompts.value for each in (last, implied, first)} == {64}


def test_what_it_builds_on_and_is_not_there_is_said(tmp_path: Path) -> None:
    """Only files beside it are read, never one in another folder."""
    written(tmp_path, "base.yaml", "defaults: [elsewhere]\ndata: {train_batch_size: 64}")
    (tmp_path / "inner").mkdir()
    text = "defaults: [base, ../base, {actor: dp_actor}, 3]\nactor_rollout_ref: {actor: {ppo_epochs: 1}}"
    report = lint(written(tmp_path / "inner", "a.yaml", text))
    (said,) = [each for each in report.findings if each.rule == "defaults-unread"]
    assert said.setting == "defaults: base, ../base, actor: dp_actor, 3"
    assert report.setup.batch.prompts.value == 1024
    report = lint(written(tmp_path, "a.yaml", text))
    (said,) = [each for each in report.findings if each.rule == "defaults-unread"]
    assert said.setting == "defaults: elsewhere, ../base, actor: dp_actor, 3"
    assert report.setup.batch.prompts.value == 64


def test_configs_that_build_on_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "a.yaml", "defaults: [b]\ndata: {train_batch_size: 64}")
    written(tmp_path, "b.yaml", "defaults: [a]\ndata: {train_batch_size: 64}")
    with pytest.raises(ConfigError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        lint(tmp_path / "a.yaml")


def test_a_config_of_two_engines_is_read_as_that_of_most_settings(tmp_path: Path) -> None:
    """One setting of verl in a config of SkyRL made all of it one of verl, and nothing else was read."""
    algorithm = "trainer: {algorithm: {policy_loss_type: kl_cov, kl_cov: {kl_cov_frac: 0.002}}}"
    report = lint(written(tmp_path, "a.yaml", algorithm + "\nactor_rollout_ref: {rollout: {n: 8}}"))
    assert (report.setup.engine, report.setup.share_frac) == ("skyrl", 0.002)
    (said,) = [each for each in report.findings if each.rule == "two-engines"]
    assert said.setting == "actor_rollout_ref.rollout.n" and "verl has" in said.text
    told = lint(tmp_path / "a.yaml", engine="verl")
    assert told.setup.engine == "verl" and "trainer.algorithm.policy_loss_type" in told.findings[0].setting


def test_a_reference_to_another_setting_is_followed() -> None:
    settings = Settings("s", {"a.b": "${c.d}", "c.d": 4, "e": "${oc.env:HOME}"})
    assert (settings.count("a.b", None).value, settings.count("e", 1).value) == (4, None)


def test_plain_lines_are_a_trl_config(tmp_path: Path) -> None:
    path = written(tmp_path, "grpo.txt", "num_generations=8\nepsilon_high=0.28\n")
    assert lint(path).setup.engine == "trl"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: [1", "not a YAML file"),
        ("a.yaml", "a: 1\na: 2", "there twice"),
        ("a.yaml", "- 1", "holds a list"),
        ("a.yaml", "", "holds no setting"),
        ("a.yaml", "steps: 3", "tells its engine"),
        ("a.json", "{", "not a JSON file"),
        ("a.sh", "echo 'open", "quote is not closed"),
        ("a.yaml", "actor_rollout_ref: {actor: {entropy_coeff: much}}", "'much'; it must be a number"),
        ("a.yaml", "actor_rollout_ref: {actor: {ppo_epochs: 0}}", "at least 1"),
        ("a.yaml", "actor_rollout_ref: {actor: {use_dynamic_bsz: 3}}", "must be true or false"),
    ],
)
def test_what_is_no_config_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lint(written(tmp_path, name, text))


def test_a_few_lines_that_say_exponentially_much_are_refused(tmp_path: Path) -> None:
    doubled = "\n".join(f"v{n + 1}=$v{n}$v{n}" for n in range(60))
    with pytest.raises(ConfigError, match="with its variables put in"):
        lint(written(tmp_path, "a.sh", f"v0=x\n{doubled}\nshow data.train_batch_size=$v60"))
    nested = "\n".join(f"l{n + 1}: &l{n + 1} {{a: *l{n}, b: *l{n}}}" for n in range(40))
    with pytest.raises(ConfigError, match="settings is none"):
        lint(written(tmp_path, "a.yaml", f"l0: &l0 {{a: 1}}\n{nested}"))


def test_other_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="No config file"):
        lint(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="neither a file nor"):
        lint(None, [*WORDS, "kl_cov"])
    with pytest.raises(ConfigError, match="It looks like one of verl"):
        lint(None, WORDS, engine="skyrl")
    (tmp_path / "a.sh").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        lint(tmp_path / "a.sh")


VALUES = st.one_of(
    st.integers(-3, 10**7), st.floats(-1, 10), st.sampled_from(["null", "true", "kl_cov", "${x}", "[1]"])
)
KEYS = st.sampled_from(
    [
        *(f"actor_rollout_ref.actor.{name}" for name in ("ppo_mini_batch_size", "clip_ratio_low", "entropy_coeff")),
        *(f"actor_rollout_ref.actor.policy_loss.{name}" for name in ("loss_mode", "kl_cov_ratio", "clip_cov_lb")),
        *("data.train_batch_size", "data.max_response_length", "trainer.nnodes", "actor_rollout_ref.rollout.n"),
        *("trainer.algorithm.clip_cov.clip_ratio", "trainer.policy_mini_batch_size", "num_generations", "trl.epsilon"),
    ]
)


@hypothesis.given(st.dictionaries(KEYS, VALUES, min_size=1))
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_any_values_end_in_a_report_or_a_message(values: dict[str, object]) -> None:
    words = [f"{key}={value}" for key, value in values.items()]
    try:
        report = lint(None, words)
    except CoventError:
        return
    assert all(finding.text for finding in report.findings)


def test_a_share_from_a_merged_section_counts(tmp_path: Path) -> None:
    text = """
share: &share {kl_cov_ratio: 0.2, ppo_kl_coef: 1}
actor_rollout_ref: {actor: {policy_loss: {<<: *share, loss_mode: kl_cov}}}
"""
    found = lint(written(tmp_path, "a.yaml", text))
    assert found.setup.share_frac == 0.2 and found.findings[0].rule == "share"


@pytest.mark.parametrize("digits", [401, 5001])
@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.sh"])
def test_a_number_of_very_many_digits_is_refused(digits: int, name: str, tmp_path: Path) -> None:
    text = json.dumps(NESTED).replace("0.2", "1" * digits)
    if name == "a.sh":
        text = f"k_percent={'1' * digits}\npython -m verl {WORDS[0]} {WORDS[1].replace('0.2', '1' * digits)}"
    with pytest.raises(ConfigError, match=r"a\.(json|yaml|sh)") as caught:
        lint(written(tmp_path, name, text))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("digits", [401, 5001])
def test_a_variable_of_very_many_digits_is_no_share(digits: int, tmp_path: Path) -> None:
    assert lint(written(tmp_path, "a.sh", f"k_percent={'1' * digits}\npython -m verl {' '.join(WORDS)}")).findings
