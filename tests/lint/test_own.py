"""covent's own settings inside an engine's config: the table of the linter against the models, and slips of the pen."""

from __future__ import annotations

from typing import get_args

import pytest

from covent.controls import AnyControl
from covent.integrations.settings import CoventConfig
from covent.lint import rules_entropy, trl, verl
from covent.lint.findings import Level
from covent.lint.own import CONTROLS, TRAINER, own_faults
from covent.lint.settings import Settings


def test_the_table_is_that_of_the_models() -> None:
    models = {control.model_fields["type"].default: frozenset(control.model_fields) for control in get_args(AnyControl)}
    assert models == CONTROLS
    fields = getattr(CoventConfig, "model_fields", None) or CoventConfig.__dataclass_fields__
    assert frozenset(fields) == TRAINER


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"c.control.type": "kl_cov", "c.control.kl_cov_rati": 0.2}, "no setting 'kl_cov_rati'"),
        ({"c.control.type": "klcov"}, "no control 'klcov'. Did you mean 'kl_cov'?"),
        ({"c.control.type": "kl_cov", "c.control.clip_cov_lb": 1.0}, "no setting 'clip_cov_lb'"),
        ({"c.scope": "global"}, "no scope 'global'"),
        ({"c.run_foldr": "runs"}, "no setting 'run_foldr'"),
    ],
)
def test_a_slip_is_an_error(given: dict[str, object], said: str) -> None:
    found = list(own_faults(Settings("a test", given), "c.control", section="c", scope="c.scope"))
    assert [said in finding.text for finding in found] == [True]


def test_what_covent_has_is_none() -> None:
    for kind, known in CONTROLS.items():
        values: dict[str, object] = {f"c.control.{name}": 1.0 for name in known}
        values |= {"c.control.type": kind, "c.control.use_adaptive_entropy": False, "c.scope": "rank", "c.seed": 1}
        found = own_faults(Settings("a test", values), "c.control", section="c", scope="c.scope")
        assert [finding.text for finding in found if "use_adaptive_entropy" not in finding.setting] == []


def test_each_control_of_a_list_is_looked_at() -> None:
    controls = [{"type": "kl_cov", "kl_cov_ratio": 2e-3}, {"type": "entropy_bonus", "entropy_coeff": 0.01}]
    found = list(own_faults(Settings("a test", {"c.control": controls}), "c.control"))
    assert [finding.text for finding in found] == ["'c.control' has no setting 'entropy_coeff'."]


@pytest.mark.parametrize(
    ("coef", "levels"), [(0.01, [Level.WARNING]), (0.005, [Level.INFO]), (-0.1, [Level.WARNING]), (0.0001, [])]
)
@pytest.mark.parametrize("engine", ["trl", "verl"])
@pytest.mark.parametrize("is_listed", [False, True])
def test_the_bonus_of_covent_is_judged_like_the_engines(
    engine: str, is_listed: bool, coef: float, levels: list[Level]
) -> None:
    bonus = {"type": "entropy_bonus", "entropy_coef": coef}
    key, module = ("covent.control", trl) if engine == "trl" else (f"{verl.LOSS}.control", verl)
    values = (
        {key: [{"type": "kl_cov"}, bonus]} if is_listed else {f"{key}.{name}": each for name, each in bonus.items()}
    )
    setup = module.setup(Settings("a test", values | {f"{verl.LOSS}.loss_mode": "covent"}), None)
    found = list(rules_entropy.bonus(setup, None))
    assert [finding.level for finding in found] == levels
    assert all(key in finding.setting for finding in found)
    assert setup.control == ("kl_cov" if is_listed else None)


def test_an_adaptive_bonus_of_covent_may_go_too_far() -> None:
    bonus = {"type": "entropy_bonus", "use_adaptive_entropy": True}
    found = list(own_faults(Settings("a test", {"c.control": [{"type": "kl_cov"}, bonus]}), "c.control"))
    assert [(finding.rule, finding.level) for finding in found] == [
        ("entropy-coefficient", Level.WARNING),
        ("entropy-target", Level.INFO),
    ]
    tamed = bonus | {"entropy_coef_max": 0.005}
    assert len(list(own_faults(Settings("a test", {"c.control": [tamed]}), "c.control"))) == 1


@pytest.mark.parametrize(("kind", "is_floored"), [("kl_cov_released", True), ("kl_cov", False)])
def test_the_released_choice_takes_one_token_at_least_in_any_scope(kind: str, is_floored: bool) -> None:
    values = {f"{verl.LOSS}.loss_mode": "covent", f"{verl.LOSS}.control.type": kind, f"{verl.LOSS}.scope": "window"}
    assert verl.setup(Settings("a test", values), None).floor_of_one is is_floored
