"""What a run of another engine is: the header of its run folder."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from covent import __version__
from covent.integrations.settings import CoventConfig
from covent.provenance import commit
from covent.store.schema import SCHEMA_VERSION, RunHeader


def run_header(
    settings: CoventConfig,
    engine: Mapping[str, Any],
    engine_settings: Mapping[str, Any],
    *,
    seed: int,
    libraries: tuple[str, ...],
    hardware: str,
    num_parameters: int,
) -> RunHeader:
    """The header.

    Args:
      settings: covent's.
      engine: its name, and whatever else says how it runs.
      engine_settings: all of its own settings.
      seed: of the engine.
      libraries: those whose versions matter beside torch and numpy.
      hardware: what it trains on.
      num_parameters: of the policy.
    """
    controls = [each.model_dump(mode="json") for each in settings.controls]
    config = {
        "engine": dict(engine),
        "control": controls if len(controls) > 1 else controls[0] if controls else {"type": "grpo"},
        "evaluation": {"every": settings.law_every},
        "covent": settings.model_dump(mode="json", exclude={"control", "law_every"}),
        str(engine["name"]): _plain(engine_settings),
    }
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        name=settings.label or str(engine["name"]),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        config=config,
        seed=seed,
        threads=torch.get_num_threads(),
        versions={
            "covent": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in (*libraries, "numpy")},
            "platform": platform.platform(),
        },
        commit=commit(),
        hardware=hardware,
        num_parameters=num_parameters,
        start_model=None,
    )


def hardware_of(device: torch.device) -> str:
    """A GPU's name, or the kind of CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them; what it cannot is kept as text."""
    text = json.dumps(settings, default=str)
    plain: dict[str, Any] = json.loads(text, parse_constant=str)
    return plain
