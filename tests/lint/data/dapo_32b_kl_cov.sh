# The settings of recipe/dapo/32b_kl_cov.sh in PRIME-RL/Entropy-Mechanism-of-RL at 8850579, typed again;
# what no rule reads is left out (paths, logging, offloading, vLLM).
data.train_batch_size=256
data.max_prompt_length=2048
data.max_response_length=8192
actor_rollout_ref.rollout.n=8
actor_rollout_ref.rollout.temperature=1.0
actor_rollout_ref.actor.loss_mode=kl_cov
actor_rollout_ref.actor.ppo_kl_coef=1
actor_rollout_ref.actor.k_percent=0.02
actor_rollout_ref.actor.clip_ratio_low=0.2
actor_rollout_ref.actor.clip_ratio_high=0.2
actor_rollout_ref.actor.clip_ratio_c=10.0
actor_rollout_ref.actor.ppo_mini_batch_size=32
actor_rollout_ref.actor.use_dynamic_bsz=True
actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480
actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8
actor_rollout_ref.actor.ppo_micro_batch_size=null
actor_rollout_ref.actor.ulysses_sequence_parallel_size=1
actor_rollout_ref.actor.loss_agg_mode=token-mean
actor_rollout_ref.actor.entropy_coeff=0
actor_rollout_ref.actor.use_kl_loss=False
actor_rollout_ref.actor.optim.lr=1e-6
algorithm.adv_estimator=grpo
algorithm.use_kl_in_reward=False
algorithm.filter_groups.enable=True
trainer.n_gpus_per_node=8
trainer.nnodes=4
