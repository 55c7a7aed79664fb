"""Rules about entropy itself: whether it is logged, as what, and what else pushes it."""

from __future__ import annotations

from collections.abc import Iterator

from covent.lint.counts import Counts
from covent.lint.findings import Finding, Level
from covent.lint.published import EXPLODING_COEF, PAPER, SUSPECT_COEF
from covent.lint.setup import Setup


def bonus(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """An entropy coefficient that drives entropy up, or down."""
    coef = setup.entropy_coef
    if not coef.value:
        return
    key = coef.key
    if coef.value < 0:
        yield Finding(
            Level.WARNING,
            "entropy-coefficient",
            str(coef),
            "Entropy is punished: a negative coefficient speeds its collapse.",
            "The loss is the policy loss minus coefficient times entropy.",
            f"{key}=0",
            f"{PAPER}, section 4.1",
        )
    elif coef.value >= EXPLODING_COEF:
        yield Finding(
            Level.WARNING,
            "entropy-coefficient",
            str(coef),
            f"Entropy is likely to explode: at {EXPLODING_COEF} that of the paper's 7B run rose to some 5 nats.",
            "The bonus does not fade as entropy rises.",
            f"{key}=0 with Clip-Cov or KL-Cov" if setup.control else f"{key}=0, or Clip-Cov or KL-Cov instead",
            f"{PAPER}, Fig. 9",
        )
    elif coef.value >= SUSPECT_COEF:
        yield Finding(
            Level.INFO,
            "entropy-coefficient",
            str(coef),
            "Between what changes little (0.001) and what explodes (0.01): at 0.005 entropy held, accuracy did not"
            " gain.",
            "Measured on one model; yours may differ. verl's examples gave up 0.001 for 0.",
            "",
            f"{PAPER}, Fig. 9; verl pull request 781",
        )


def reference(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """A KL to the reference model beside the control."""
    coef = setup.reference_kl
    if coef is None or not coef.value:
        return
    yield Finding(
        Level.INFO,
        "reference-kl",
        str(coef),
        "A KL to the reference model is on: it holds entropy up as well, and in the paper it cost accuracy.",
        "The paper's runs have none, so results are not comparable with it on.",
        "",
        f"{PAPER}, Fig. 10 (coefficients 0.001 to 0.1) and section 2.2",
    )


def logged(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """Whether entropy is logged, and which."""
    log = setup.entropy
    if log.metric is None:
        yield Finding(
            Level.WARNING,
            "entropy-not-logged",
            "no entropy in the log",
            "Entropy is not logged: collapse will not be seen.",
            f"{log.what[0].upper()}{log.what[1:]}.",
            log.instead,
            log.source,
        )
        return
    yield Finding(
        Level.INFO,
        "entropy-logged",
        log.metric,
        f"Entropy is logged as {log.metric}: {log.what}.",
        "Entropies of different definitions cannot be compared; docs/logs.md has those of other engines.",
        "",
        log.source,
    )


def temperature(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """Sampling at another temperature than 1."""
    found = setup.temperature
    if found.value is None or found.value == 1:
        return
    is_greedy = found.value <= 0
    yield Finding(
        Level.ERROR if is_greedy else Level.INFO,
        "temperature",
        str(found),
        "Every response to a prompt is the same: there is no advantage to learn from."
        if is_greedy
        else f"Responses are sampled at temperature {found.value:g}; log-probs and covariances are of that"
        " distribution.",
        "The paper samples at 1; a lower temperature has a lower entropy by itself.",
        f"{found.key}=1" if is_greedy else "",
        f"{PAPER}, section 4.3",
    )


RULES = (bonus, reference, temperature, logged)
