# The settings of examples/train/algorithms/clip_cov_kl_cov/run_clip_cov.sh in SkyRL at a956457, typed again; what no rule
# reads is left out (paths, logging, inference engine).
NUM_GPUS=4
trainer.algorithm.policy_loss_type=clip_cov
trainer.algorithm.clip_cov.clip_ratio=0.0002
trainer.algorithm.clip_cov.clip_cov_lb=1.0
trainer.algorithm.clip_cov.clip_cov_ub=5.0
trainer.placement.policy_num_gpus_per_node=$NUM_GPUS
trainer.train_batch_size=1024
trainer.policy_mini_batch_size=256
trainer.micro_train_batch_size_per_gpu=64
trainer.update_epochs_per_batch=1
trainer.max_prompt_length=512
generator.sampling_params.max_generate_length=1024
generator.n_samples_per_prompt=5
trainer.algorithm.use_kl_loss=true
trainer.algorithm.kl_loss_coef=0.001
trainer.policy.optimizer_config.lr=1.0e-6
