"""What verl loads in each of its processes: the entry point of the group `verl.plugins`.

verl says nothing when a plugin cannot be loaded, so this one says it itself; `covent doctor --verl` looks from outside.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

from covent.integrations.verl.settings import LOSSES

_log = logging.getLogger(__name__)


def register() -> None:
    """Enter covent's losses and, where verl's trainer can be imported, covent's trainer into verl's registries."""
    from verl.trainer.ppo.core_algos import register_policy_loss

    from covent.integrations.verl.losses import policy_loss

    for name in LOSSES:
        register_policy_loss(name)(policy_loss)
    if find_spec("transfer_queue") is None:
        _log.warning(
            "verl cannot train without TransferQueue, which is not installed: covent's trainer is not registered."
        )
        return
    from covent.integrations.verl.trainer import CoventTrainer  # noqa: F401 - registers itself


try:
    register()
except Exception:
    _log.exception("covent's plugin for verl was not loaded. verl goes on without it: covent doctor --verl says why.")
    raise
