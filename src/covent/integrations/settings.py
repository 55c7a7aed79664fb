"""What a person sets to have covent inside another engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from covent.controls import ONE, SEVERAL, AnyControl, OneOrSeveralControls
from covent.errors import ConfigError

Scope = Literal["window", "rank", "micro"]


class CoventConfig(BaseModel):
    """Settings of covent in an engine; those of the engine itself stay in its own config."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    control: OneOrSeveralControls | None = None
    """One entropy control, or a list of them that act together. None: covent only measures."""
    scope: Scope = "window"
    """Which tokens a control chooses among. `window`: the whole optimizer batch, over micro-batches and ranks, as the
    papers define it. `rank`: the optimizer batch's part on one rank. `micro`: one micro-batch on one rank, what
    other implementations do."""
    seed: int = Field(default=0, ge=0)
    """Of the controls' random choices. Nothing else is random here."""
    run_folder: Path | None = None
    """Where the run is recorded for `covent report`, `fit`, `forecast` and `explain`. None: no run folder, and no
    forecasts while the run goes on."""
    name: str = ""
    """Label in legends; empty: the control's type, or the engine's name."""
    accuracy: str | None = None
    """Name of the reward whose mean is the accuracy of the law and whose full value is a right answer: in TRL a reward
    function, in verl a number that the reward function returns beside the score. None: the reward trained on."""
    right_from: float = 1.0
    """A response is right if that reward is at least so much."""
    law_every: int = Field(default=5, ge=1)
    """Rollout steps whose mean entropy and accuracy make one point of the law."""
    samples_kept: int = Field(default=8, ge=0)
    """Responses kept with token columns at each point of the law, for the report."""

    @property
    def controls(self) -> tuple[AnyControl, ...]:
        """The controls as a tuple, empty for none."""
        if self.control is None:
            return ()
        return self.control if isinstance(self.control, tuple) else (self.control,)

    @property
    def label(self) -> str:
        """What the run is called in legends; empty without a name and a control."""
        return self.name or " + ".join({"ppo_clip": "grpo"}.get(each.type, each.type) for each in self.controls)


def settings_of(given: CoventConfig | Mapping[str, Any] | None) -> CoventConfig:
    """The settings that a trainer was given; none for None.

    Raises: ConfigError that lists every problem with its place.
    """
    if isinstance(given, CoventConfig):
        return given
    try:
        return CoventConfig.model_validate(given or {})
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in each['loc'] if part not in (ONE, SEVERAL))}: {each['msg']}"
            for each in error.errors(include_url=False)
        ]
        raise ConfigError(f"covent: {'; '.join(problems)}") from error
