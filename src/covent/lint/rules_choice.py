"""Rules about the tokens that a choice is made of: too few of them, from too few responses."""

from __future__ import annotations

from collections.abc import Iterator

from covent.lint.counts import Counts
from covent.lint.findings import Finding, Level
from covent.lint.published import FEW_RESPONSES, FORK
from covent.lint.setup import Setup
from covent.lint.words import percent, times, tokens

_NAMES = {"clip_cov": "Clip-Cov", "kl_cov": "KL-Cov"}


def responses(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """One response in a micro-batch, or few."""
    if counted is None or setup.control is None or setup.scope != "micro-batch":
        return
    setting = str(_micro_setting(setup))
    if counted.responses < 1.5:
        off = "Clip-Cov never acts" if setup.control == "clip_cov" else "KL-Cov acts on arbitrary tokens"
        yield Finding(
            Level.ERROR,
            "one-response",
            setting,
            f"{off}: a micro-batch holds one response.",
            "All tokens of a response have one advantage; centred in their own micro-batch all covariances are 0.",
            f"{_larger(setup)}, or a choice over the whole batch (covent's plans)",
            "docs/selection.md; verl issue 7829",
        )
    elif counted.responses < FEW_RESPONSES:
        yield Finding(
            Level.WARNING,
            "few-responses",
            setting,
            f"Most tokens that {_NAMES[setup.control]} chooses are the wrong ones: {counted.responses:.2g}"
            " responses in a"
            " micro-batch have another mean than the batch.",
            "With 2 responses a choice agrees with that over the whole batch on a third of the tokens, with 8 on 70 %.",
            _larger(setup),
            f"docs/selection.md; {FORK} issue 20",
        )


def floor(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """A share that asks for less than one token of a choice."""
    if counted is None or setup.control is None or setup.share is None or counted.asked <= 0 or counted.responses < 1.5:
        return
    if counted.taken == 0:
        yield Finding(
            Level.WARNING,
            "floor-of-one",
            str(setup.share),
            f"Nothing is chosen: the share asks for {tokens(counted.asked)} of {tokens(counted.tokens)} tokens.",
            "A choice takes whole tokens, rounded down.",
            f"{setup.share.key}={1.05 / counted.tokens / setup.share_unit:.1e} at least, or a larger batch",
            setup.selection_source,
        )
    elif counted.realised >= 2:
        yield Finding(
            Level.WARNING,
            "floor-of-one",
            str(setup.share),
            f"{times(counted.realised)} times as many tokens are chosen as asked,"
            f" {percent(counted.taken / counted.tokens)}"
            f" instead of {percent(setup.share_frac or 0)}: each choice takes one token at least, and the share"
            " asks for"
            f" {tokens(counted.asked)}.",
            f"A choice sees {tokens(counted.tokens)} tokens. The strength is set by the size of the micro-batch.",
            f"{_larger(setup)}, so that one holds {tokens(1 / (setup.share_frac or 1))} tokens",
            f"{setup.selection_source}; docs/selection.md",
        )
    elif setup.floor_of_one and counted.asked < 5:
        yield Finding(
            Level.INFO,
            "floor-of-one",
            str(setup.share),
            f"Rounding sets the share: a choice asks for {tokens(counted.asked)} tokens and takes {counted.taken},"
            " which is"
            f" {percent(counted.taken / counted.tokens)} instead of {percent(setup.share_frac or 0)}.",
            "Each choice takes whole tokens, rounded down, and one at least.",
            "",
            f"{setup.selection_source}; docs/selection.md",
        )


def local(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """That the choice depends on a memory setting."""
    if counted is None or setup.control is None or setup.scope == "window" or counted.responses < FEW_RESPONSES:
        return
    yield Finding(
        Level.INFO,
        "local-choice",
        str(_micro_setting(setup)),
        f"Tokens are chosen {counted.choices:,} times an update, each time among {counted.responses:.3g} responses"
        " of one"
        f" {'GPU' if setup.scope == 'rank' else 'micro-batch'}; the paper writes of the batch. Keep this setting"
        " fixed between"
        " runs that you compare.",
        "Mean, ranking and number are taken there, so the choice depends on a memory setting.",
        "",
        f"{setup.selection_source}; docs/selection.md",
    )


def groups(setup: Setup, counted: Counts | None) -> Iterator[Finding]:
    """One response to a prompt, where advantages need a group."""
    size = setup.batch.group_size
    if size.value == 1 and setup.advantage.scale in ("group_std", "centred"):
        yield Finding(
            Level.ERROR if setup.control else Level.WARNING,
            "group-of-one",
            str(size),
            "Every group is one response: there is nothing to compare it with.",
            "verl then takes the reward itself as advantage; TRL refuses; covent's advantage is 0.",
            f"{size.key}=8",
            "docs/verl.md; arXiv 2505.22617, Eq. 3",
        )


def _micro_setting(setup: Setup) -> object:
    return setup.batch.micro_tokens or setup.batch.micro_responses or setup.batch.ranks


def _larger(setup: Setup) -> str:
    """How to give a choice more responses."""
    batch = setup.batch
    if batch.micro_tokens is not None:
        return f"a larger {batch.micro_tokens.key}"
    key = batch.micro_responses.key if batch.micro_responses is not None else "the micro-batch"
    return f"a larger {key}" if setup.scope == "micro-batch" else "fewer ranks or a larger batch"


RULES = (groups, responses, floor, local)
