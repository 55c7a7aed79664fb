"""Rules about a control's own settings: share, band, coefficient, the clip beside it, and updates per rollout."""

from __future__ import annotations

import math
from collections.abc import Iterator

from covent.lint.counts import Counts
from covent.lint.findings import Finding, Level
from covent.lint.published import (
    AUTHORS,
    COMMON_COVARIANCE,
    FORK,
    HIGH_SHARE,
    LOW_PERCENT,
    PAPER,
    PAPER_KL_COEF,
    PERCENT_SHARE,
    SHARES,
    TOP_SHARE_COVARIANCE,
    UNLIKELIEST_NATS,
)
from covent.lint.settings import Setting
from covent.lint.setup import Setup
from covent.lint.words import percent

_NEAR_PAPERS = 10.0
"""Up to so many times the paper's penalty is a choice; beyond it is an accident."""
_CENTRED_LOW = 0.5
"""The paper's lower bound, 1, for advantages that are not divided by a spread of 0.5 at most."""
_SCRIPTS = f"{AUTHORS}, recipe/dapo/*.sh; {PAPER}, section 4.3"


def share(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """Percent where a fraction belongs, a fraction where percent belongs, or simply many tokens."""
    found = setup.share_frac
    if setup.control is None or setup.share is None or found is None:
        return
    low, high = SHARES[setup.control]
    papers = percent(high) if low == high else f"{percent(high)} (7B) and {percent(low)} (32B)"
    unit = "a fraction" if setup.share_unit == 1 else "a percentage"
    level, reason = _judged(found, setup)
    values = " or ".join(dict.fromkeys(f"{each / setup.share_unit:g}" for each in (high, low)))
    yield Finding(
        level=level,
        rule="share",
        setting=str(setup.share),
        text=f"{percent(found)} of the tokens are to be chosen: {setup.share.key} is {unit}. The paper's: {papers}.",
        reason=reason,
        instead=f"{setup.share.key}={values}" if level else "",
        source=f"{_SCRIPTS}; {setup.selection_source}",
    )


def _judged(share_frac: float, setup: Setup) -> tuple[Level, str]:
    """How a share compares with those that are known to work, and why."""
    if share_frac <= 0:
        return Level.ERROR, "A share lies above 0."
    if share_frac > 1:
        return Level.ERROR, "There are no more tokens than all."
    if share_frac >= PERCENT_SHARE:
        return Level.ERROR, (
            "The authors' scripts write k_percent=0.2 and 0.02, which is percent; the same numbers as fractions are 100"
            " times as much."
        )
    if share_frac > HIGH_SHARE:
        return Level.WARNING, "A control of the covariance's tail takes in its ordinary tokens."
    if setup.control == "clip_cov":
        return Level.INFO, "It is a fraction in the authors' code too; their KL-Cov alone has percent."
    if setup.share_unit == 1:
        return Level.INFO, "The same setting of the authors' code, k_percent, is a percentage."
    if setup.share is not None and setup.share.value is not None and setup.share.value < LOW_PERCENT:
        return Level.WARNING, "It looks like a fraction in the place of percent: 100 times too little."
    return Level.INFO, "verl and SkyRL want a fraction: the same number there would be 100 times as much."


def unread_share(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """A share of a control that is off, above all one that would be far too large if it were on."""
    for found in setup.unread_shares:
        if found.value is None:
            continue
        in_percent = found.key.endswith("percent")
        is_large = not in_percent and found.value >= PERCENT_SHARE
        yield Finding(
            Level.WARNING if is_large else Level.INFO,
            "share-unread",
            str(found),
            f"Loss '{setup.loss.value}' does not read it. If it did, it would be"
            f" {percent(found.value / 100 if in_percent else found.value)} of the tokens.",
            f"{found.key} is {'a percentage' if in_percent else 'a fraction'}; the authors' scripts wrote percent.",
            f"leave {found.key} out" if is_large else "",
            _SCRIPTS,
        )


def band(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """Bounds of Clip-Cov that nothing reaches, or everything."""
    if setup.band is None or setup.band[0].value is None or setup.band[1].value is None:
        return
    (lower, upper), low, high = setup.band, setup.band[0].value, setup.band[1].value
    if low >= high:
        yield Finding(
            Level.ERROR,
            "band",
            f"{lower}, {upper}",
            "No token is ever chosen: the band is empty.",
            "Candidates are tokens whose covariance lies between the two.",
            f"{lower.key}=1 {upper.key}=5",
            f"{PAPER}, Eq. 11",
        )
        return
    mean = 1.0 if counted is None else counted.assumed.mean_response
    divisor = setup.advantage.divisor(mean) if counted or setup.advantage.divided_by is None else math.nan
    reach = _largest_advantage(setup) * UNLIKELIEST_NATS
    if low * divisor >= reach:
        yield _out_of_reach(setup, low, divisor, reach)
    elif high * divisor <= COMMON_COVARIANCE:
        yield _all_common(setup, high)
    elif low * divisor < COMMON_COVARIANCE:
        yield Finding(
            Level.WARNING,
            "band",
            str(lower),
            "Ordinary tokens are chosen too: the top 20 % of the tokens have a mean covariance of"
            f" {COMMON_COVARIANCE}.",
            "The tokens are drawn at random inside the band, so the tail that matters is hardly ever drawn.",
            f"{lower.key}=1",
            f"{PAPER}, Table 1 and Eq. 11",
        )
    elif setup.advantage.scale == "centred" and low * divisor > _CENTRED_LOW:
        yield Finding(
            Level.WARNING,
            "band",
            f"{setup.advantage.setting}, {lower}",
            "Few tokens reach the band: these advantages are not divided by the spread of their group, and the"
            " bounds are"
            " meant for ones that are.",
            "With rewards of 0 and 1 that spread is 0.5 at most, so every covariance is half as large or smaller.",
            f"{lower.key}=0.5 {upper.key}=2.5, or advantages divided by their spread",
            f"{PAPER}, Eq. 3 and section 4.3; {FORK} issue 16",
        )


def _largest_advantage(setup: Setup) -> float:
    """The largest advantage that one right answer in a group can have; of an unknown scale, a generous one."""
    size = setup.batch.group_size.value or 8
    if setup.advantage.scale == "centred":
        return 1.0
    return (size - 1) / math.sqrt(size) if setup.advantage.scale == "group_std" and size > 1 else 10.0


def _out_of_reach(setup: Setup, low: float, divisor: float, reach: float) -> Finding:
    assert setup.band is not None
    lower, upper = setup.band
    if divisor == 1:
        return Finding(
            Level.ERROR,
            "band",
            str(lower),
            f"Clip-Cov never acts: no covariance gets as far as {low:g}.",
            f"An advantage of this group size is at most {reach / UNLIKELIEST_NATS:.1f}, and a sampled token"
            " hardly ever"
            f" lies {UNLIKELIEST_NATS:g} nats from the mean. The top 0.02 % have {TOP_SHARE_COVARIANCE} in the mean.",
            f"{lower.key}=1 {upper.key}=5",
            f"{PAPER}, Table 1",
        )
    return Finding(
        Level.ERROR,
        "band",
        f"{setup.advantage.setting}, {lower}",
        f"Clip-Cov never acts: the advantages are divided by about {divisor:,.0f} before the loss, and no"
        " covariance of such"
        f" advantages reaches {low:g}.",
        "The loss reduction is done on the advantages, not on the loss; the bounds are numbers of the undivided ones.",
        f"{lower.key}={low / divisor:.1e} {upper.key}={(setup.band[1].value or 5) / divisor:.1e}; they hold for"
        " every batch"
        " only where the divisor is constant: loss_reduction=seq_mean_token_sum_norm with max_seq_len",
        f"{setup.selection_source}, apply_loss_reduction_to_advantages_minibatch (read, not run)",
    )


def _all_common(setup: Setup, high: float) -> Finding:
    assert setup.band is not None
    return Finding(
        Level.ERROR,
        "band",
        str(setup.band[1]),
        f"Clip-Cov leaves out the tokens that it is made for: all above {high:g} are excluded.",
        f"The top 20 % of the tokens have a mean covariance of {COMMON_COVARIANCE}, the top 0.02 % one of"
        f" {TOP_SHARE_COVARIANCE}.",
        f"{setup.band[1].key}=5",
        f"{PAPER}, Table 1 and Eq. 11",
    )


def clip_beside(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """A PPO clip that stays on beside Clip-Cov, or that KL-Cov does not read."""
    low, high = setup.clip
    if setup.control == "clip_cov":
        on = [side for side in (low, high) if side.value is not None and side.value < 1]
        if on:
            ends = f"{max(0.0, 1 - (low.value or 0)):g} to {1 + (high.value or 0):g}"
            yield Finding(
                Level.WARNING,
                "ppo-clip-on",
                ", ".join(map(str, on)),
                f"The PPO clip stays on beside Clip-Cov (ratios from {ends}): it takes the gradient of far more"
                " tokens than"
                " Clip-Cov does, and those are no candidates for it.",
                "The authors switch it off: both sides at 1, which leaves ratios from 0 to 2 as a guard against"
                " extremes.",
                f"{low.key}=1 {high.key}=1",
                f"{FORK} issue 16; {AUTHORS}, recipe/dapo/7b_clip_cov.sh",
            )
    elif setup.control == "kl_cov" and (low.given or high.given):
        yield Finding(
            Level.INFO,
            "ppo-clip-unread",
            f"{low}, {high}",
            "KL-Cov does not read the PPO clip: no ratio is clipped.",
            "Its loss has neither a clip nor a dual clip, in the paper and in the code.",
            "",
            f"{PAPER}, Eq. 14; {setup.selection_source}",
        )


def kl_coefficient(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """KL-Cov with a weak coefficient, or with one that the advantages' scale has made huge."""
    coef = setup.kl_coef
    if coef is None or coef.value is None:
        return
    if coef.value <= 0:
        yield Finding(
            Level.ERROR,
            "kl-coefficient",
            str(coef),
            "KL-Cov does nothing: its term is multiplied by nothing." if coef.value == 0 else "The term drives away.",
            "The term is this coefficient times |log ratio| of the chosen tokens.",
            f"{coef.key}=1",
            f"{PAPER}, Eq. 14",
        )
    elif setup.advantage.divided_by is not None:
        yield from _undivided_penalty(setup, coef, coef.value, counted)
    elif coef.value < PAPER_KL_COEF:
        yield Finding(
            Level.INFO if coef.given else Level.WARNING,
            "kl-coefficient",
            str(coef),
            f"The penalty is {PAPER_KL_COEF / coef.value:.3g} times weaker than the paper's.",
            "The paper has 1 for both sizes, and in its ablation entropy falls with the coefficient.",
            f"{coef.key}=1",
            f"{PAPER}, section 4.3 and Fig. 12",
        )


def _undivided_penalty(setup: Setup, coef: Setting[float], value: float, counted: Counts | None) -> Iterator[Finding]:
    """A penalty beside advantages that are divided, which it is not."""
    divisor = setup.advantage.divisor(counted.assumed.mean_response) if counted else math.nan
    if value * divisor < _NEAR_PAPERS:
        return
    size = "many thousand" if math.isnan(divisor) else f"about {value * divisor:,.0f}"
    yield Finding(
        Level.ERROR,
        "kl-coefficient",
        f"{setup.advantage.setting}, {coef}",
        f"The penalty weighs {size} times what the paper's does: the advantages are divided by the loss reduction, the"
        " penalty is not, and the loss is summed.",
        "loss = sum of (-advantage / divisor x ratio + coefficient x |log ratio|).",
        "" if math.isnan(divisor) else f"{coef.key}={PAPER_KL_COEF / divisor:.1e}, by the divisor of your batches",
        f"{setup.selection_source}, compute_policy_loss_kl_cov and reduce_loss (read, not run)",
    )


def updates(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """One update per rollout, where every ratio is 1."""
    number = setup.batch.updates_per_rollout
    if number is None or setup.batch.is_stale:
        return
    one = "one update per rollout"
    if setup.control == "kl_cov" and number == 1:
        yield Finding(
            Level.ERROR,
            "on-policy",
            f"{setup.batch.update_keys}: {one}",
            "KL-Cov does nothing: the policy is the one that sampled, so |log ratio| is 0 for every token.",
            "Where the old log-probs come from a forward pass of their own, what is left is rounding noise, whose"
            " sign the"
            " penalty follows.",
            f"several updates per rollout, the paper's 8: change {setup.batch.update_keys}",
            f"{FORK} issue 1; {PAPER}, section 4.3",
        )
    elif setup.control == "kl_cov":
        yield Finding(
            Level.INFO,
            "on-policy",
            f"{setup.batch.update_keys}: {number} updates per rollout",
            f"KL-Cov acts in {number - 1} of {number} updates: in the first the policy is still the one that sampled.",
            "|log ratio| is 0 there.",
            "",
            f"{FORK} issue 1",
        )
    elif number == 1 and setup.control is None and setup.clip_counts and _is_higher(setup):
        yield Finding(
            Level.WARNING,
            "on-policy",
            f"{setup.clip[1]}, {one}",
            "Clip-higher does nothing: every ratio is 1 and no clip is ever reached.",
            "The ratio leaves 1 only when the policy has been updated since it sampled.",
            f"several updates per rollout: change {setup.batch.update_keys}",
            f"{PAPER}, Eq. 4; docs/trl.md",
        )


def _is_higher(setup: Setup) -> bool:
    low, high = setup.clip
    return low.value is not None and high.value is not None and high.value > low.value


RULES = (share, unread_share, band, clip_beside, kl_coefficient, updates)
