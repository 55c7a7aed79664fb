"""Log-probs, entropies and their gradients on a GPU in float32 against the CPU in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from covent.core.entropy import logprob_and_entropy
from covent.core.lm_head import logprob_and_entropy_from_hidden
from tests.support.gpu import GPU, needs_gpu
from tests.support.tolerances import FLOAT32, NEAR_ZERO_ENTROPY

pytestmark = list(needs_gpu)

QWEN_VOCABULARY = 151_936


def head(num: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, LM head and tokens in float64; the logits have a standard deviation of about 1."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((num, width), generator=generator, dtype=torch.float64)
    weight = torch.randn((vocabulary, width), generator=generator, dtype=torch.float64) / width**0.5
    return hidden, weight, torch.randint(0, vocabulary, (num,), generator=generator)


def results(
    hidden: Tensor, weight: Tensor, tokens: Tensor, device: str, dtype: torch.dtype, temperature: float = 1.0
) -> list[Tensor]:
    """Log-probs, entropies, and the gradient of both with respect to the hidden states, on the CPU in float64."""
    leaf = hidden.to(device, dtype).clone().requires_grad_()
    logprob, entropy = logprob_and_entropy_from_hidden(
        leaf, weight.to(device, dtype), tokens.to(device), temperature=temperature
    )
    (logprob.sum() - 0.3 * entropy.sum()).backward()
    assert leaf.grad is not None
    return [found.detach().double().cpu() for found in (logprob, entropy, leaf.grad)]


@pytest.mark.parametrize("vocabulary", [19, 5_000, QWEN_VOCABULARY])
def test_the_lm_head_path_is_that_of_the_cpu(vocabulary: int) -> None:
    given = head(16, 32, vocabulary)
    truth = results(*given, "cpu", torch.float64)
    for found, wanted in zip(results(*given, GPU, torch.float32), truth, strict=True):
        assert torch.allclose(found, wanted, rtol=FLOAT32, atol=FLOAT32)
    # The control: another temperature is another distribution.
    for found, wanted in zip(results(*given, GPU, torch.float32, temperature=0.9), truth, strict=True):
        assert not torch.allclose(found, wanted, rtol=FLOAT32, atol=FLOAT32)


def test_entropies_near_zero_keep_their_digits() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((8, QWEN_VOCABULARY), generator=generator, dtype=torch.float32)
    logits[:, 7] += torch.linspace(20, 32, 8)
    tokens = torch.full((8,), 7)
    _, truth = logprob_and_entropy(logits.double(), tokens)
    _, found = logprob_and_entropy(logits.to(GPU), tokens.to(GPU))
    assert torch.allclose(found.double().cpu(), truth, rtol=NEAR_ZERO_ENTROPY, atol=0)
    # The control: minus the sum of p·log p from float32 probabilities has lost them.
    p = logits.to(GPU).softmax(-1)
    naive = -(p * p.clamp_min(1e-45).log()).sum(-1).double().cpu()
    assert not torch.allclose(naive, truth, rtol=NEAR_ZERO_ENTROPY, atol=0)
