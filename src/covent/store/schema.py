"""The rows of a run folder, version 1. Every field is documented once, under the field.

run.json           RunHeader: config, seeds, versions, commit, hardware; written first
config.yaml        the settings again, ready for `covent train`
status.json        Status: running, finished, interrupted or failed; rewritten atomically
steps.jsonl        StepRow: one rollout step
updates.jsonl      UpdateRow: one optimizer step
evaluations.jsonl  EvaluationRow: one evaluation on validation or test problems
forecasts.jsonl    ForecastRow: what the law said about the rest, while the run went on
verdicts.jsonl     VerdictRow: one problem of a test evaluation
samples.jsonl      SampleRow: one sampled response with its token columns
verifier_faults.jsonl VerifierFaultRow: responses whose judging timed out, crashed or failed
rejected_rows.jsonl RejectedRow: rows of the task's data set that were left out
attributions.jsonl AttributionRow: the entropy change of one optimizer step by cause; only if it was asked for
model/             the final weights (safetensors) and tokenizer
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from covent.readings import ControlReading, CovarianceTail, EntropyReading, Mean, ProbeReading

SCHEMA_VERSION = 1


class Row(BaseModel):
    """Base of all rows: unknown fields are errors, and so are NaN and infinite values when written."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunHeader(Row):
    """What a run is: settings, seeds, versions, hardware; everything needed to run it again."""

    schema_version: int
    name: str
    """Short label for legends, for example `grpo`, `clip_cov`."""
    created: str
    """UTC time, ISO 8601."""
    config: dict[str, Any]
    """The complete settings of the run, nested, as the trainer used them."""
    seed: int
    threads: int
    """CPU threads of torch: results are reproducible at one thread count only."""
    versions: dict[str, str]
    """covent, python, torch, transformers, numpy, platform."""
    commit: str | None
    """Git commit of covent's working tree, with `+dirty` if it had changes; None outside a checkout."""
    hardware: str
    num_parameters: int
    start_model: str | None
    """Content hash of the weights that RL starts from; None until the warm start has ended."""


class Status(Row):
    """Where a run stands."""

    state: Literal["running", "finished", "interrupted", "failed"]
    step: int
    """Rollout steps completed."""
    num_steps: int
    """Rollout steps asked for."""
    message: str = ""
    seconds: float = 0.0
    """Wall time of the whole run so far."""


class StepRow(Row):
    """One rollout step. All quantities are of the policy that sampled it, before the updates of this step."""

    step: int
    """0-based: the rollout of step s is sampled after s rounds of updates."""
    entropy: EntropyReading
    """The paper's entropy: exact, T = 1, mean over a response's tokens, then over all responses, before filtering."""
    entropy_token: EntropyReading
    """The same tokens, each with equal weight."""
    reward: Mean
    """Training reward over all judged responses before filtering."""
    response_length: Mean
    truncated: Mean
    """Share of responses that hit the length limit without an end token."""
    unparsable: Mean
    """Share of responses in which the verifier found no answer."""
    error: Mean | None = None
    """Share of responses that could not be judged; they are in no baseline and carry no gradient."""
    verdicts: dict[str, int] = {}
    """Responses by verdict. Time-outs and crashes are the answer's own doing and count as wrong."""
    num_groups: int
    """Groups (prompts) sampled, over all generation rounds."""
    num_all_right: int
    num_all_wrong: int
    num_kept_groups: int
    """Groups with mixed rewards that went into the updates."""
    num_generations: int
    """Generation rounds of this step; more than 1 only with dynamic sampling."""
    num_updates: int
    """Optimizer steps taken on this rollout."""
    sampler_gap: float | None
    """Largest |learner log-prob - sampler log-prob| over kept tokens, nats: the parity check of the two code paths."""
    seconds: dict[str, float]
    """Wall time by phase: rollout, measure, update, probe, evaluate."""


class UpdateRow(Row):
    """One optimizer step."""

    update: int
    """0-based optimizer step over the whole run."""
    step: int
    """The rollout step it belongs to."""
    num_responses: int
    num_tokens: int
    """Tokens that carry gradient."""
    loss: float
    grad_norm: float
    """Before clipping."""
    lr: float
    entropy: EntropyReading
    """Exact entropy of the current policy on the tokens of this batch (kept responses only)."""
    abs_log_ratio: Mean
    """Mean |log pi - log pi_old| over the tokens of the batch, before the step."""
    clip_low: Mean
    """Share of tokens whose ratio lies below the clip range with A < 0."""
    clip_high: Mean
    """Share of tokens whose ratio lies above the clip range with A > 0."""
    covariance: CovarianceTail
    control: ControlReading
    probe: ProbeReading | None


class Estimate(Row):
    """A proportion with a 95 % interval."""

    value: float
    low: float
    high: float


class EvaluationRow(Row):
    """One evaluation. Intervals are Wilson intervals over problems."""

    step: int
    """Policy after this many rounds of updates: 0 is the start."""
    split: Literal["validation", "test"]
    num_problems: int
    num_samples: int
    """Sampled responses per problem at temperature 1, besides one greedy response if `greedy` is not None."""
    greedy: Estimate | None
    avg: Estimate
    """avg@k with k = num_samples."""
    pass_at: dict[str, Estimate]
    """Unbiased pass@k; keys are k as text."""
    entropy: EntropyReading
    num_right: list[int]
    """Right sampled responses of each problem, in the fixed order of the problems."""
    unparsable: Mean
    error: Mean | None = None
    """Share of sampled responses that could not be judged; they are left out of all other numbers."""
    seconds: float


class ForecastRow(Row):
    """What the law said about the rest of the run while it went on, from the points known by then."""

    step: int
    """Rollout steps up to and including this one were known."""
    num_points: int
    ceiling: float | None
    """b - a of the law so far; an accuracy as a fraction, not clipped."""
    ceiling_low: float | None
    """95 % interval."""
    ceiling_high: float | None
    identified: bool
    """False: the points do not determine the law, and the numbers carry no weight."""
    final: float | None
    """Forecast of the accuracy at the last step of the run, entropy extrapolated too."""
    final_low: float | None
    """95 % band for what will be observed."""
    final_high: float | None


class VerdictRow(Row):
    """One problem of a test evaluation, with its verdicts."""

    step: int
    split: Literal["validation", "test"]
    problem: str
    """Content hash of the problem."""
    prompt: str
    answer: str
    greedy_response: str | None
    greedy_verdict: str | None
    verdicts: dict[str, int]
    """Number of sampled responses by verdict: right, wrong, unparsable, time-out, crash, error, not applicable."""


class SampleRow(Row):
    """A sampled response with one entry a token in each column."""

    step: int
    group: int
    """Number of the group in the run."""
    sample: int
    prompt: str
    answer: str
    verdict: str
    reward: float
    advantage: float
    tokens: list[str]
    logprobs: list[float]
    entropies: list[float]
    covariances: list[float] | None
    """Token covariance in the optimizer batch; None where the group was filtered out."""
    selected: list[bool] | None
    """Tokens the control chose."""


class VerifierFaultRow(Row):
    """A response whose judging timed out, crashed, failed, or needs a word; at most 20 a step."""

    phase: Literal["train", "validation", "test"]
    step: int
    group: int
    """Number of the group in the run; of the problem in an evaluation."""
    sample: int
    prompt: str
    """Its end."""
    response: str
    """Its end."""
    verdict: str
    reason: str


class RejectedRow(Row):
    """A row of the task's data set that was left out because it cannot be used."""

    place: str
    """`file:line`, or `file, row n`, counted from 1."""
    reason: str
    row: str
    """Its beginning, as text."""


class AttributionRow(Row):
    """The entropy change of one optimizer step on the probe states, by cause; nats, mean over the states.

    sum of parts + unattributed + second_order_logits + second_order_entropy = observed
    """

    update: int
    """The optimizer step, as in UpdateRow."""
    step: int
    num_states: int
    entropy_before: float
    parts: dict[str, float]
    """First-order change by cause: policy term on right and on wrong answers as if nothing were clipped or removed,
    what the ratio clip and the control took away, the other terms of the loss, momentum. A cause that did nothing is
    left out."""
    unattributed: float
    """First-order change along the step that the weights took, minus the parts: rounding of the weights, and whatever
    no cause names."""
    second_order_logits: float
    """Lemma 1 from the logits as they moved, minus the first-order change: the network is not linear in its weights."""
    second_order_entropy: float
    """Observed minus Lemma 1: entropy is not linear in the logits."""
    observed: float
    """Mean over states of H_after - H_before."""
    grad_factor: float
    """Common factor of all gradient parts from the clip of the gradient's norm; 1 where it did not act."""


ROW_FILES: dict[str, type[Row]] = {
    "steps": StepRow,
    "updates": UpdateRow,
    "evaluations": EvaluationRow,
    "forecasts": ForecastRow,
    "verdicts": VerdictRow,
    "samples": SampleRow,
    "verifier_faults": VerifierFaultRow,
    "rejected_rows": RejectedRow,
    "attributions": AttributionRow,
}
