"""Settings of verifiers and of a user's reward function, documented under their fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VerifierSettings(_Settings):
    """Limits of the children that judge answers, and what happens when judging fails."""

    timeout_s: float = Field(default=5.0, gt=0)
    """Wall time one answer, or one program with all its tests, may take. Its child is killed then."""
    memory_mb: int = Field(default=1024, ge=64)
    """Address space of a child that judges, and of a program that runs."""
    processes: Annotated[int, Field(ge=1)] = 2
    """Children that judge at the same time."""
    max_error_frac: float = Field(default=0.01, ge=0, le=1)
    """The run stops when more than this share of responses could not be judged: verdict `error`. It is taken over the
    newest steps that together have at least 100 responses."""
    max_program_processes: Annotated[int, Field(ge=1)] = 1
    """Processes and threads a program may have, itself included; one more where its tests are not written in Python."""
    scratch_mb: int = Field(default=16, ge=1)
    """Size of the folder a program may write to; it is in memory, and gone when the program ends."""
    modules: tuple[str, ...] = ()
    """Modules that programs may import besides those of the standard library that the sandbox brings."""
    allow_unsafe_programs: bool = False
    """Run programs although this machine cannot isolate them: they can then read your files and use your network. Only
    for programs you would run yourself."""


class RewardSettings(_Settings):
    """A reward function of your own in place of the task's verdict. It runs in a child process, on copies of its
    arguments."""

    function: str | None = None
    """`path/to/file.py:name`. None: the task's own verdict."""
    signature: Literal["auto", "trl", "verl"] = "auto"
    """How it is called. `trl`: `fn(prompts, completions, completion_ids, **columns) -> list`, once for all responses.
    `verl`: `fn(data_source, solution_str, ground_truth, extra_info) -> float or dict`, once for each. `auto`: by the
    names of its parameters."""
    right_at: float = 1.0
    """A score of at least this counts as right in evaluations, unless `acc` of verl's form says whether it is. Training
    uses the score itself."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Wall time of one call."""
