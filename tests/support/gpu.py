"""What tests on a GPU have in common: they are asked for with `-m gpu`, and skip where torch finds none."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch

GPU = "cuda"

# cuBLAS reads it once, when it is loaded; without it deterministic products are not.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

needs_gpu: Sequence[pytest.MarkDecorator] = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU"),
    # Some kernels have no deterministic form; the trainer asks torch to say so and goes on.
    pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning"),
)
"""`pytestmark` of a module of GPU tests."""
