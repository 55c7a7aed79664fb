"""The LM-head path against the path through logits, which plain loops hold to the definition; and its memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError
from torch.utils._python_dispatch import TorchDispatchMode

from covent.core.entropy import logprob_and_entropy
from covent.core.lm_head import logprob_and_entropy_from_hidden
from covent.errors import ConfigError, ShapeError
from tests.support.tolerances import CHUNKED, FLOAT32, NEAR_ZERO_ENTROPY

QWEN_VOCABULARY = 151_936


class Head(NamedTuple):
    hidden: Tensor
    weight: Tensor
    tokens: Tensor
    bias: Tensor


def head(seed: int, *, num: int = 7, width: int = 5, vocabulary: int = 13, dtype: torch.dtype = torch.float64) -> Head:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((num, width), (vocabulary, width), (vocabulary,))
    )
    return Head(hidden, weight, torch.randint(0, vocabulary, (num,), generator=generator), bias)


def through_logits(given: Head, temperature: Any = 1.0) -> tuple[Tensor, Tensor]:
    return logprob_and_entropy(given.hidden @ given.weight.T + given.bias, given.tokens, temperature=temperature)


def chunked(given: Head, temperature: Any = 1.0, **chunks: Any) -> tuple[Tensor, Tensor]:
    return logprob_and_entropy_from_hidden(
        given.hidden, given.weight, given.tokens, bias=given.bias, temperature=temperature, **chunks
    )


def gradients(function: Callable[..., tuple[Tensor, Tensor]], given: Head, *rest: Any, **chunks: int) -> list[Tensor]:
    """Of a weighted sum of both outputs, with respect to hidden states, weight and bias."""
    leaves = Head(*(t.clone().requires_grad_(t.is_floating_point()) for t in given))
    logprob, entropy = function(leaves, *rest, **chunks)
    weights = torch.linspace(-1, 1, len(logprob), dtype=logprob.dtype)
    (weights * logprob + (0.3 - weights) * entropy).sum().backward()
    return [leaves.hidden.grad, leaves.weight.grad, leaves.bias.grad]


def close(left: Tensor, right: Tensor, tolerance: float = CHUNKED) -> bool:
    return bool(torch.allclose(left, right, rtol=tolerance, atol=tolerance))


CHUNKS = [(1, 1), (2, 3), (3, 13), (7, 4), (100, 100)]
TEMPERATURES = [1.0, 0.6, torch.linspace(0.4, 2.0, 7, dtype=torch.float64)]


@pytest.mark.parametrize(("token_chunk", "vocab_chunk"), CHUNKS)
@pytest.mark.parametrize("temperature", TEMPERATURES, ids=["1", "0.6", "each"])
def test_values_and_gradients(token_chunk: int, vocab_chunk: int, temperature: float | Tensor) -> None:
    given = head(0)
    sizes = {"token_chunk": token_chunk, "vocab_chunk": vocab_chunk}
    truth, found = through_logits(given, temperature), chunked(given, temperature, **sizes)
    assert all(map(close, found, truth))
    true_gradients = gradients(through_logits, given, temperature)
    assert all(map(close, gradients(chunked, given, temperature, **sizes), true_gradients))

    other = temperature + 0.01
    assert not any(map(close, chunked(given, other, **sizes), truth))
    assert not any(map(close, gradients(chunked, given, other, **sizes), true_gradients))


@pytest.mark.parametrize("settings", [{}, {"softcap": 1.5, "workspace_bytes": 2 * 5 * 8}])
@pytest.mark.parametrize("temperature", [0.7, torch.tensor([0.5, 1.0, 1.7], dtype=torch.float64)], ids=["0.7", "each"])
def test_gradients_by_finite_differences(settings: dict[str, Any], temperature: float | Tensor) -> None:
    given = head(1, num=3, width=2, vocabulary=5)
    leaves = [t.clone().requires_grad_() for t in (given.hidden, given.weight, given.bias)]

    def function(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return chunked(Head(hidden, weight, given.tokens, bias), temperature, token_chunk=2, vocab_chunk=2, **settings)

    assert torch.autograd.gradcheck(function, leaves)

    def without_the_entropy_of_the_last_tile(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        frozen = torch.cat([weight[:4], weight[4:].detach()])
        return function(hidden, frozen, bias)

    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(without_the_entropy_of_the_last_tile, leaves)


def test_one_output_alone_and_one_input_alone() -> None:
    given = head(2)
    for output in (0, 1):
        hidden = given.hidden.clone().requires_grad_()
        chunked(given._replace(hidden=hidden), vocab_chunk=4)[output].sum().backward()
        other = given.hidden.clone().requires_grad_()
        through_logits(given._replace(hidden=other))[output].sum().backward()
        assert close(hidden.grad, other.grad)
    weight = given.weight.clone().requires_grad_()
    logprob, _ = chunked(given._replace(weight=weight), vocab_chunk=4)
    # A gradient without stride, as sum() and expand() make it.
    logprob.backward(torch.ones((), dtype=torch.float64).expand(7))
    other = given.weight.clone().requires_grad_()
    through_logits(given._replace(weight=other))[0].sum().backward()
    assert close(weight.grad, other.grad)


@pytest.mark.parametrize("vocab_chunk", [1, 4, 13])
def test_entries_that_are_switched_off(vocab_chunk: int) -> None:
    given = head(3)
    given.bias[[0, 1, 2, 3, 8]] = -torch.inf
    given.tokens[:] = torch.tensor([4, 5, 6, 7, 9, 10, 0])
    truth, found = through_logits(given), chunked(given, vocab_chunk=vocab_chunk)
    assert all(map(close, found, truth))
    assert float(found[0][6]) == -math.inf
    leaves = gradients(lambda g, **c: _finite(chunked(g, **c)), given, vocab_chunk=vocab_chunk)
    truths = gradients(lambda g: _finite(through_logits(g)), given)
    assert all(bool(gradient.isfinite().all()) for gradient in leaves)
    assert all(map(close, leaves, truths))
    switched_on = chunked(given._replace(bias=given.bias.nan_to_num(neginf=-3.0)), vocab_chunk=vocab_chunk)
    assert not close(switched_on[1], truth[1])


@pytest.mark.parametrize("vocab_chunk", [1, 13])
def test_a_token_that_is_switched_off_has_no_gradient(vocab_chunk: int) -> None:
    """Its log-prob is -inf whatever the weights are; what comes in for it is not passed on."""
    given = head(11)
    given.bias[2] = -torch.inf
    given.tokens[:4] = 2

    def of_logprobs(function: Callable[..., tuple[Tensor, Tensor]], upstream: Tensor) -> Tensor:
        hidden = given.hidden.clone().requires_grad_()
        function(given._replace(hidden=hidden))[0].backward(upstream)
        return hidden.grad

    def tiles(each: Head) -> tuple[Tensor, Tensor]:
        return chunked(each, vocab_chunk=vocab_chunk)

    upstream = torch.linspace(1, 2, 7, dtype=torch.float64)
    found = of_logprobs(tiles, upstream)
    assert bool((found[:4] == 0).all())
    assert bool((found[4:] != 0).any(dim=1).all())
    assert close(found, of_logprobs(through_logits, upstream))
    assert not close(found, of_logprobs(tiles, upstream + 0.1))


def _finite(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return outputs[0].masked_fill(outputs[0] == -torch.inf, 0.0), outputs[1]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("vocab_chunk", [1, 13])
def test_broken_logits_are_not_taken_for_certainty(broken: float, vocab_chunk: int) -> None:
    given = head(4)
    given.bias[3] = broken
    logprob, entropy = chunked(given, vocab_chunk=vocab_chunk)
    assert bool(entropy.isnan().all())
    assert bool(logprob.isnan().all())
    nothing = chunked(given._replace(bias=torch.full_like(given.bias, -torch.inf)), vocab_chunk=vocab_chunk)
    assert bool(nothing[1].isnan().all())


@pytest.mark.parametrize("rest", [1e-1, 1e-3, 1e-5, 4e-8])
@pytest.mark.parametrize("vocab_chunk", [8192, 151_936])
def test_near_zero_entropy_over_a_large_vocabulary(rest: float, vocab_chunk: int) -> None:
    """`rest` is the probability left to all entries but one in the middle; 4e-8 gives an entropy of 1e-6."""
    generator = torch.Generator().manual_seed(5)
    bias = 3 * torch.randn(QWEN_VOCABULARY, generator=generator, dtype=torch.float64)
    bias[70_000] = -torch.inf
    bias[70_000] = float(bias.logsumexp(dim=0)) - math.log(rest)
    single = bias.float()
    given = Head(torch.ones(2, 1), torch.zeros(QWEN_VOCABULARY, 1), torch.tensor([70_000, 1]), single)
    truth = logprob_and_entropy(single.double(), torch.tensor(70_000))[1].item()
    _, entropy = chunked(given, vocab_chunk=vocab_chunk)
    assert entropy.tolist() == pytest.approx([truth] * 2, rel=NEAR_ZERO_ENTROPY)
    with_the_maximum = single.logsumexp(dim=0) - (single.softmax(dim=0) * single).sum()
    assert float(with_the_maximum) != pytest.approx(truth, rel=NEAR_ZERO_ENTROPY)


def test_half_precision_is_not_rounded_again() -> None:
    given = head(6, num=9, width=64, vocabulary=300, dtype=torch.bfloat16)
    exact = Head(*(t.double() if t.is_floating_point() else t for t in given))
    truth = through_logits(exact)
    found = chunked(given, vocab_chunk=77)
    assert found[0].dtype == torch.float32
    assert all(close(f.double(), t, FLOAT32) for f, t in zip(found, truth, strict=True))
    rounded = logprob_and_entropy(given.hidden @ given.weight.T + given.bias, given.tokens)
    assert not any(close(r.double(), t, FLOAT32) for r, t in zip(rounded, truth, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = Head(*(t.float() if t.is_floating_point() else t for t in given))
        assert all(close(f.double(), t, FLOAT32) for f, t in zip(chunked(single), truth, strict=True))
    assert [gradient.dtype for gradient in gradients(chunked, given, vocab_chunk=77)] == [torch.bfloat16] * 3


def test_shapes_of_states_and_no_state() -> None:
    given = head(7, num=6)
    flat = chunked(given, 0.5)
    shaped = chunked(given._replace(hidden=given.hidden.view(2, 3, 5), tokens=given.tokens.view(2, 3)), 0.5)
    assert all(torch.equal(s.flatten(), f) for s, f in zip(shaped, flat, strict=True))
    empty = logprob_and_entropy_from_hidden(given.hidden[:0], given.weight, given.tokens[:0])
    assert [part.shape for part in empty] == [(0,), (0,)]


def test_what_is_refused() -> None:
    given = head(8)
    with pytest.raises(ShapeError, match="to 13 for an LM head of 13 rows"):
        chunked(given._replace(tokens=given.tokens.clone().fill_(13)))
    with pytest.raises(ShapeError, match="-100"):
        chunked(given._replace(tokens=given.tokens.clone().fill_(-100)))
    with pytest.raises(ConfigError, match="above 0"):
        chunked(given, 0.0)
    for chunks in ({"token_chunk": 0}, {"vocab_chunk": -1}):
        with pytest.raises(ConfigError, match="at least 1"):
            chunked(given, **chunks)


class _Largest(TorchDispatchMode):
    """Watches every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and not func.is_view:
                self.numel = max(self.numel, tensor.numel())
        return out


@contextmanager
def watched() -> Iterator[_Largest]:
    with _Largest() as mode:
        yield mode


def test_no_tensor_is_as_large_as_the_logits() -> None:
    given = head(9, num=64, width=4, vocabulary=1024)
    logits = 64 * 1024
    with watched() as tiles:
        gradients(chunked, given, token_chunk=32, vocab_chunk=128)
    assert tiles.numel <= max(32 * 128, given.weight.numel())
    with watched() as naive:
        gradients(through_logits, given)
    assert naive.numel >= logits
