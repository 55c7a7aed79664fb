"""What a config asks for, in a few lines: the control, the rollout, one choice, one update, and what was assumed."""

from __future__ import annotations

from typing import Any

from covent.lint.counts import Counts
from covent.lint.settings import Setting
from covent.lint.setup import Setup
from covent.lint.words import percent, tokens


def summary(setup: Setup, counted: Counts | None) -> list[tuple[str, str]]:
    """Topic and text, one pair a line.

    Args:
      setup: as read.
      counted: its counts, where they are known.
    """
    lines = [("engine", setup.label), ("control", _control(setup)), ("rollout", _rollout(setup))]
    if setup.control is not None and counted is None:
        lines.append(
            ("one choice", "not counted: a batch size, a length or the number of GPUs is not known before the run")
        )
    if counted is not None:
        lines += [
            ("one choice", _choice(setup, counted)),
            ("one update", _update(counted)),
            ("assumed", _assumed(setup, counted)),
        ]
    return lines


def _control(setup: Setup) -> str:
    asked = "an unknown share" if setup.share_frac is None else percent(setup.share_frac)
    if setup.band is not None:
        low, high = (_shown(bound) for bound in setup.band)
        return f"Clip-Cov: {asked} of the tokens, drawn at covariances from {low} to {high}, lose their gradient"
    if setup.kl_coef is not None:
        coef = _shown(setup.kl_coef)
        return f"KL-Cov: the {asked} of the tokens of highest covariance get a penalty of {coef} x |log ratio|"
    below, above = (side.value for side in setup.clip)
    known = below is not None and above is not None
    ends = f", PPO clip of the ratio to {max(0.0, 1 - (below or 0)):g} and {1 + (above or 0):g}" if known else ""
    return f"neither Clip-Cov nor KL-Cov; loss {_shown(setup.loss)}{ends}"


def _shown(setting: Setting[Any]) -> str:
    if setting.value is None:
        return "?"
    return f"{setting.value:g}" if isinstance(setting.value, float) else str(setting.value)


def _rollout(setup: Setup) -> str:
    batch = setup.batch
    prompts, size, each = batch.prompts.value, batch.group_size.value, batch.responses_per_update
    if prompts is None or size is None or each is None or batch.updates_per_rollout is None:
        return "not known before the run"
    number = batch.updates_per_rollout
    updates = "1 update" if number == 1 else f"{number} updates"
    asked = "1 prompt" if prompts == 1 else f"{prompts:,} prompts"
    alone = "" if setup.engine != "trl" or batch.ranks.given else " on 1 rank (--ranks says better)"
    return f"{asked} x {size} = {prompts * size:,} responses; {updates} of {each:,} responses{alone}"


def _choice(setup: Setup, counted: Counts) -> str:
    where = {
        "micro-batch": "one micro-batch of one GPU",
        "rank": "one GPU's part of the batch",
        "window": "the whole optimizer batch",
    }[setup.scope]
    return (
        f"among {counted.responses:,.3g} responses, {tokens(counted.tokens)} tokens: {where};"
        f" asks for {tokens(counted.asked)}, takes {counted.taken:,}"
    )


def _update(counted: Counts) -> str:
    choices = "1 choice" if counted.choices == 1 else f"{counted.choices:,} choices"
    return (
        f"{choices}: {counted.choices * counted.taken:,} of {tokens(counted.choices * counted.tokens)} tokens"
        f" ({percent(counted.taken / counted.tokens)}), {tokens(counted.choices * counted.asked)} asked"
    )


def _assumed(setup: Setup, counted: Counts) -> str:
    limit = setup.batch.max_response
    ranks = setup.batch.ranks
    response = f"responses of {counted.assumed.mean_response:,} tokens in the mean"
    if not counted.assumed.told:
        response += f" (an eighth of {limit.key} = {limit.value:,})"
    prompt = f"; prompts of {counted.assumed.mean_prompt:,}" if setup.batch.micro_tokens is not None else ""
    given = "" if ranks.given else " (default)"
    gpus = "" if setup.scope == "window" else f"; {ranks.value} data-parallel ranks{given}"
    return f"{response}{prompt}{gpus}; candidates enough. Say better: --mean-response, --ranks"
