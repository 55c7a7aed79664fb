"""Numbers that the rules hold a setting against, and where they were published."""

from __future__ import annotations

PAPER = "arXiv 2505.22617"
FORK = "PRIME-RL/Entropy-Mechanism-of-RL"
AUTHORS = f"{FORK} at 8850579"

SHARES = {"clip_cov": (2e-4, 2e-4), "kl_cov": (2e-4, 2e-3)}
"""The paper's shares, 32B and 7B (section 4.3)."""

HIGH_SHARE = 0.01
"""Above five times the paper's largest: a control of the tail no more."""
PERCENT_SHARE = 0.02
"""From here on a share is what the authors' scripts write in percent: 0.02 and 0.2."""
LOW_PERCENT = 0.01
"""Below half of the smallest `k_percent` of the authors' scripts, 0.02: a fraction in the place of percent."""

TOP_SHARE_COVARIANCE = 5.654
"""Mean covariance of the top 0.02 % of the tokens, Qwen2.5-7B at step 1 (Table 1)."""
COMMON_COVARIANCE = 0.351
"""That of the top 20 %."""
UNLIKELIEST_NATS = 15.0
"""A sampled token's log-prob is hardly ever further than this from the mean: e^-15 is one draw in three million."""

EXPLODING_COEF = 0.01
"""The entropy coefficient at which entropy exploded to some 5 nats (Fig. 9, Qwen2.5-7B)."""
SUSPECT_COEF = 0.001
"""The one that verl's examples gave up after reports of rising entropy (verl pull request 781)."""
PAPER_KL_COEF = 1.0
FEW_RESPONSES = 4
"""Below this many responses in a choice, KL-Cov finds a third of the right tokens (docs/selection.md)."""
