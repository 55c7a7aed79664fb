"""Every bad setting ends in one message that says what, where, what is allowed and what to do."""

from pathlib import Path

import pytest

from covent.controls import ClipCov, KLCov
from covent.errors import ConfigError, MissingPathError
from covent.train.config import TrainConfig, config_warnings
from covent.train.config_file import config_yaml, load_config, parse_config

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 10\ncontrol: {type: clip_cov}\n")
    return path


def test_the_clock_recipe_spells_out_the_defaults() -> None:
    assert load_config(RECIPES / "clock.yaml", []) == TrainConfig()


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_loads(recipe: Path) -> None:
    load_config(recipe, [])


def test_overrides_go_on_top_with_their_types(config_file: Path) -> None:
    overrides = ["steps=20", "optimizer.lr=3e-5", "control.clip_cov_ratio=0.01", "warm_start.cache=false", "name=mine"]
    config = load_config(config_file, overrides)
    assert (config.steps, config.optimizer.lr, config.warm_start.cache, config.name) == (20, 3e-5, False, "mine")
    assert config.control == ClipCov(clip_cov_ratio=0.01)


def test_a_file_that_says_nothing_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    for text in ("", "# steps: 3\n", "null\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="holds no setting"):
            load_config(path, [])


def test_a_repeated_key_and_a_deep_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text, words in (("steps: 1\nsteps: 2\n", "'steps' is there twice"), ("[" * 5000, "nested too deeply")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config(path, [])


@pytest.mark.parametrize("name", ["123", "1e5", "true", "2024-01-01"])
def test_quoted_text_is_text(config_file: Path, name: str) -> None:
    assert load_config(config_file, [f'name="{name}"']).name == name


def test_a_wrong_member_does_not_make_a_list_empty(config_file: Path) -> None:
    for member in ("{type: kl_cov, kl_cov_ratio: 5}", "3", "{type: kl_covv}"):
        with pytest.raises(ConfigError) as caught:
            load_config(config_file, [f"control=[{member}]"])
        assert "at least one" not in str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
def test_another_control_does_not_inherit_the_settings_of_the_old_one(order: int) -> None:
    overrides = ["control.type=clip_cov", "control.clip_cov_ratio=0.012"][::order]
    assert load_config(RECIPES / "clock.yaml", overrides).control == ClipCov(clip_cov_ratio=0.012)
    same = load_config(RECIPES / "clock.yaml", ["control.type=ppo_clip", "control.clip_ratio_high=0.28"][::order])
    assert (same.control.clip_ratio_low, same.control.clip_ratio_high) == (0.2, 0.28)


def test_a_tag_may_be_left_out_where_the_default_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_config(path, ["task.preset=hard"]).task.preset == "hard"


def test_settings_survive_the_round_trip_through_yaml(tmp_path: Path) -> None:
    config = parse_config({"seed": 3, "control": {"type": "kl_cov", "kl_cov_ratio": 0.02}}, source="test")
    (tmp_path / "config.yaml").write_text(config_yaml(config))
    assert load_config(tmp_path / "config.yaml", []) == config
    assert config.control == KLCov(kl_cov_ratio=0.02)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stpes=3"], ["'stpes'", "Did you mean 'steps'?"]),
        (["optimizer.lrr=1"], ["'optimizer.lrr'", "Did you mean 'lr'?"]),
        (["control.clip_cov_ratoi=0.1"], ["'control.clip_cov_ratoi'", "Did you mean 'clip_cov_ratio'?"]),
        (["control.kl_cov_ratio=0.1"], ["'control.kl_cov_ratio'", "belongs to control.type = kl_cov"]),
        (["control.clip_cov_ratio=20"], ["'control.clip_cov_ratio' = 20", "not percent", "did you mean 0.2?"]),
        (["control.type=clipcov"], ["'control.type' = 'clipcov'", "Did you mean 'clip_cov'?"]),
        (["control.clip_cov_lb=7"], ["clip_cov_lb (7.0) must be below clip_cov_ub (5.0)"]),
        (["task.name=clok"], ["'task.name' = 'clok'", "Did you mean 'clock'?"]),
        (["task.min_operations=5"], ["min_operations (5) must not be above max_operations (4)"]),
        (["steps=abc"], ["'steps' = 'abc'", "valid integer"]),
        (["steps=0"], ["'steps' = 0", "greater than or equal to 1"]),
        (["optimizer.lr=nan"], ["'optimizer.lr'"]),
        (["optimizer.lr=.inf"], ["'optimizer.lr'", "finite"]),
        (["rollout.group_filter=all"], ["'rollout.group_filter' = 'all'", "'mixed'"]),
        (["model.hidden_size=63"], ["hidden_size (63) must be a multiple of 2 x num_heads (4)"]),
        (["optimizer=3"], ["'optimizer' = 3", "section"]),
        (["steps.more=3"], ["'steps.more'", "single value"]),
        (["steps"], ["'steps' is not an override", "key=value"]),
        (["=3"], ["'=3' is not an override"]),
        (["steps=[1"], ["'steps=[1'", "not valid YAML"]),
        (["steps=yes"], ["'steps' = 'yes'", "valid integer"]),
        (["steps=true"], ["'steps' = true", "must be a number"]),
        (["optimizer.betas=[0.9, true]"], ["'optimizer.betas.1' = true", "must be a number"]),
        (["control=[{type: kl_cov, kl_cov_ratio: true}]"], ["'control.0.kl_cov_ratio' = true", "must be a number"]),
        (["steps=1:30"], ["'steps' = '1:30'", "valid integer"]),
        (["steps=1", "steps=2"], ["'steps' is set 2 times", "Set it once"]),
        (["optimizer.betas=[1.0, 1.0]"], ["'optimizer.betas.0' = 1.0", "less than 1"]),
        (["seed=18446744073709551616"], ["'seed' = 18446744073709551616", "less than 9223372036854775808"]),
        (["optimizer.lr=1e300"], ["'optimizer.lr' = 1e+300", "less than or equal to 10"]),
        (["rollout.temperature=1e-300"], ["'rollout.temperature' = 1e-300", "greater than or equal to 0.001"]),
        (["model.hidden_size=100000000"], ["'model.hidden_size'", "less than or equal to 1048576"]),
        (["threads=1000000"], ["'threads'", "less than or equal to 1024"]),
        (["control=[{type: ppo_clip}, {type: kl_cov}]"], ["'ppo_clip' and 'kl_cov'", "different clips"]),
        (["control=[{type: entropy_bonus}, {type: entropy_bonus}]"], ["each have a entropy bonus"]),
        (["control.type=ppo_clip", "control.clip_ratio_c=3", "loss_mode=cispo"], ["cispo has no dual clip"]),
        (["name=123"], ["'name' = 123", "must be a valid string", """name='"123"'"""]),
        (["name=1e5"], ["'name' = 100000.0", "reads 100000.0 as a number", "quote it"]),
        (["name=true"], ["reads true as a boolean", """name='"true"'"""]),
        (["model.path=2024"], ["'model.path' = 2024", """model.path='"2024"'"""]),
        (["control=[{type: kl_cov, kl_cov_ratio: 5}]"], ["'control.0.kl_cov_ratio' = 5", "did you mean 0.05"]),
        (["control=[]"], ["'control' = []", "must name at least one"]),
        (["stpes=3", "seed=-1"], ["'stpes'", "'seed' = -1"]),
    ],
)
def test_a_bad_setting_is_named_with_what_to_do(config_file: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"steps: [1", "not a YAML file"), (b"- 1\n- 2\n", "'name: value' lines"), (b"\xff\xfe\x00", "not a YAML file")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_config(path, [])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"No config file at .*nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml", [])


def test_what_is_allowed_but_rarely_meant_is_said() -> None:
    percent = parse_config({"control": {"type": "kl_cov", "kl_cov_ratio": 0.2}}, source="test")
    assert "write 0.002" in config_warnings(percent)[0]
    inert = {"control": {"type": "kl_cov"}, "optimizer": {"updates_per_rollout": 1}}
    assert "never acts" in config_warnings(parse_config(inert, source="test"))[0]
    assert config_warnings(TrainConfig()) == []
