"""The suite checks shapes and types at run time: a wrong shape is an error in any test, without asking for it."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from covent.core.advantages import group_centred


def test_a_right_shape_passes() -> None:
    assert group_centred(torch.zeros(2, 3)).shape == (2, 3)


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(TypeCheckError, match="rewards"):
        group_centred(torch.zeros(3))
