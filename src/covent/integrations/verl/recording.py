"""What covent's trainer hears of a verl run, put together into the rows of its run folder. On the driver alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transfer_queue as tq
from omegaconf import OmegaConf

from covent.core.reduce import masked_sum, means_of_responses
from covent.core.shapes import Tensor
from covent.errors import ConfigError
from covent.integrations.header import run_header
from covent.integrations.readings import UpdateReading
from covent.integrations.recorder import Recorder
from covent.integrations.settings import CoventConfig
from covent.integrations.verl.batch import padded
from covent.integrations.verl.checks import updates_per_rollout
from covent.integrations.verl.samples import Sample
from covent.readings import EntropyReading, Mean
from covent.store.schema import RunHeader, SampleRow, StepRow

if TYPE_CHECKING:
    from covent.integrations.verl.worker import Update

_log = logging.getLogger(__name__)

_COUNTS = {"num_selected", "num_candidates", "num_selections"}


class Recording:
    """One run, rollout after rollout; without a run folder it records nothing."""

    def __init__(self, settings: CoventConfig, config: Any) -> None:
        """Args:
        settings: covent's.
        config: all of verl's.
        """
        self.settings, self.config = settings, config
        self.temperature = float(config.actor_rollout_ref.rollout.temperature)
        folder = settings.run_folder
        self.recorder = None if folder is None else Recorder(settings, Path(folder), temperature=self.temperature)

    def begin(self, trainer: Any, facts: Mapping[str, Any]) -> None:
        """Make the run folder.

        Args:
          trainer: of verl, set up and with its checkpoint.
          facts: what the workers say of themselves.
        Raises: RunExistsError.
        """
        if self.recorder is not None:
            self.recorder.begin(
                lambda: self._header(trainer, facts),
                num_steps=trainer.total_training_steps,
                first_rollout=trainer.global_steps,
            )

    def _header(self, trainer: Any, facts: Mapping[str, Any]) -> RunHeader:
        plain = OmegaConf.to_container(self.config, resolve=True)
        assert isinstance(plain, dict)
        return run_header(
            self.settings,
            {
                "name": "verl",
                "trainer": type(trainer).__name__,
                "ranks": trainer.actor_rollout_wg.world_size,
                "updates_per_rollout": updates_per_rollout(self.config),
            },
            {str(name): value for name, value in plain.items()},
            seed=int(self.config.data.get("seed") or 0),
            libraries=("transformers", "verl", "ray", "tensordict"),
            hardware=facts["hardware"],
            num_parameters=facts["num_parameters"],
        )

    def wants_samples(self, rollout: int) -> bool:
        """Whether responses of this rollout are to be kept."""
        return self.recorder is not None and self.settings.samples_kept > 0 and self.recorder.wants_samples(rollout)

    def rollout_done(
        self, trainer: Any, batch: Any, updates: Sequence[Update], seconds: Mapping[str, float]
    ) -> dict[str, float]:
        """Write the rows of a rollout and of its optimizer steps.

        Returns: the forecast, if there is a new one, for verl's log.
        """
        if self.recorder is None:
            return {}
        step = trainer.global_steps - 1
        rollout = Rollout.of(batch, self.settings, self.config, end_id=trainer.tokenizer.eos_token_id)
        for update in updates:
            self.recorder.updated(update.reading, step, grad_norm=update.grad_norm, lr=update.lr)
            self.recorder.sampled([_sample_row(step, each, rollout, trainer.tokenizer) for each in update.samples])
        names = {"gen": "rollout", "old_log_prob": "measure", "update_actor": "update"}
        own = {ours: float(seconds[theirs]) for theirs, ours in names.items() if theirs in seconds}
        return self.recorder.rolled(rollout.row(step, len(updates), own, self.temperature))

    def evaluated(self, step: int, uids: Sequence[str], rewards: Mapping[str, Sequence[Any]]) -> None:
        """Record a validation.

        Args:
          step: rollouts that the policy has been trained on.
          uids: which problem each response is to.
          rewards: verl's `reward`, and what the reward function returned beside it.
        """
        if self.recorder is None:
            return
        values = rewards[_known(self.settings.accuracy or "reward", rewards)]
        problems: dict[str, list[bool]] = {}
        for uid, value in zip(uids, values, strict=True):
            problems.setdefault(uid, []).append(value is not None and float(value) >= self.settings.right_from)
        sizes = {len(each) for each in problems.values()}
        if len(sizes) != 1:
            _log.warning("A validation has problems with different numbers of responses; it is not recorded.")
            return
        num_right = [sum(each) for each in problems.values()]
        self.recorder.evaluated(step, num_right, sizes.pop(), Mean(sum=0, count=0), seconds=0.0)

    def ended(self, state: str, message: str) -> None:
        """Say how the run ended."""
        if self.recorder is not None:
            self.recorder.status(state, message)


class Rollout:
    """One rollout of verl, without the rows that pad it."""

    def __init__(self, mask: Tensor, accuracy: Tensor, uids: list[str], entropies: Tensor | None) -> None:
        """Args:
        mask: [B, T] tokens that verl's loss counts.
        accuracy: [B].
        uids: which prompt each response is to.
        entropies: [B, T] of the policy that sampled; None where verl did not score them.
        """
        self.mask, self.accuracy, self.uids, self.entropies = mask, accuracy, uids, entropies
        self.lengths = self.truncated = torch.zeros(len(mask))
        self.filtered = False
        self.right_from = 1.0
        self.sampler_gap: float | None = None
        self.by_name: dict[tuple[int, int], float] = {}

    @classmethod
    def of(cls, batch: Any, settings: CoventConfig, config: Any, *, end_id: int) -> Rollout:
        """As verl's transfer queue holds it."""
        rows = [place for place, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
        keys = [batch.keys[place] for place in rows]
        wanted = ["response_mask", "responses", "rm_scores", "covent_prompt", "covent_sample", "old_log_probs"]
        optional = {"entropy": not _bypasses(config), "rollout_log_probs": _keeps_sampler(config)}
        wanted += [name for name, there in optional.items() if there]
        wanted += ["extra_fields"] if settings.accuracy else []
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=wanted)
        mask = padded(data["response_mask"]).bool()
        accuracy = padded(data["rm_scores"]).sum(dim=1).double()
        if settings.accuracy:
            told = [each.get("reward_extra_info", {}) for each in _listed(data["extra_fields"])]
            accuracy = torch.tensor([float(each[_known(settings.accuracy, each)]) for each in told]).double()
        entropies = padded(data["entropy"]).double() if optional["entropy"] else None
        found = cls(mask, accuracy, [key.rsplit("_", 2)[0] for key in keys], entropies)
        found.lengths = data["responses"].offsets().diff()
        last = padded(data["responses"]).gather(1, found.lengths[:, None] - 1).squeeze(1)
        limit = config.actor_rollout_ref.rollout.response_length
        found.truncated = (found.lengths >= limit) & (last != end_id)
        if optional["rollout_log_probs"]:
            gap = padded(data["rollout_log_probs"]) - padded(data["old_log_probs"])
            found.sampler_gap = float(gap.abs().masked_fill(~mask, 0.0).max())
        names = zip(data["covent_prompt"].tolist(), data["covent_sample"].tolist(), strict=True)
        found.by_name = dict(zip(names, accuracy.tolist(), strict=True))
        found.right_from = settings.right_from
        found.filtered = bool((config.algorithm.get("filter_groups") or {}).get("enable", False))
        return found

    def row(self, step: int, num_updates: int, seconds: dict[str, float], temperature: float) -> StepRow:
        """As a row of the run folder."""
        groups: dict[str, list[float]] = {}
        for uid, value in zip(self.uids, self.accuracy.tolist(), strict=True):
            groups.setdefault(uid, []).append(value)
        right = [[value >= self.right_from for value in group] for group in groups.values()]
        shared: dict[str, Any] = {
            "estimator": "exact",
            "temperature": temperature,
            "policy": "learner",
            "tokens": "kept responses" if self.filtered else "all responses",
        }
        by_response, by_token = self._entropy()
        return StepRow(
            step=step,
            entropy=EntropyReading(sum=by_response.sum, count=by_response.count, weighting="response", **shared),
            entropy_token=EntropyReading(sum=by_token.sum, count=by_token.count, weighting="token", **shared),
            reward=Mean(sum=float(self.accuracy.sum()), count=len(self.accuracy)),
            response_length=Mean(sum=float(self.lengths.sum()), count=len(self.lengths)),
            truncated=Mean(sum=float(self.truncated.sum()), count=len(self.truncated)),
            unparsable=Mean(sum=0, count=0),
            num_groups=len(groups),
            num_all_right=sum(all(group) for group in right),
            num_all_wrong=sum(not any(group) for group in right),
            num_kept_groups=sum(len(set(group)) > 1 for group in groups.values()),
            num_generations=1,
            num_updates=num_updates,
            sampler_gap=self.sampler_gap,
            seconds=seconds,
        )

    def _entropy(self) -> tuple[Mean, Mean]:
        """Over responses, and over tokens."""
        if self.entropies is None:
            return Mean(sum=0, count=0), Mean(sum=0, count=0)
        means = means_of_responses(self.entropies, self.mask)
        by_response = Mean(sum=float(means.sum()), count=int(self.mask.any(dim=1).sum()))
        return by_response, Mean(sum=float(masked_sum(self.entropies, self.mask)), count=int(self.mask.sum()))


def merged_metrics(readings: Sequence[UpdateReading]) -> dict[str, float]:
    """Several optimizer steps as one line of verl's log: counts add up, the rest is the mean over their tokens."""
    found: dict[str, list[tuple[float, int]]] = {}
    for reading in readings:
        for name, value in reading.metrics().items():
            found.setdefault(name, []).append((value, reading.num_tokens))
    return {
        name: sum(value for value, _ in several)
        if name in _COUNTS
        else sum(value * tokens for value, tokens in several) / sum(tokens for _, tokens in several)
        for name, several in found.items()
    }


def _sample_row(step: int, sample: Sample, rollout: Rollout, tokenizer: Any) -> SampleRow:
    reward = rollout.by_name[sample.prompt, sample.sample]
    return SampleRow(
        step=step,
        group=sample.prompt,
        sample=sample.sample,
        prompt=tokenizer.decode(sample.prompt_ids),
        answer="",
        verdict="right" if reward >= rollout.right_from else "wrong",
        reward=reward,
        advantage=sample.advantage,
        tokens=tokenizer.convert_ids_to_tokens(sample.token_ids),
        logprobs=sample.logprobs,
        entropies=sample.entropies,
        covariances=sample.covariances,
        selected=sample.selected,
    )


def _known(name: str, rewards: Mapping[str, Any]) -> str:
    if name not in rewards:
        raise ConfigError(
            f"accuracy = '{name}' names nothing that the reward function returned. It returned"
            f" {', '.join(rewards) or 'only a score'}."
        )
    return name


def _listed(column: Any) -> list[Any]:
    """What is no tensor; the transfer queue gives it back in more than one form."""
    return column.tolist() if hasattr(column, "tolist") else list(column)


def _bypasses(config: Any) -> bool:
    """Whether verl takes the sampling engine's log-probs for the old ones and scores nothing itself."""
    correction = config.algorithm.get("rollout_correction") or {}
    return bool(correction.get("bypass_mode", False))


def _keeps_sampler(config: Any) -> bool:
    return bool(config.actor_rollout_ref.rollout.calculate_log_probs)
