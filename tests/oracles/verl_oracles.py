"""What verl 0.9.1 answers on 200 random batches: its advantages, and its losses with their gradients.

Twenty more follow whose log-ratios are up to 30 nats, beyond the limits at which some of its losses hold them.

verl lives in an environment of its own, and only this file needs it:

    python -m venv verlenv
    verlenv/bin/pip install torch==2.13.0              # your platform's CPU build is enough
    verlenv/bin/pip install -r tests/oracles/requirements-verl.txt
    verlenv/bin/pip install --no-deps verl==0.9.1
    verlenv/bin/python tests/oracles/verl_oracles.py tests/oracles/verl_0_9_1.safetensors

Inputs are small integers over a power of two, so they are exact in every float type and take little room; outputs are
float64. `tests/oracles/verl_batches.py` reads the file and says what each column is.
"""

from __future__ import annotations

import platform
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.workers.config.actor import ActorConfig, PolicyLossConfig

NUM_BATCHES = 200
NUM_FAR = 20
SEED = 20250528
AGGREGATIONS = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm", "token-sum"]
LOSSES = ["vanilla", "clip_cov", "kl_cov", "gspo", "cispo"]
PER_LOGPROB, PER_ADVANTAGE, PER_REWARD = 1024, 256, 64

Columns = dict[str, NDArray[np.generic]]
Estimator = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def inputs(index: int, rng: np.random.Generator) -> Columns:
    """One batch: ragged groups of 1 to 4 responses, ragged responses, holes in every fourth batch."""
    sizes = rng.integers(1, 5, size=rng.integers(2, 4))
    num, length = int(sizes.sum()), int(rng.integers(2, 6))
    mask = np.arange(length) < rng.integers(1, length + 1, size=num)[:, None]
    if index % 4 == 3:
        mask &= rng.random(mask.shape) < 0.8
        mask[:, 0] |= ~mask.any(axis=1)
    logprob = -np.round(rng.exponential(1.0, mask.shape) * PER_LOGPROB)
    drift = np.round(rng.normal(0, 0.4, mask.shape) * PER_LOGPROB) * (index % 10 != 0)
    if index >= NUM_BATCHES:
        logprob, old = -np.round(rng.uniform(0, 30, (2, *mask.shape)) * PER_LOGPROB)
        drift = old - logprob
    outcome = rng.integers(0, 2, num) * PER_REWARD if index % 2 else rng.integers(-64, 65, num)
    return {
        "group": np.repeat(np.arange(len(sizes)), sizes),
        "outcome": outcome,
        "mask": mask,
        "logprob": np.clip(logprob, -30000, 0),
        "old_logprob": np.clip(logprob + drift, -32000, 0),
        "advantage": np.round(rng.normal(0, 1, mask.shape) * PER_ADVANTAGE),
        "token_reward": rng.integers(-32, 33, mask.shape),
    }


def settings(index: int, rng: np.random.Generator) -> dict[str, float]:
    """One batch's settings. Every second batch lets Clip-Cov take all candidates, so that no chance is in it."""
    return {
        "aggregation": index % len(AGGREGATIONS),
        "clip_ratio_low": rng.choice([0.2, 0.1, 1.0]),
        "clip_ratio_high": rng.choice([0.2, 0.28, 1.0]),
        "clip_ratio_c": rng.choice([1.5, 3.0]),
        "clip_cov_ratio": 1.0 if index % 2 == 0 else 0.2,
        "clip_cov_lb": rng.choice([0.05, 0.2]),
        "clip_cov_ub": rng.choice([1.0, 5.0]),
        "kl_cov_ratio": rng.choice([0.01, 0.1, 0.3]),
        "ppo_kl_coef": rng.choice([0.1, 1.0]),
        "discount": rng.choice([1.0, 0.9]),
    }


def actor_config(chosen: dict[str, float]) -> ActorConfig:
    of_loss = {key: float(chosen[key]) for key in PolicyLossConfig.__dataclass_fields__ if key in chosen}
    clips = {key: float(value) for key, value in chosen.items() if key.startswith("clip_ratio")}
    return ActorConfig(
        strategy="fsdp",
        rollout_n=4,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=PolicyLossConfig(**of_loss),
        **clips,
    )


def losses(index: int, batch: dict[str, torch.Tensor], chosen: dict[str, float]) -> Columns:
    """The scalar of each registered loss, and its gradient with respect to the log-prob of each token that counts."""
    found: Columns = {}
    keep = batch["mask"].bool()
    for name in LOSSES:
        torch.manual_seed(index)  # clip_cov draws from the global generator
        logprob = batch["logprob"].clone().requires_grad_()
        loss, _ = core_algos.get_policy_loss_fn(name)(
            old_log_prob=batch["old_logprob"],
            log_prob=logprob,
            advantages=batch["advantage"],
            response_mask=batch["mask"],
            loss_agg_mode=AGGREGATIONS[int(chosen["aggregation"])],
            config=actor_config(chosen),
        )
        loss.backward()
        found[f"loss/{name}"] = np.array([loss.item()])
        found[f"gradient/{name}"] = logprob.grad[keep].numpy()
    return found


def advantages(batch: dict[str, torch.Tensor], group: NDArray[np.int64], discount: float) -> Columns:
    """One value a response for estimators of outcomes, one a token for REINFORCE++."""
    mask = batch["mask"]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    at_the_end = torch.zeros_like(mask).scatter(1, last[:, None], batch["outcome"][:, None])

    def by_response(estimator: Estimator, **options: object) -> NDArray[np.generic]:
        by_token, _ = estimator(at_the_end.clone(), mask, index=group, **options)
        return by_token.gather(1, last[:, None])[:, 0].numpy()

    tokens, _ = core_algos.compute_reinforce_plus_plus_outcome_advantage(
        batch["token_reward"], mask, config=AlgoConfig(gamma=float(discount))
    )
    grpo = core_algos.compute_grpo_outcome_advantage
    return {
        "advantage/grpo": by_response(grpo),
        "advantage/grpo_without_std": by_response(grpo, norm_adv_by_std_in_grpo=False),
        "advantage/rloo": by_response(core_algos.compute_rloo_outcome_advantage),
        "advantage/rloo_vectorized": by_response(core_algos.compute_rloo_vectorized_outcome_advantage),
        "advantage/reinforce_plus_plus_baseline": by_response(
            core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage
        ),
        "advantage/reinforce_plus_plus": tokens[mask.bool()].numpy(),
    }


def columns(index: int, rng: np.random.Generator) -> Columns:
    """Everything of one batch, tokens that do not count left out."""
    given, chosen = inputs(index, rng), settings(index, rng)
    mask = given["mask"]
    per = {
        "outcome": PER_REWARD,
        "token_reward": PER_REWARD,
        "advantage": PER_ADVANTAGE,
        "logprob": PER_LOGPROB,
        "old_logprob": PER_LOGPROB,
    }
    # Zero behind the mask: verl multiplies by the mask, so a NaN there would be everywhere.
    batch = {
        key: torch.tensor(np.where(mask, given[key] / unit, 0.0) if given[key].ndim == 2 else given[key] / unit)
        for key, unit in per.items()
    }
    batch["mask"] = torch.tensor(mask, dtype=torch.float64)
    of_tokens = {key: given[key][mask].astype(np.int16) for key in per if key != "outcome"}
    return {
        "num_responses": np.array([len(mask)], dtype=np.int16),
        "length": np.array([mask.shape[1]], dtype=np.int16),
        "group": given["group"].astype(np.int8),
        "outcome": given["outcome"].astype(np.int16),
        "mask": mask.flatten().astype(np.uint8),
        **of_tokens,
        **{f"setting/{key}": np.array([value], dtype=np.float64) for key, value in chosen.items()},
        **losses(index, batch, chosen),
        **advantages(batch, given["group"], chosen["discount"]),
    }


def main(path: Path) -> None:
    """Write the file."""
    rng = np.random.default_rng(SEED)
    gathered: dict[str, list[NDArray[np.generic]]] = defaultdict(list)
    for index in range(NUM_BATCHES + NUM_FAR):
        for key, value in columns(index, rng).items():
            gathered[key].append(value)
    versions = {package: version(package) for package in ("verl", "torch", "numpy")}
    save_file(
        {key: np.concatenate(parts) for key, parts in sorted(gathered.items())},
        path,
        metadata={**versions, "python": platform.python_version(), "aggregations": " ".join(AGGREGATIONS)},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
