"""Sampling: prompts in, responses with the sampler's log-probs and exact entropies out."""
