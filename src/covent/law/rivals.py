"""The law beside other curves of entropy, so that it is tested and not assumed.

    law             R = b - a·exp(H)           two coefficients
    linear in H     R = top - slope·H          two
    linear in ln H  R = level - slope·ln H     two; has no ceiling, it grows without bound as H falls to 0
    power of H      R = top - scale·H^q        three; q = 1 is linear, q to 0 is the logarithm

All are fitted with the same AR(1) noise, so that their information criteria may be compared.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.law.correlated import Interval, correlated_line
from covent.law.criterion import DECISIVE_AICC, aicc, akaike_weights, bic
from covent.law.family import family_fit, unit_range
from covent.law.line import is_flat, least_squares
from covent.law.series import FloatArray, Points, Unit, checked_points, counted

LEVEL = 0.95

FEWEST_POINTS = 7
"""The power of H has five parameters with those of the noise; its AICc exists from seven points."""

POWERS: FloatArray = np.geomspace(0.1, 10.0, 41)
"""q, in steps of 12 %."""

FormName = Literal["law", "linear in H", "linear in ln H", "power of H"]

SPOKEN: dict[FormName, str] = {
    "law": "the exponential form",
    "linear in H": "a straight line in H",
    "linear in ln H": "a straight line in ln H",
    "power of H": "a power of H",
}
"""Each form as sentences name it."""


class Form(BaseModel):
    """One curve of entropy fitted to the points."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: FormName
    coefficients: dict[str, float]
    """By the names in the formula."""
    ceiling: float | None
    """Its value at zero entropy; None for the logarithm, which has none."""
    ceiling_interval: Interval | None
    """95 %, under AR(1) noise; for the power also over q."""
    rmse: float
    num_coefficients: int
    aicc: float
    bic: float
    weight: float
    """Akaike weight: the share of support among the forms listed."""


class Rivals(BaseModel):
    """The forms, best AICc first."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    forms: list[Form]
    """Empty below 7 points and for flat entropy; without the logarithm and the power where an entropy is 0."""
    unit: Unit
    n: int
    sentence: str
    """What the comparison says, in words."""


def rivals(
    entropy: ArrayLike,
    accuracy: ArrayLike,
    *,
    unit: Unit,
    step: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Rivals:
    """The law and three rivals with their information criteria.

    Args, Raises: as `covent.law.fit.fit`.

    Example:
      >>> h = np.linspace(1.0, 0.1, 12)
      >>> rivals(h, 0.9 - 0.2 * np.exp(h), unit="fraction").forms[0].name
      'law'
    """
    points = checked_points(entropy, accuracy, unit, step, weights)
    h, n = points.entropy, points.entropy.size
    if n < FEWEST_POINTS or is_flat(h):
        reason = counted(n, "point") if n < FEWEST_POINTS else "flat entropy"
        return Rivals(forms=[], unit=unit, n=n, sentence=f"With {reason} no curves can be compared.")
    forms = [
        _line_form("law", points, np.exp(h), ("b", "a"), ceiling_at=1.0),
        _line_form("linear in H", points, h, ("top", "slope"), ceiling_at=0.0),
    ]
    if np.all(h > 0):
        forms.append(_line_form("linear in ln H", points, np.log(h), ("level", "slope"), ceiling_at=None))
        forms.append(_power_form(points))
    shares = akaike_weights([form.aicc for form in forms])
    ranked = sorted(
        (form.model_copy(update={"weight": float(share)}) for form, share in zip(forms, shares, strict=True)),
        key=lambda form: form.aicc,
    )
    return Rivals(forms=ranked, unit=unit, n=n, sentence=_sentence(ranked))


def _line_form(name: FormName, points: Points, x: FloatArray, names: tuple[str, str], ceiling_at: float | None) -> Form:
    line = least_squares(x, points.accuracy, points.weights)
    correlated = correlated_line(x, points.accuracy, gaps=points.gaps, precisions=points.weights)
    return Form(
        name=name,
        coefficients={names[0]: line.intercept, names[1]: -line.slope},
        ceiling=None if ceiling_at is None else line(ceiling_at),
        ceiling_interval=None if ceiling_at is None else correlated.value_interval(ceiling_at, LEVEL),
        rmse=line.rmse,
        num_coefficients=2,
        **_criteria(correlated.fit.log_likelihood, 2, x.size),
    )


def _power_form(points: Points) -> Form:
    columns, shifts, ranges = unit_range(points.entropy ** POWERS[:, None])
    fitted = family_fit(columns, points.accuracy, gaps=points.gaps, precisions=points.weights)
    best = int(np.argmax(fitted.log_likelihoods))
    # In the standardised column, because H to a high power may span less than rounding.
    line = least_squares(columns[best], points.accuracy, points.weights)
    scale = -line.slope / float(ranges[best])
    top = line.intercept + scale * float(shifts[best])
    at_zero = np.stack([np.ones_like(shifts), -shifts / ranges], axis=1)
    return Form(
        name="power of H",
        coefficients={"top": top, "scale": scale, "q": float(POWERS[best])},
        ceiling=top,
        ceiling_interval=fitted.interval(at_zero, LEVEL),
        rmse=line.rmse,
        num_coefficients=3,
        **_criteria(fitted.log_likelihood, 3, points.entropy.size),
    )


def _criteria(log_likelihood: float, num_coefficients: int, n: int) -> dict[str, float]:
    corrected = aicc(log_likelihood, num_coefficients, n)
    assert corrected is not None, "FEWEST_POINTS is chosen so"
    return {"aicc": corrected, "bic": bic(log_likelihood, num_coefficients, n), "weight": 0.0}


def _sentence(ranked: list[Form]) -> str:
    best, clear = ranked[0], f"{DECISIVE_AICC:g}"
    close = [SPOKEN[form.name] for form in ranked[1:] if form.aicc - best.aicc < DECISIVE_AICC]
    law = next(form for form in ranked if form.name == "law")
    if best.name == "law":
        if not close:
            return f"The exponential form is supported: the AICc of every rival is worse by {clear} or more."
        return (
            f"The exponential form fits best, with {' and '.join(close)} close behind (AICc within {clear}): these"
            " points do not tell them apart."
        )
    name, behind = SPOKEN[best.name].replace("a ", "A ", 1), f"{law.aicc - best.aicc:.1f}"
    if law.aicc - best.aicc < DECISIVE_AICC:
        return (
            f"{name} fits best, and the exponential form about as well (its AICc is {behind} worse; {clear} would be"
            " clear): these points do not tell them apart."
        )
    return (
        f"{name} fits clearly better than the exponential form (its AICc is {behind} better; {clear} is clear): the law"
        " does not describe how this run traded entropy for accuracy, and its ceiling should not be relied on."
    )
