"""What the LM head promises beyond values and gradients: masks, caps, kept logits, skipped tokens, extra readings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from covent.core.dynamics import polarity
from covent.core.entropy import logprob_and_entropy
from covent.core.lm_head import logprob_and_entropy_from_hidden, token_readings_from_hidden
from covent.core.lm_head.products import Products
from covent.core.lm_head.tiles import Kept, tile_size
from covent.errors import ConfigError
from tests.contract.source import ROOT
from tests.core.test_lm_head import QWEN_VOCABULARY, Head, close, gradients, head, through_logits
from tests.support.tolerances import (
    CHUNKED,
    FLOAT32,
    HEAD_GRADIENT_16_BIT,
    HEAD_GRADIENT_KEPT,
    HEAD_GRADIENT_ON_PAGE,
    NEAR_ZERO_ENTROPY,
)

PRIME = 10_007
EVERYTHING = 1 << 30
BFLOAT16 = torch.bfloat16


def from_hidden(given: Head, **settings: Any) -> tuple[Tensor, Tensor]:
    return logprob_and_entropy_from_hidden(given.hidden, given.weight, given.tokens, bias=given.bias, **settings)


def error(found: Tensor, truth: Tensor) -> float:
    """Relative, by norm."""
    return float((found.double() - truth).norm() / truth.norm())


def doubled(given: Head) -> Head:
    return Head(*(t.double() if t.is_floating_point() else t for t in given))


@pytest.mark.parametrize("workspace_bytes", [0, 3 * 13 * 8, 5 * 13 * 8, EVERYTHING])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7, torch.linspace(0.4, 2.0, 7, dtype=torch.float64)])
def test_a_budget_and_a_cap(workspace_bytes: int, softcap: float | None, temperature: float | Tensor) -> None:
    given = head(20)
    settings: dict[str, Any] = {"temperature": temperature, "softcap": softcap, "token_chunk": 2, "vocab_chunk": 5}

    def truth_of(each: Head) -> tuple[Tensor, Tensor]:
        z = each.hidden @ each.weight.T + each.bias
        z = z if softcap is None else softcap * torch.tanh(z / softcap)
        return logprob_and_entropy(z, each.tokens, temperature=temperature)

    truth, found = truth_of(given), from_hidden(given, workspace_bytes=workspace_bytes, **settings)
    assert all(map(close, found, truth))
    true_gradients = gradients(truth_of, given)
    assert all(map(close, gradients(from_hidden, given, workspace_bytes=workspace_bytes, **settings), true_gradients))
    other = {**settings, "softcap": 5.0 if softcap is None else None}
    assert not any(map(close, gradients(from_hidden, given, **other), true_gradients))


@pytest.mark.parametrize("workspace_bytes", [0, EVERYTHING])
def test_entries_that_are_switched_off_stay_off_under_a_cap(workspace_bytes: int) -> None:
    given = head(21)
    given.bias[[0, 5]] = -torch.inf
    given.tokens[:] = 3
    settings: dict[str, Any] = {"softcap": 1.5, "vocab_chunk": 4, "workspace_bytes": workspace_bytes}
    _, entropy = from_hidden(given, **settings)
    alive = [v for v in range(13) if v not in (0, 5)]
    fewer = Head(given.hidden, given.weight[alive], given.tokens - 1, given.bias[alive])
    assert close(entropy, from_hidden(fewer, softcap=1.5)[1])
    found, truth = gradients(from_hidden, given, **settings), gradients(from_hidden, fewer, softcap=1.5)
    assert close(found[1][alive], truth[1])
    assert bool((found[1][[0, 5]] == 0).all())


@pytest.mark.parametrize("workspace_bytes", [0, 3 * 13 * 8])
def test_a_mask_costs_nothing_and_hides_anything(workspace_bytes: int) -> None:
    given, mask = head(22), torch.tensor([True, False, True, True, False, True, False])
    shown = Head(given.hidden[mask], given.weight, given.tokens[mask], given.bias)
    each = torch.linspace(0.5, 1.5, 7, dtype=torch.float64)
    given.hidden[~mask] = torch.nan
    given.tokens[~mask] = -100
    settings: dict[str, Any] = {"mask": mask, "temperature": each, "workspace_bytes": workspace_bytes}
    settings |= {"token_chunk": 2, "vocab_chunk": 5}
    found, truth = from_hidden(given, **settings), through_logits(shown, each[mask])
    for f, t in zip(found, truth, strict=True):
        assert close(f[mask], t)
        assert bool((f[~mask] == 0).all())

    def masked_truth(whole: Head) -> tuple[Tensor, Tensor]:
        parts = through_logits(Head(whole.hidden[mask], whole.weight, whole.tokens[mask], whole.bias), each[mask])
        return tuple(torch.zeros(7, dtype=torch.float64).masked_scatter(mask, part) for part in parts)

    for f, t in zip(gradients(from_hidden, given, **settings), gradients(masked_truth, given), strict=True):
        assert close(f, t)
    nothing = from_hidden(given, mask=torch.zeros_like(mask))
    assert all(bool((part == 0).all()) for part in nothing)
    assert not close(from_hidden(given._replace(hidden=head(22).hidden, tokens=head(22).tokens))[1], found[1])


class _Counted:
    """Multiplications of a call, by counting what its products see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num, made, added = 0, Products.logits_of, Products.add

        def logits_of(products: Products, h: Tensor, w: Tensor, out: Tensor) -> None:
            self.num += h.numel() * len(w)
            made(products, h, w, out)

        def add(products: Products, total: Tensor, left: Tensor, right: Tensor) -> None:
            self.num += left.numel() * right.shape[1]
            added(products, total, left, right)

        monkeypatch.setattr(Products, "logits_of", logits_of)
        monkeypatch.setattr(Products, "add", add)

    def of(self, function: Callable[[], Any]) -> int:
        self.num = 0
        function()
        return self.num


def test_tokens_without_gradient_are_left_out_of_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    given, counted = head(23, num=8), _Counted(monkeypatch)
    unit = given.hidden.numel() * len(given.weight)
    upstream = torch.tensor([0.0, 1.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0], dtype=torch.float64)

    def backward(of_logprob: Tensor | None, of_entropy: Tensor | None, **settings: Any) -> list[Tensor]:
        leaves = Head(*(t.clone().requires_grad_(t.is_floating_point()) for t in given))
        outputs = from_hidden(leaves, token_chunk=1, **settings)
        pairs = [(o, g) for o, g in zip(outputs, (of_logprob, of_entropy), strict=True) if g is not None]
        torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
        return [leaves.hidden.grad, leaves.weight.grad, leaves.bias.grad]

    # Forward 1 unit, backward 3 for 2 of 8 tokens; the first product of dW does not add but writes.
    hidden_and_weight = given.hidden.shape[1] * len(given.weight)
    few = counted.of(lambda: backward(upstream, None))
    assert few == unit + 3 * unit * 2 // 8 - hidden_and_weight
    all_tokens = counted.of(lambda: backward(upstream + 1e-300, None))
    assert all_tokens == 4 * unit - hidden_and_weight
    assert counted.of(lambda: backward(None, upstream, workspace_bytes=EVERYTHING)) == few - unit * 2 // 8
    for left, right in ((upstream, None), (None, upstream), (upstream, upstream)):
        for found, truth in zip(backward(left, right), backward(*_dense(left, right)), strict=True):
            assert close(found, truth)
    assert counted.of(lambda: backward(0 * upstream, 0 * upstream)) == unit
    assert all(bool((g == 0).all()) for g in backward(0 * upstream, None))


def test_a_budget_keeps_as_many_tokens_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    given, counted = head(33, num=8), _Counted(monkeypatch)
    unit, of_token = given.hidden.numel() * len(given.weight), given.hidden.shape[1] * len(given.weight)

    def spent(workspace_bytes: int) -> int:
        return counted.of(lambda: gradients(from_hidden, given, workspace_bytes=workspace_bytes, token_chunk=1))

    # Forward 1 unit, backward 2, the first product of dW apart; and the logits of the tokens that did not fit.
    for num_kept in range(9):
        for more in (0, 13 * 8 - 1):
            assert spent(num_kept * 13 * 8 + more) == 3 * unit - of_token + max(0, 8 - num_kept) * of_token
    token_bytes = 1000 * 2 + 3 * 4
    for workspace_bytes in (0, token_bytes - 1, 5 * token_bytes, 6 * token_bytes - 1, 10**9):
        kept = Kept.within(workspace_bytes, 8, 1000, 400, dtype=torch.float16, like=torch.empty(()))
        assert kept.tops is not None
        assert kept.logits.nbytes + kept.tops.nbytes == min(8, workspace_bytes // token_bytes) * token_bytes


def test_a_tile_takes_the_same_memory_in_every_dtype() -> None:
    cpu, sizes = torch.device("cpu"), {}
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        tokens, vocabulary = tile_size(cpu, dtype, None, None)
        sizes[dtype] = tokens * vocabulary * dtype.itemsize
        assert tile_size(cpu, dtype, 3, None) == (3, vocabulary)
        assert tile_size(cpu, dtype, None, 5) == (tokens, 5)
    assert len(set(sizes.values())) == 1


def _dense(*gradients: Tensor | None) -> list[Tensor]:
    return [torch.full((8,), 1e-300, dtype=torch.float64) + (0 if g is None else g) for g in gradients]


@pytest.mark.parametrize("vocabulary", [QWEN_VOCABULARY, PRIME])
@pytest.mark.parametrize("workspace_bytes", [0, EVERYTHING])
def test_large_vocabularies_and_a_token_in_the_last_ragged_tile(vocabulary: int, workspace_bytes: int) -> None:
    given = head(24, num=4, width=3, vocabulary=vocabulary)
    given.tokens[:] = torch.tensor([0, vocabulary - 1, vocabulary - 2, 8192])
    settings: dict[str, Any] = {"workspace_bytes": workspace_bytes, "temperature": 0.8}
    assert all(map(close, from_hidden(given, **settings), through_logits(given, 0.8)))
    assert all(map(close, gradients(from_hidden, given, **settings), gradients(through_logits, given, 0.8)))
    one_less = given._replace(weight=given.weight[:-1], bias=given.bias[:-1], tokens=given.tokens.clamp(max=PRIME - 2))
    assert not close(from_hidden(one_less, **settings)[1], from_hidden(given, **settings)[1])


def test_upstream_gradients_of_any_stride() -> None:
    given = head(25, num=6)
    dense = torch.arange(6, dtype=torch.float64) - 2.5
    strided = torch.stack([dense, torch.full_like(dense, 99.0)], dim=1)[:, 0]
    assert strided.stride() == (2,)
    leaves = []
    for upstream in (dense, strided, dense.flip(0).flip(0)):
        hidden = given.hidden.clone().requires_grad_()
        outputs = from_hidden(given._replace(hidden=hidden), vocab_chunk=5)
        torch.autograd.backward(outputs, [upstream, torch.full((), 0.5, dtype=torch.float64).expand(6)])
        leaves.append(hidden.grad)
    assert torch.equal(leaves[0], leaves[1])
    assert torch.equal(leaves[0], leaves[2])


def test_inputs_of_any_stride_and_a_second_backward_pass() -> None:
    given = head(26)
    spread = Head(
        given.hidden.T.contiguous().T.requires_grad_(),
        given.weight.repeat_interleave(2, dim=0)[::2].requires_grad_(),
        given.tokens,
        given.bias.expand(2, 13)[0].clone().requires_grad_(),
    )
    outputs = from_hidden(spread, workspace_bytes=3 * 13 * 8, token_chunk=2)
    loss = (outputs[0] * torch.arange(7)).sum() - outputs[1].sum()
    inputs = [spread.hidden, spread.weight, spread.bias]
    once = torch.autograd.grad(loss, inputs, retain_graph=True)
    again = torch.autograd.grad(loss, inputs)
    assert all(map(torch.equal, once, again))


def test_invariants() -> None:
    given = head(27)
    leaves = given._replace(bias=given.bias.clone().requires_grad_())
    logprob, entropy = from_hidden(leaves, vocab_chunk=4)
    assert bool((entropy > 0).all() and (entropy < math.log(13)).all())
    (of_bias,) = torch.autograd.grad((logprob * torch.arange(7) + entropy).sum(), leaves.bias)
    assert abs(float(of_bias.sum())) < CHUNKED
    offset = from_hidden(given._replace(bias=given.bias + 40.0), vocab_chunk=4)
    assert all(map(close, offset, (logprob, entropy)))

    uniform = given._replace(weight=torch.zeros_like(given.weight), bias=torch.zeros_like(given.bias))
    leaf = uniform.bias.requires_grad_()
    _, entropy = from_hidden(uniform._replace(bias=leaf), vocab_chunk=4)
    assert entropy.tolist() == pytest.approx([math.log(13)] * 7, rel=CHUNKED)
    (flat,) = torch.autograd.grad(entropy.sum(), leaf)
    assert float(flat.abs().max()) < CHUNKED


def test_the_same_call_gives_the_same_bits() -> None:
    given = head(28, num=300, width=16, vocabulary=PRIME, dtype=torch.float32)
    for workspace_bytes in (0, 100 * PRIME * 4, EVERYTHING):
        once, again = (gradients(from_hidden, given, workspace_bytes=workspace_bytes) for _ in range(2))
        assert all(map(torch.equal, once, again))


def test_a_nearly_certain_token_keeps_the_precision_of_its_gradient() -> None:
    """1 - p of the token is 2e-9: p itself rounds to 1 in float32."""
    bias = torch.tensor([20.0, 0.0, -30.0])
    given = Head(torch.zeros(1, 1), torch.zeros(3, 1), torch.tensor([0]), bias.requires_grad_())
    (found,) = torch.autograd.grad(from_hidden(given)[0].sum(), bias)
    exact = -torch.expm1(bias.detach().double()[0] - bias.detach().double().logsumexp(0))
    assert float(found[0]) == pytest.approx(float(exact), rel=NEAR_ZERO_ENTROPY)
    (naive,) = torch.autograd.grad(bias.log_softmax(0)[0], bias)
    assert float(naive[0]) != pytest.approx(float(exact), rel=NEAR_ZERO_ENTROPY)


@pytest.mark.parametrize("vocab_chunk", [1, 5, 13])
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_extra_readings_from_the_same_pass(vocab_chunk: int, scale: float) -> None:
    given = head(29)
    given = given._replace(weight=scale * given.weight)
    z = given.hidden @ given.weight.T + given.bias
    given.tokens[:3] = z[:3].argmax(dim=1)
    found = token_readings_from_hidden(
        given.hidden.requires_grad_(), given.weight, given.tokens, bias=given.bias, vocab_chunk=vocab_chunk
    )
    p = z.softmax(dim=-1)
    assert found.is_top.tolist() == (given.tokens == z.argmax(dim=1)).tolist()
    assert not bool(found.is_top.all())
    assert close(found.sum_p_squared, p.square().sum(dim=-1))
    assert close(found.polarity, polarity(z, given.tokens, torch.ones(7, dtype=torch.float64)))
    assert not close(found.polarity, polarity(z, given.tokens.flip(0), torch.ones(7, dtype=torch.float64)))
    assert [part.requires_grad for part in found] == [True, True, False, False, False]
    assert all(map(torch.equal, found[:2], from_hidden(given, vocab_chunk=vocab_chunk)))


def test_extra_readings_take_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    given, counted = head(35), _Counted(monkeypatch)
    unit = given.hidden.numel() * len(given.weight)
    assert counted.of(lambda: token_readings_from_hidden(given.hidden, given.weight, given.tokens)) == unit
    assert counted.of(lambda: from_hidden(given)) == unit


def test_extra_readings_behind_a_mask_and_near_certainty() -> None:
    bias, mask = torch.tensor([40.0, 0.0, -torch.inf], dtype=torch.float64), torch.tensor([True, True, True, False])
    tokens = torch.tensor([0, 1, 2, 0])
    zeros = torch.zeros(4, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    found = token_readings_from_hidden(*zeros, tokens, bias=bias, mask=mask, vocab_chunk=2)
    truth = polarity(bias.expand(2, 3), tokens[:2], torch.ones(2, dtype=torch.float64))
    assert found.polarity[:2].tolist() == pytest.approx(truth.tolist(), rel=CHUNKED, abs=0)
    assert math.isfinite(found.polarity[2])
    assert float(found.polarity[0]) != 0.0
    assert found.is_top.tolist() == [True, False, False, False]
    assert found.polarity[3] == found.sum_p_squared[3] == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_extra_readings_of_broken_logits_are_no_numbers(broken: float) -> None:
    given = head(34)
    for is_broken in (True, False):
        bias = given.bias.clone()
        bias[3] = broken if is_broken else bias[3]
        found = token_readings_from_hidden(given.hidden, given.weight, given.tokens, bias=bias, vocab_chunk=5)
        for part in (found.entropy, found.sum_p_squared, found.polarity):
            assert part.isnan().tolist() == [is_broken] * 7


def test_sixteen_bits_against_float64() -> None:
    """Logits with a standard deviation of 4, as large vocabularies have them."""
    given = head(30, num=96, width=64, vocabulary=3001, dtype=torch.float32)
    given = given._replace(weight=given.weight / 2)
    given = Head(*(t.to(BFLOAT16) if t.is_floating_point() else t for t in given))
    outputs = through_logits(doubled(given))
    for number in (0, 1):

        def alone(each: Head, number: int = number, **settings: Any) -> tuple[Tensor, Tensor]:
            pair = from_hidden(each, **settings) if each.hidden.dtype == BFLOAT16 else through_logits(each)
            return pair[number], torch.zeros_like(pair[number])

        truth = gradients(alone, doubled(given))
        for workspace_bytes in (0, EVERYTHING):
            found = gradients(alone, given, workspace_bytes=workspace_bytes, vocab_chunk=700)
            assert max(map(error, found[:2], truth[:2])) < HEAD_GRADIENT_16_BIT
        rounded = gradients(alone, given, logits_dtype=BFLOAT16, vocab_chunk=700)
        assert HEAD_GRADIENT_16_BIT < error(rounded[0], truth[0]) < 20 * HEAD_GRADIENT_16_BIT
    found = from_hidden(given, vocab_chunk=700)
    assert all(close(f.double(), t, FLOAT32) for f, t in zip(found, outputs, strict=True))
    kept = gradients(from_hidden, given, logits_dtype=BFLOAT16, workspace_bytes=EVERYTHING)
    again = gradients(from_hidden, given, logits_dtype=BFLOAT16)
    assert all(map(torch.equal, kept, again))


@pytest.mark.parametrize("gap", [9, 12, 17])
def test_a_budget_costs_precision_where_one_entry_is_nearly_certain(gap: int) -> None:
    """The figures of docs/performance.md: one runner-up, `gap` nats below the top, and nothing else in reach."""
    generator = torch.Generator().manual_seed(36)
    common = torch.nn.functional.normalize(torch.randn(64, generator=generator), dim=0)
    hidden, weight = (torch.randn(num, 64, generator=generator) for num in (32, 4096))
    hidden = common + 0.3 * (hidden - (hidden @ common)[:, None] * common)
    level = torch.full((4096, 1), -60.0)
    level[5], level[9] = 0, -gap
    weight = 0.05 * weight + level * common
    given = Head(hidden.to(BFLOAT16), weight.to(BFLOAT16), torch.full((32,), 5), torch.zeros(4096))
    exact = doubled(given)
    worst = dict.fromkeys((0, EVERYTHING), 0.0)
    for number in (0, 1):

        def of_sum(each: Head, number: int = number, **settings: Any) -> list[Tensor]:
            leaves = [each.hidden.clone().requires_grad_(), each.weight.clone().requires_grad_()]
            if each is exact:
                out = logprob_and_entropy(leaves[0] @ leaves[1].T, each.tokens)[number]
            else:
                out = logprob_and_entropy_from_hidden(*leaves, each.tokens, **settings)[number]
            return list(torch.autograd.grad(out.sum(), leaves))

        truth = of_sum(exact)
        for workspace_bytes in worst:
            found = of_sum(given, workspace_bytes=workspace_bytes)
            of_hidden, of_weight = map(error, found, truth)
            worst[workspace_bytes] = max(worst[workspace_bytes], of_hidden)
            assert of_weight < HEAD_GRADIENT_16_BIT
    assert worst[0] < HEAD_GRADIENT_16_BIT < worst[EVERYTHING] < HEAD_GRADIENT_KEPT
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {gap} \|.*$", page, flags=re.MULTILINE)
    assert [float(cell) for cell in row.split("|")[3:5]] == pytest.approx(
        list(worst.values()), rel=HEAD_GRADIENT_ON_PAGE
    )


def test_an_unshifted_sixteen_bit_logit_would_not_do() -> None:
    """Why d is kept and not z: the same gradient from float16(z), with exact sums."""
    z = 4 * torch.randn(64, 3001, generator=torch.Generator().manual_seed(31), dtype=torch.float64) + 30
    logp = z.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1, keepdim=True)
    top, lse = z.amax(-1, keepdim=True), z.logsumexp(-1, keepdim=True)

    def slope(logp: Tensor) -> Tensor:
        return -logp.exp() * (logp + entropy)

    shifted, plain = (z - top).half().double() + top - lse, z.half().double() - lse
    assert error(slope(shifted), slope(logp)) < HEAD_GRADIENT_16_BIT < error(slope(plain), slope(logp))


def test_what_the_contract_refuses() -> None:
    given = head(32)
    for settings, message in (
        ({"softcap": 0.0}, "softcap is 0"),
        ({"workspace_bytes": -1}, "workspace_bytes is -1"),
        ({"logits_dtype": torch.bfloat16}, "logits_dtype is torch.bfloat16"),
        ({"logits_dtype": torch.float16}, "torch.float16"),
        ({"temperature": torch.zeros(7)}, "above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_hidden(given, **settings)
