"""verl warns of each engine that is not there while it is imported; warnings are errors in this suite."""

import contextlib
import os
import warnings

# verl looks for a GPU when it is used. These tests bring the platform `cpu` with them.
os.environ |= {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "recipes.verl.cpu"}

with warnings.catch_warnings(), contextlib.suppress(ModuleNotFoundError):
    warnings.simplefilter("ignore")
    import verl.trainer.ppo.v1  # noqa: F401 - imported for what it does
