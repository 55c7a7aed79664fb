"""The columns of token dumps, and the names that engines give them."""

from __future__ import annotations

from collections.abc import Mapping

NAMES = {
    "logprob": (
        "trainer_logprobs",
        "log_probs",
        "logprobs",
        "logprob",
        "log_prob",
        "token_logprobs",
        # Alone, the log-probability of the policy that sampled is the one there is.
        "old_log_probs",
        "old_logprobs",
        "old_logprob",
        "rollout_log_probs",
    ),
    "old_logprob": ("inference_logprobs", "rollout_log_probs", "old_log_probs", "old_logprobs", "old_logprob"),
    "advantage": ("advantages", "advantage"),
    "mask": ("loss_mask", "loss_masks", "new_response_mask", "response_mask", "mask"),
    "entropy": ("entropy", "entropies", "old_log_probs2_entropy"),
    "reward": ("reward", "rewards", "raw_reward", "score"),
    "group": ("group", "group_id", "prompt_id", "problem_id", "prompt"),
    "token": ("response_tokens", "token_ids", "tokens", "token"),
    "step": ("export_step", "step", "rollout_id"),
    "sequence": ("sequence", "sequence_id", "response_id", "sample_id", "sample_index"),
    "position": ("position", "token_position", "token_index"),
}
"""Column → the names it goes by, the first of equals wins: prime-rl, slime, ROLL, covent, and plain words."""


def column(row: Mapping[str, object], which: str) -> object:
    """The value of a column under whichever of its names the line has; None where it has none."""
    name = column_name(row, which)
    return None if name is None else row[name]


def column_name(row: Mapping[str, object], which: str) -> str | None:
    """The first name of a column that the line has a value for."""
    return next((name for name in NAMES[which] if row.get(name) is not None), None)
