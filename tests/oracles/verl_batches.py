"""The committed answers of verl 0.9.1, batch by batch. `verl_oracles.py` makes the file; this reads it.

A test of a loss needs no more than this:

    for batch in verl_batches():
        loss = covent_loss(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, batch.settings, …)
        assert float(loss) == pytest.approx(batch.losses["vanilla"], …)
        assert gradient[batch.mask].tolist() == pytest.approx(batch.gradients["vanilla"].tolist(), …)

`docs/verl.md` says what each loss and estimator of verl computes, and where covent differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

ORACLES = Path(__file__).parent / "verl_0_9_1.safetensors"
NUM_RANDOM = 200
LOSSES = ("vanilla", "clip_cov", "kl_cov", "gspo", "cispo")

# The inputs are integers over these.
_PER = {"logprob": 1024, "old_logprob": 1024, "advantage": 256, "outcome": 64, "token_reward": 64}


@dataclass(frozen=True)
class VerlBatch:
    """One batch that verl answered, as one micro-batch. [B, T] tensors are float64 and NaN where the mask is False."""

    index: int
    """Even: Clip-Cov's settings let it take every candidate. Odd: it drew with torch.manual_seed(index)."""
    mask: Tensor
    """Bool [B, T]: at least one token a response; with holes in every fourth batch."""
    logprobs: Tensor
    old_logprobs: Tensor
    """The same as `logprobs` in every tenth batch."""
    advantages: Tensor
    """Input of the losses: one value a token, unrelated to the rewards."""
    token_rewards: Tensor
    """Input of REINFORCE++."""
    groups: Tensor
    """Int64 [B]: number of each response's group, groups of 1 to 4 in consecutive rows."""
    outcomes: Tensor
    """[B]: input of the other advantage estimators."""
    settings: dict[str, float]
    """verl's names; `discount` is its `gamma`."""
    aggregation: str
    """verl's `loss_agg_mode`; counts are those of this batch, the scale of the norm mode is T."""
    losses: dict[str, float]
    gradients: dict[str, Tensor]
    """Of the loss with respect to the log-prob of each token that counts, row by row."""
    verl_advantages: dict[str, Tensor]
    """One a response; `reinforce_plus_plus` one for each token that counts, row by row."""

    def grouped(self) -> tuple[Tensor, Tensor]:
        """Outcomes as [G, K], K >= 2, NaN where a group has fewer samples, and True where one is present."""
        sizes = self.groups.bincount()
        present = torch.arange(max(2, int(sizes.max()))) < sizes[:, None]
        rewards = torch.full(present.shape, torch.nan, dtype=torch.float64)
        rewards[present] = self.outcomes
        return rewards, present


@cache
def versions() -> dict[str, str]:
    """What the file was made with."""
    with safe_open(ORACLES, "pt") as file:
        return dict(file.metadata())


def verl_batches(path: Path = ORACLES) -> list[VerlBatch]:
    """The random batches of the file; no log-ratio reaches a limit of verl's."""
    return _batches(path)[:NUM_RANDOM]


def far_batches(path: Path = ORACLES) -> list[VerlBatch]:
    """More random batches, whose log-ratios are up to 30 nats."""
    return _batches(path)[NUM_RANDOM:]


@cache
def _batches(path: Path) -> list[VerlBatch]:
    with safe_open(path, "pt") as file:
        columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        aggregations = file.metadata()["aggregations"].split()
    cursor = dict.fromkeys(columns, 0)

    def take(name: str, count: int) -> Tensor:
        cursor[name] += count
        return columns[name][cursor[name] - count : cursor[name]]

    def dense(name: str, mask: Tensor) -> Tensor:
        values = torch.full(mask.shape, torch.nan, dtype=torch.float64)
        values[mask] = take(name, int(mask.sum())).double() / _PER[name]
        return values

    batches = []
    for index, (num, length) in enumerate(zip(columns["num_responses"], columns["length"], strict=True)):
        mask = take("mask", int(num * length)).view(num, length).bool()
        settings = {key[8:]: float(take(key, 1)) for key in columns if key.startswith("setting/")}
        sizes = {"advantage/reinforce_plus_plus": int(mask.sum())}
        estimators = [key for key in columns if key.startswith("advantage/")]
        batches.append(
            VerlBatch(
                index=index,
                mask=mask,
                logprobs=dense("logprob", mask),
                old_logprobs=dense("old_logprob", mask),
                advantages=dense("advantage", mask),
                token_rewards=dense("token_reward", mask),
                groups=take("group", num).long(),
                outcomes=take("outcome", num).double() / _PER["outcome"],
                aggregation=aggregations[int(settings.pop("aggregation"))],
                settings=settings,
                losses={name: float(take(f"loss/{name}", 1)) for name in LOSSES},
                gradients={name: take(f"gradient/{name}", int(mask.sum())) for name in LOSSES},
                verl_advantages={key[10:]: take(key, sizes.get(key, int(num))) for key in estimators},
            )
        )
    assert all(cursor[name] == len(columns[name]) for name in columns if name not in ("num_responses", "length"))
    return batches
