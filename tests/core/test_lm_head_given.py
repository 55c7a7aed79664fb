"""What the LM head refuses, each beside a neighbour that it takes.

The suite checks shapes and types of every call; users' processes do not, so these calls go past that check.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from covent.core.lm_head import logprob_and_entropy_from_hidden
from covent.errors import ConfigError, CoventError, ShapeError

unchecked = inspect.unwrap(logprob_and_entropy_from_hidden)
YES = torch.ones(2, 3, dtype=torch.bool)


def call(**changed: Any) -> tuple[Tensor, Tensor]:
    """[2, 3] states of width 5, 13 entries."""
    generator = torch.Generator().manual_seed(70)
    given: dict[str, Any] = {
        "hidden": torch.randn(2, 3, 5, generator=generator),
        "weight": torch.randn(13, 5, generator=generator),
        "tokens": torch.randint(0, 13, (2, 3), generator=generator),
    }
    for name, value in changed.items():
        given[name] = value(given[name]) if callable(value) else value
    return unchecked(**given)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ({"tokens": lambda t: t.view(3, 2)}, {"tokens": lambda t: t.T.contiguous().T}, r"tokens has shape \[3, 2\]"),
        ({"tokens": lambda t: t.flatten()[:5]}, {}, r"tokens has shape \[5\], beside hidden \[2, 3, 5\]"),
        (
            {"tokens": lambda t: t.repeat(2, 1), "mask": torch.arange(12).view(4, 3) < 6},
            {"mask": torch.arange(6).view(2, 3) < 3},
            r"tokens has shape \[4, 3\]",
        ),
        ({"mask": YES.T}, {"mask": YES}, r"mask has shape \[3, 2\].*it must be \[2, 3\]"),
        ({"mask": YES[:, :2]}, {"mask": YES.clone()}, r"mask has shape \[2, 2\]"),
        ({"mask": YES.flatten()}, {"mask": YES}, r"mask has shape \[6\]"),
        ({"bias": torch.zeros(14)}, {"bias": torch.zeros(13)}, r"bias has shape \[14\].*it must be \[13\]"),
        ({"bias": torch.zeros(1)}, {"bias": None}, r"bias has shape \[1\]"),
        ({"bias": torch.zeros(1, 13)}, {"bias": torch.zeros(1, 13)[0]}, r"bias has shape \[1, 13\]"),
        ({"weight": lambda w: w[:, :4]}, {"weight": lambda w: w[:, :5]}, r"weight has shape \[13, 4\].*\[13, 5\]"),
        ({"weight": lambda w: w[:, 0]}, {"weight": lambda w: w[None][0]}, r"weight has shape \[13\]"),
        ({"temperature": torch.ones(3)}, {"temperature": torch.ones(2, 3)}, r"temperature has shape \[3\]"),
        (
            {"hidden": torch.tensor(1.0), "tokens": torch.tensor(1)},
            {"hidden": lambda h: h[0, 0], "tokens": torch.tensor(1)},
            "hidden is a single number",
        ),
    ],
)
def test_shapes_that_do_not_belong_together(wrong: dict[str, Any], right: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call(**wrong)
    assert all(bool(part.isfinite().all()) for part in call(**right))


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ({"mask": YES.float()}, {"mask": YES}, r"mask holds torch.float32; it must hold torch.bool"),
        ({"mask": YES.long()}, {"mask": YES}, "mask holds torch.int64"),
        ({"hidden": lambda h: h.long()}, {"hidden": lambda h: h.half()}, "hidden holds torch.int64"),
        ({"hidden": lambda h: h + 0j}, {"hidden": lambda h: h.double()}, "hidden holds torch.complex64"),
        ({"weight": lambda w: w.int()}, {"weight": lambda w: w.bfloat16()}, "weight holds torch.int32"),
        ({"tokens": lambda t: t.to(torch.int8)}, {}, "tokens holds torch.int8"),
        ({"tokens": lambda t: t.float()}, {}, "tokens holds torch.float32"),
        ({"workspace_bytes": 200.0}, {"workspace_bytes": 200}, r"workspace_bytes is 200\.0"),
        ({"workspace_bytes": None}, {"workspace_bytes": 0}, "workspace_bytes is None"),
        ({"token_chunk": 2.0}, {"token_chunk": 2}, r"token_chunk is 2\.0"),
        ({"vocab_chunk": 2.5}, {"vocab_chunk": None}, r"vocab_chunk is 2\.5"),
        ({"softcap": math.inf}, {"softcap": 1e9}, "softcap is inf"),
        ({"softcap": "3"}, {"softcap": 3.0}, "softcap is '3'"),
        ({"temperature": "1"}, {"temperature": 1.0}, "temperature is '1'"),
        ({"temperature": 1e-40}, {"temperature": 1e-30}, "1 / T is infinite in torch.float32"),
        ({"temperature": torch.full((2, 3), 1e-40)}, {"temperature": torch.tensor(0.5)}, "1 / T is infinite"),
        ({"group": "tp"}, {"group": None}, "group is 'tp'"),
    ],
)
def test_numbers_and_settings_of_the_wrong_type(wrong: dict[str, Any], right: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(**wrong)
    assert all(bool(part.isfinite().all()) for part in call(**right))


def test_a_temperature_behind_a_mask_is_held_to_the_same() -> None:
    """As the path through logits, which has no mask, does it."""
    temperature, mask = torch.ones(2, 3), YES.clone()
    mask[1, 2] = False
    for value, refused in ((-1.0, True), (0.0, True), (0.1, False)):
        temperature[1, 2] = value
        if refused:
            with pytest.raises(ConfigError, match="behind a mask too"):
                call(temperature=temperature, mask=mask)
        else:
            assert float(call(temperature=temperature, mask=mask)[0][1, 2]) == 0


def test_nothing_at_all_is_no_error() -> None:
    empty = call(hidden=torch.zeros(2, 3, 0), weight=torch.zeros(13, 0))
    assert empty[1].flatten().tolist() == pytest.approx([math.log(13)] * 6)
    with pytest.raises(CoventError, match="LM head of 0 rows"):
        call(weight=torch.zeros(0, 5))
