"""verl's synchronous trainer with covent's workers, identities and run folder: `trainer.v1.trainer_mode=covent`."""

from __future__ import annotations

from typing import Any

import ray
import transfer_queue as tq
from omegaconf import open_dict
from tensordict import TensorDict
from verl import __version__ as verl_version
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

from covent.integrations.readings import PREFIX
from covent.integrations.verl.batch import SAMPLES, identities
from covent.integrations.verl.checks import require_settings
from covent.integrations.verl.compatibility import require_hooks, say_untested
from covent.integrations.verl.recording import Recording, merged_metrics
from covent.integrations.verl.settings import covent_config
from covent.integrations.verl.worker import CoventWorker


@register_trainer("covent")
class CoventTrainer(PPOTrainerSync):  # type: ignore[misc]  # verl has no types
    """verl's trainer of the mode `sync`, which measures and controls entropy over whole mini-batches."""

    def __init__(self, config: Any) -> None:
        """Args:
        config: verl's; covent's settings lie in `actor_rollout_ref.actor.policy_loss`.

        Raises:
          EngineError: a verl that covent does not know.
          ConfigError: settings of covent and verl that do not go together.
        """
        require_hooks()
        say_untested(verl_version)
        self.covent = covent_config(config.actor_rollout_ref.actor)
        require_settings(self.covent, config)
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        self.recording = Recording(self.covent, config)
        self._prompts: dict[str, int] = {}
        self._num_prompts = 0

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's training; the run folder says how it ended."""
        self.recording.begin(self, self.actor_rollout_wg.covent_facts()[0])
        try:
            super().fit(agent_loop_manager)
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            # Of a worker's error Ray tells the whole story, and the last line is what it was.
            words = str(error).strip().splitlines() or [type(error).__name__]
            self.recording.ended(state, "Ctrl-C" if state == "interrupted" else words[-1])
            raise
        self.recording.ended("finished", "")

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(CoventWorker)

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        # Without dynamic sampling these are the prompts so far; with it a number may come a second time.
        self._num_prompts = self.global_steps * self.config.data.train_batch_size

    def _submit_batch_to_rollout(self, batch: Any) -> int:
        """verl sends prompts to be answered; covent numbers them."""
        for uid in batch["uid"]:
            self._prompts[str(uid)] = self._num_prompts
            self._num_prompts += 1
        return int(super()._submit_batch_to_rollout(batch))

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's advantages, and beside them the names of the responses."""
        batch = super()._compute_advantage(batch, metrics)
        columns = TensorDict(identities(batch.keys, self._prompts), batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=columns)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's optimizer steps on a rollout."""
        batch.extra_info[SAMPLES] = self.recording.wants_samples(self.global_steps - 1)
        return super()._update_actor(batch, metrics)

    def _step_once(self, metrics: dict[str, Any], timing_raw: dict[str, Any], sample_batch_size: int) -> Any:
        """verl's rollout and its optimizer steps; then covent asks the workers what they were."""
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        updates = self.actor_rollout_wg.covent_updates()[0]
        found = merged_metrics([each.reading for each in updates])
        found |= self.recording.rollout_done(self, batch, updates, timing_raw)
        metrics.update({PREFIX + name: value for name, value in found.items()})
        for key in batch.keys:
            self._prompts.pop(key.rsplit("_", 2)[0], None)
        return batch

    def _val_metrics_update(
        self,
        data_sources: Any,
        sample_uids: Any,
        reward_extra_infos_dict: Any,
        sample_turns: Any,
        expected_acc_counts: Any = None,
    ) -> dict[str, float]:
        """verl's numbers of a validation, which the run folder gets too."""
        self.recording.evaluated(self.global_steps, sample_uids, reward_extra_infos_dict)
        return super()._val_metrics_update(  # type: ignore[no-any-return]  # verl has no types
            data_sources, sample_uids, reward_extra_infos_dict, sample_turns, expected_acc_counts
        )
