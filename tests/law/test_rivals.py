"""Each form wins on points of its own making, and only there; its numbers are those of least squares."""

import numpy as np
import pytest

from covent.law import fit, fit_line, rivals
from covent.law.rivals import SPOKEN, Form, FormName, _sentence
from tests.support.tolerances import CENTRED, TIGHT

FALLING = np.geomspace(1.2, 0.03, 60)

TRUTHS = {
    "law": 0.7 - 0.15 * np.exp(FALLING),
    "linear in H": 0.5 - 0.3 * FALLING,
    "linear in ln H": 0.2 - 0.08 * np.log(FALLING),
    "power of H": 0.6 - 0.3 * FALLING**3.0,
}


def noise(scale: float = 0.002) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, FALLING.size)


@pytest.mark.parametrize("name", TRUTHS)
def test_the_true_form_is_not_beaten(name: str) -> None:
    found = rivals(FALLING, TRUTHS[name] + noise(), unit="fraction")
    by_name = {form.name: form for form in found.forms}
    assert by_name[name].aicc - found.forms[0].aicc < 4
    others = [form.aicc for form in found.forms if form.name not in (name, "power of H")]
    assert min(others) - by_name[name].aicc >= 4
    assert sum(form.weight for form in found.forms) == pytest.approx(1.0, abs=TIGHT)
    assert ("exponential form fits best" in found.sentence or "is supported" in found.sentence) == (name == "law")


def test_without_signal_nothing_is_decided() -> None:
    narrow = np.linspace(0.101, 0.1, 30)
    found = rivals(narrow, 0.3 + np.random.default_rng(1).normal(0, 0.01, 30), unit="fraction")
    assert max(form.aicc for form in found.forms if form.num_coefficients == 2) - found.forms[0].aicc < 4


def test_numbers_are_those_of_the_single_fits() -> None:
    observed = TRUTHS["law"] + noise(0.01)
    by_name = {form.name: form for form in rivals(FALLING, observed, unit="fraction").forms}
    law, line = fit(FALLING, observed, unit="fraction"), fit_line(FALLING, observed, unit="fraction")
    assert by_name["law"].coefficients == {"a": law.a, "b": law.b}
    assert (by_name["law"].aicc, by_name["law"].ceiling_interval) == (law.aicc, law.ceiling_interval)
    assert (by_name["linear in H"].aicc, by_name["linear in H"].ceiling) == (line.aicc, line.intercept)
    power = by_name["power of H"].coefficients
    predicted = power["top"] - power["scale"] * FALLING ** power["q"]
    assert by_name["power of H"].rmse == pytest.approx(np.sqrt(np.mean((predicted - observed) ** 2)), abs=CENTRED)
    assert by_name["linear in ln H"].ceiling is None


def test_what_cannot_be_compared() -> None:
    assert rivals(FALLING[:6], TRUTHS["law"][:6], unit="fraction").forms == []
    assert "flat entropy" in rivals([0.2] * 9, [0.3] * 9, unit="fraction").sentence
    with_zero = np.append(FALLING, 0.0)
    found = rivals(with_zero, 0.7 - 0.15 * np.exp(with_zero), unit="fraction")
    assert {form.name for form in found.forms} == {"law", "linear in H"}


def test_small_entropies_to_high_powers_are_fitted() -> None:
    small = np.geomspace(0.03, 0.005, 30)
    found = rivals(small, 0.6 - 0.4 * (small / 0.03) ** 8, unit="fraction")
    power = next(form for form in found.forms if form.name == "power of H")
    assert power.coefficients["q"] == pytest.approx(8.0, rel=0.06)
    assert power.ceiling == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("name", list(SPOKEN))
def test_the_comparison_is_a_sentence_that_says_what_its_numbers_mean(name: FormName) -> None:
    forms = [
        Form(
            name=each,
            coefficients={},
            ceiling=None,
            ceiling_interval=None,
            rmse=0.0,
            num_coefficients=2,
            aicc=0.0 if each == name else 9.5,
            bic=0.0,
            weight=0.0,
        )
        for each in SPOKEN
    ]
    sentence = _sentence(sorted(forms, key=lambda form: form.aicc))
    assert sentence[0].isupper()
    assert ("4 is clear" in sentence and "9.5 better" in sentence) == (name != "law")
    assert "function of entropy" not in sentence, "a comparison of curves of H cannot show that R is one"
