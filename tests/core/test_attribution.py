"""Parts of a step's entropy change: each against finite differences, all of them against the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from covent.core.attribution import (
    MOMENTUM,
    adam_directions,
    entropy_gradient,
    mean_entropy_changes,
    sgd_directions,
    state_entropy_changes,
)
from covent.core.dynamics import entropy_change, entropy_of_logits
from tests.support.tolerances import FINITE_DIFFERENCE, TIGHT

NUM_STATES, WIDTH, NUM_ACTIONS = 7, 5, 11
LR, BETAS, EPS, MOMENTUM_FACTOR, DECAY = 0.01, (0.9, 0.99), 1e-8, 0.8, 0.1


def random_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INPUTS = random_tensor(0, NUM_STATES, WIDTH)
WEIGHTS = {"hidden": random_tensor(1, WIDTH, WIDTH), "head": random_tensor(2, WIDTH, NUM_ACTIONS)}


def logits_of(weights: dict[str, Tensor]) -> Tensor:
    return (INPUTS @ weights["hidden"]).tanh() @ weights["head"]


def directions(*seeds: int) -> dict[str, dict[str, Tensor]]:
    return {
        f"cause {seed}": {
            name: random_tensor(seed + offset, *weight.shape) for offset, (name, weight) in enumerate(WEIGHTS.items())
        }
        for seed in seeds
    }


def moved(direction: dict[str, Tensor], size: float) -> dict[str, Tensor]:
    return {name: weight + size * direction[name] for name, weight in WEIGHTS.items()}


def total(parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(part[name] for part in parts.values()) for name in WEIGHTS}


def test_each_part_is_the_slope_of_the_entropy_along_its_direction() -> None:
    parts = directions(10, 20)
    changes = state_entropy_changes(logits_of, WEIGHTS, parts)
    assert list(changes) == list(parts)
    for cause, direction in parts.items():
        up, down = (entropy_of_logits(logits_of(moved(direction, size))) for size in (1e-6, -1e-6))
        truth = ((up - down) / 2e-6).tolist()
        assert changes[cause].tolist() == pytest.approx(truth, abs=FINITE_DIFFERENCE)
        # The control: Lemma 1 with the logits as they move along the whole direction, curvature and all.
        curved = entropy_change(logits_of(WEIGHTS), logits_of(moved(direction, 1.0)) - logits_of(WEIGHTS))
        assert curved.tolist() != pytest.approx(truth, abs=FINITE_DIFFERENCE)


def test_parts_add_up_and_a_cause_that_is_removed_takes_its_part_with_it() -> None:
    parts = directions(10, 20, 30)
    changes = state_entropy_changes(logits_of, WEIGHTS, parts)
    whole = state_entropy_changes(logits_of, WEIGHTS, {"whole": total(parts)})["whole"]
    assert sum(changes.values()).tolist() == pytest.approx(whole.tolist(), abs=TIGHT)
    removed = parts.pop("cause 20")
    rest = state_entropy_changes(logits_of, WEIGHTS, {"rest": total(parts)})["rest"]
    assert (whole - rest).tolist() == pytest.approx(changes["cause 20"].tolist(), abs=TIGHT)
    assert any(bool(part.any()) for part in removed.values())
    assert (whole - rest).tolist() != pytest.approx(changes["cause 10"].tolist(), abs=TIGHT)


def test_one_backward_pass_gives_the_means_of_the_states() -> None:
    parts = directions(10, 20)
    gradient = entropy_gradient(logits_of, WEIGHTS)
    means = {cause: float(c.mean()) for cause, c in state_entropy_changes(logits_of, WEIGHTS, parts).items()}
    assert mean_entropy_changes(gradient, parts) == pytest.approx(means, abs=TIGHT)
    elsewhere = entropy_gradient(logits_of, moved(parts["cause 10"], 0.1))
    assert mean_entropy_changes(elsewhere, parts) != pytest.approx(means, abs=TIGHT)


def test_a_parameter_that_a_direction_leaves_out_does_not_move() -> None:
    (whole,) = directions(10).values()
    some = {"head": whole["head"]}
    filled = {"head": whole["head"], "hidden": torch.zeros_like(whole["hidden"])}
    changes = state_entropy_changes(logits_of, WEIGHTS, {"some": some, "filled": filled, "whole": whole})
    assert torch.equal(changes["some"], changes["filled"])
    assert not torch.equal(changes["some"], changes["whole"])
    unused = {**WEIGHTS, "unused": torch.ones(2, dtype=torch.float64)}
    assert entropy_gradient(logits_of, unused)["unused"].tolist() == [0.0, 0.0]


class _Tanh(torch.autograd.Function):
    """tanh without a forward derivative, as fused kernels have none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.tanh() ** 2)


def test_two_backward_passes_stand_in_where_there_is_no_forward_derivative() -> None:
    def without_forward(weights: dict[str, Tensor]) -> Tensor:
        return _Tanh.apply(INPUTS @ weights["hidden"]) @ weights["head"]

    with pytest.raises(RuntimeError):
        torch.func.jvp(lambda x: _Tanh.apply(x), (INPUTS,), (INPUTS,))
    parts = directions(10, 20)
    found = state_entropy_changes(without_forward, WEIGHTS, parts)
    for cause, change in state_entropy_changes(logits_of, WEIGHTS, parts).items():
        assert found[cause].tolist() == pytest.approx(change.tolist(), abs=TIGHT)


def test_a_function_that_fails_is_not_hidden_by_the_second_way() -> None:
    def broken(weights: dict[str, Tensor]) -> Tensor:
        raise RuntimeError("no logits today")

    with pytest.raises(RuntimeError, match="no logits today"):
        state_entropy_changes(broken, WEIGHTS, directions(10))


Parts = dict[str, Tensor]
Split = Callable[[Parts, dict[str, Any], dict[str, Any]], Parts]


def sgd_split(parts: Parts, before: dict[str, Any], after: dict[str, Any]) -> Parts:
    return sgd_directions(parts, before.get("momentum_buffer"), lr=LR, momentum=MOMENTUM_FACTOR)


def adam_split(parts: Parts, before: dict[str, Any], after: dict[str, Any]) -> Parts:
    return adam_directions(
        parts, before.get("exp_avg"), after["exp_avg_sq"], lr=LR, betas=BETAS, eps=EPS, num_steps=int(after["step"])
    )


def adam_split_by_the_second_moment_from_before(parts: Parts, before: dict[str, Any], after: dict[str, Any]) -> Parts:
    return adam_split(parts, before, {**after, "exp_avg_sq": before.get("exp_avg_sq", after["exp_avg_sq"])})


def errors_of(split: Split, make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> list[float]:
    """Largest difference between the sum of the parts and what the optimizer did, over four steps."""
    weight = random_tensor(40, 3, 4).requires_grad_()
    optimizer, errors = make([weight]), []
    for step in range(4):
        parts = {"right": random_tensor(50 + step, 3, 4), "wrong": random_tensor(60 + step, 3, 4)}
        before = {
            name: value.clone() for name, value in optimizer.state[weight].items() if isinstance(value, torch.Tensor)
        }
        start = weight.detach().clone()
        weight.grad = parts["right"] + parts["wrong"]
        optimizer.step()
        found = split(parts, before, optimizer.state[weight])
        assert (MOMENTUM in found) == (step > 0)
        errors.append(float((sum(found.values()) - (weight.detach() - start)).abs().max()))
    return errors


def test_the_parts_of_an_sgd_step_add_up() -> None:
    assert max(errors_of(sgd_split, lambda p: torch.optim.SGD(p, lr=LR, momentum=MOMENTUM_FACTOR))) <= TIGHT
    assert max(errors_of(sgd_split, lambda p: torch.optim.SGD(p, lr=LR, momentum=0.5))) > TIGHT


def test_the_parts_of_an_adam_step_add_up() -> None:
    def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=LR, betas=BETAS, eps=EPS)

    assert max(errors_of(adam_split, adam)) <= TIGHT
    assert min(errors_of(adam_split_by_the_second_moment_from_before, adam)[1:]) > TIGHT


def test_a_part_is_not_the_step_of_its_cause_alone() -> None:
    """Adam rescales a lone cause to full length; with the preconditioner held fixed it keeps its share."""
    right, wrong = random_tensor(70, 6), 0.01 * random_tensor(71, 6)

    def split(parts: Parts) -> Parts:
        second_moment = (1 - BETAS[1]) * sum(parts.values()) ** 2
        return adam_directions(parts, None, second_moment, lr=LR, betas=BETAS, eps=EPS, num_steps=1)

    share, alone = split({"right": right, "wrong": wrong})["wrong"], split({"wrong": wrong})["wrong"]
    assert float(alone.abs().mean()) == pytest.approx(LR, rel=1e-3)
    assert float(share.abs().mean()) < LR / 10
