"""How many tokens a control will choose: in one choice, in one optimizer update."""

from __future__ import annotations

import math
from dataclasses import dataclass

from covent.lint.setup import Setup

MEAN_OVER_LIMIT = 8
"""The mean response is taken as the limit over this, unless the user says otherwise. In the paper's runs, limited to
8,192 tokens, it was 470 to 650 at the start and 1,030 to 3,850 at the end (Fig. 11)."""
_SHORT = 64
"""Responses are taken as this long at least, where the limit allows it."""


@dataclass(frozen=True)
class Assumed:
    """What no config says and the counts need."""

    mean_response: int
    """Tokens."""
    mean_prompt: int
    told: bool
    """Whether the user gave the mean response."""


@dataclass(frozen=True)
class Counts:
    """What one choice sees, and what all choices of one optimizer update come to."""

    assumed: Assumed
    choices: int
    """Choices in one update: micro-batches over all ranks, or one."""
    responses: float
    """In one choice, in the mean."""
    tokens: float
    """In one choice: response tokens, in the mean."""
    asked: float
    """Tokens that share × tokens asks of one choice."""
    taken: int
    """Tokens that one choice takes, if there are candidates enough."""

    @property
    def realised(self) -> float:
        """Share taken over share asked."""
        return self.taken / self.asked if self.asked > 0 else math.inf


def assumptions(setup: Setup, mean_response: int | None) -> Assumed | None:
    """The lengths to count with; None where neither the user nor the config says any."""
    limit = setup.batch.max_response.value
    response = mean_response or (None if limit is None else max(limit // MEAN_OVER_LIMIT, min(limit, _SHORT)))
    if response is None:
        return None
    prompt = setup.batch.max_prompt.value
    return Assumed(response, 0 if prompt is None else max(1, prompt // MEAN_OVER_LIMIT), mean_response is not None)


def counts(setup: Setup, assumed: Assumed | None) -> Counts | None:
    """The counts of a setup with a control; None where something that they need is not known.

    Args:
      setup: as read.
      assumed: the lengths; see `assumptions`.
    """
    batch, share = setup.batch, setup.share_frac
    if setup.control is None or share is None or assumed is None or batch.responses_per_update is None:
        return None
    if setup.scope == "window":
        responses, choices = float(batch.responses_per_update), 1
    else:
        ranks = batch.ranks.value
        if ranks is None:
            return None
        on_rank = max(1.0, batch.responses_per_update / ranks)
        pieces = 1 if setup.scope == "rank" else _micro_batches(setup, assumed, on_rank)
        if pieces is None:
            return None
        responses, choices = on_rank / pieces, pieces * ranks
    tokens = responses * assumed.mean_response
    asked = share * tokens
    # A share such as 0.29 of 100 tokens is 28.999… in floating point; the engines truncate it the same way.
    taken = int(min(asked, tokens))
    return Counts(assumed, choices, responses, tokens, asked, max(1, taken) if setup.floor_of_one else taken)


def _micro_batches(setup: Setup, assumed: Assumed, on_rank: float) -> int | None:
    """Micro-batches that one rank makes of its responses."""
    batch = setup.batch
    if batch.micro_tokens is not None:
        if batch.micro_tokens.value is None:
            return None
        tokens = on_rank * (assumed.mean_response + assumed.mean_prompt)
        return min(math.ceil(on_rank), max(1, math.ceil(tokens / batch.micro_tokens.value)))
    if batch.micro_responses is None or batch.micro_responses.value is None:
        return None
    return max(1, math.ceil(on_rank / batch.micro_responses.value))
