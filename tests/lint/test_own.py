"""covent's own settings inside an engine's config: the table of the linter against the models, and slips of the pen."""

from __future__ import annotations

from typing import get_args

import pytest

from covent.controls import AnyControl
from covent.integrations.settings import CoventConfig
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
        values = {f"c.control.{name}": 1.0 for name in known} | {"c.control.type": kind, "c.scope": "rank", "c.seed": 1}
        assert list(own_faults(Settings("a test", values), "c.control", section="c", scope="c.scope")) == []
