"""The dimension legend, and the shape annotations that every public signature of the core uses.

    B  responses        T  response tokens (position 0 is the first token of the response)
    V  vocabulary       G  groups (prompts)        K  samples per group        S  states

Shapes are checked in every test (jaxtyping); users pay nothing for them at run time.
"""

from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["Bool", "Float", "Int64", "Tensor"]
