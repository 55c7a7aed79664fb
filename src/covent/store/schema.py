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
faults.jsonl       FaultRow: an optimizer step or rollout that was not applied because a number was not finite
faults/            the rollouts of those
resumes.jsonl      ResumeRow: each time the run was taken up again, and what had changed
checkpoints/       what `covent resume` goes on from (see covent.store.checkpoint)
run.lock           locked while a process writes to the folder, and which process
model/             the final weights (safetensors) and tokenizer
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covent.readings import CovarianceTail, Mean, PolarityReading
from covent.store.ranges import Control, Count, Entropy, NotNegative, Positive, Probe, Proportion, Settings, Share

SCHEMA_VERSION = 1


class Row(BaseModel):
    """Base of all rows: unknown fields are errors, and so are NaN and infinite values when written."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_TIMING = {"timing": True}

Seconds = Annotated[float, Field(json_schema_extra=_TIMING)]
"""Wall time. It is a field's mark too: of a run that is repeated or resumed, all but these must come out the same."""

SecondsByPhase = Annotated[dict[str, float], Field(json_schema_extra=_TIMING)]
"""Wall times by name, marked in the same way."""


def untimed(row: Row) -> dict[str, Any]:
    """The fields of a row that are not wall times: what the same settings and seed must reproduce bit for bit."""
    marked = {name for name, field in type(row).model_fields.items() if field.json_schema_extra == _TIMING}
    return row.model_dump(exclude=marked)


class RunHeader(Row):
    """What a run is: settings, seeds, versions, hardware; everything needed to run it again."""

    schema_version: int
    name: str
    """Short label for legends, for example `grpo`, `clip_cov`."""
    created: str
    """UTC time, ISO 8601."""
    config: Settings
    """The complete settings of the run, nested, as the trainer used them."""
    seed: int
    threads: int
    """CPU threads of torch: results are reproducible at one thread count only."""
    versions: dict[str, str]
    """covent, python, torch, transformers, numpy, platform."""
    commit: str | None
    """Git commit of covent's working tree, with `+dirty` if it had changes; None outside a checkout."""
    hardware: str
    num_parameters: Count
    start_model: str | None
    """Content hash of the weights that RL starts from; None until the warm start has ended."""


NO_STATUS = "status.json is missing"
UNREADABLE_STATUS = "status.json cannot be read"


class Status(Row):
    """Where a run stands."""

    state: Literal["running", "finished", "interrupted", "failed"]
    step: Count
    """Rollout steps completed."""
    num_steps: Count
    """Rollout steps asked for."""
    message: str = ""
    seconds: Seconds = 0.0
    """Wall time of the whole run so far."""

    @property
    def is_lost(self) -> bool:
        """Whether it was not read but stands for a file that could not be: then it counts the rows that are there."""
        return self.message in {NO_STATUS, UNREADABLE_STATUS}


class StepRow(Row):
    """One rollout step. All quantities are of the policy that sampled it, before the updates of this step."""

    step: Count
    """0-based: the rollout of step s is sampled after s rounds of updates."""
    entropy: Entropy
    """The paper's entropy: exact, T = 1, mean over a response's tokens, then over all responses, before filtering."""
    entropy_token: Entropy
    """The same tokens, each with equal weight."""
    reward: Mean
    """Training reward over all judged responses before filtering."""
    response_length: NotNegative
    truncated: Share
    """Share of responses that hit the length limit without an end token."""
    unparsable: Share
    """Share of responses in which the verifier found no answer."""
    error: Share | None = None
    """Share of responses that could not be judged; they are in no baseline and carry no gradient."""
    verdicts: dict[str, Count] = {}
    """Responses by verdict. Time-outs and crashes are the answer's own doing and count as wrong."""
    num_groups: Count
    """Groups (prompts) sampled, over all generation rounds."""
    num_all_right: Count
    num_all_wrong: Count
    num_kept_groups: Count
    """Groups with mixed rewards that went into the updates."""
    num_generations: Count
    """Generation rounds of this step; more than 1 only with dynamic sampling."""
    num_updates: Count
    """Optimizer steps taken on this rollout."""
    sampler_gap: float | None
    """Largest |learner log-prob - sampler log-prob| over kept tokens, nats: the parity check of the two code paths.
    None in a step of the embedded trainer that kept no group: the learner then reads nothing of the rollout."""
    num_not_applied: int = 0
    """Optimizer steps of this rollout that were not applied, see FaultRow; 1 for a rollout left out for a reward."""
    seconds: SecondsByPhase
    """Wall time by phase: rollout, measure, update, probe, evaluate."""


class UpdateRow(Row):
    """One optimizer step."""

    update: Count
    """0-based optimizer step over the whole run."""
    step: Count
    """The rollout step it belongs to."""
    num_responses: Count
    num_tokens: Count
    """Tokens that carry gradient."""
    loss: float
    grad_norm: float
    """Before clipping."""
    lr: float
    entropy: Entropy
    """Exact entropy of the current policy on the tokens of this batch (kept responses only)."""
    abs_log_ratio: NotNegative
    """Mean |log pi - log pi_old| over the tokens of the batch, before the step."""
    clip_low: Share
    """Share of tokens whose ratio lies below the clip range with A < 0."""
    clip_high: Share
    """Share of tokens whose ratio lies above the clip range with A > 0."""
    covariance: CovarianceTail
    control: Control
    probe: Probe | None
    polarity: PolarityReading | None = None
    """None in folders of an older covent."""


class Estimate(Row):
    """A proportion with a 95 % interval."""

    value: Proportion
    low: Proportion
    high: Proportion


class EvaluationRow(Row):
    """One evaluation. Intervals are Wilson intervals over problems."""

    step: Count
    """Policy after this many rounds of updates: 0 is the start."""
    split: Literal["validation", "test"]
    num_problems: Positive
    num_samples: Positive
    """Sampled responses per problem at temperature 1, besides one greedy response if `greedy` is not None."""
    greedy: Estimate | None
    avg: Estimate
    """avg@k with k = num_samples."""
    pass_at: dict[str, Estimate]
    """Unbiased pass@k; keys are k as text."""
    entropy: Entropy
    num_right: list[int]
    """Right sampled responses of each problem, in the fixed order of the problems."""
    unparsable: Share
    error: Share | None = None
    """Share of sampled responses that could not be judged; they are left out of all other numbers."""
    seconds: Seconds

    @model_validator(mode="after")
    def _fits_its_problems_and_samples(self) -> Self:
        if len(self.num_right) != self.num_problems:
            raise ValueError(f"num_right has {len(self.num_right)} entries for {self.num_problems} problems")
        wrong = next((right for right in self.num_right if not 0 <= right <= self.num_samples), None)
        if wrong is not None:
            raise ValueError(f"num_right has {wrong} right of {self.num_samples} samples")
        for k in self.pass_at:
            if not (k.isdecimal() and len(k) < 16 and str(int(k)) == k and 1 <= int(k) <= self.num_samples):
                raise ValueError(f"pass_at has the key '{k}'; its keys are numbers from 1 to {self.num_samples}")
        return self


class ForecastRow(Row):
    """What the law said about the rest of the run while it went on, from the points known by then."""

    step: Count
    """Rollout steps up to and including this one were known."""
    num_points: Count
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

    step: Count
    split: Literal["validation", "test"]
    problem: str
    """Content hash of the problem."""
    prompt: str
    answer: str
    greedy_response: str | None
    greedy_verdict: str | None
    verdicts: dict[str, Count]
    """Number of sampled responses by verdict: right, wrong, unparsable, time-out, crash, error, not applicable."""


COLUMNS = (
    *("logprobs", "entropies", "covariances", "selected", "old_logprobs"),
    *("cut", "after_logprobs", "after_entropies", "alternatives"),
)
"""Fields of a sample that have one entry a token."""


class SampleRow(Row):
    """A sampled response with one entry a token in each column."""

    step: Count
    group: Count
    """Number of the group in the run."""
    sample: Count
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
    update: Count | None = None
    """The optimizer step before which all columns were measured, as in UpdateRow. This and all below are None in
    folders of an older covent, or where they were not recorded."""
    group_rewards: list[float] | None = None
    """Rewards of the judged responses of its group."""
    old_logprobs: list[float] | None = None
    """Under the policy that sampled, as the learner has it."""
    cut: list[bool] | None = None
    """Tokens whose policy gradient the clip of the ratio took away."""
    after_logprobs: list[float] | None = None
    """After that optimizer step."""
    after_entropies: list[float] | None = None
    alternatives: list[list[tuple[str, float]]] | None = None
    """At each token the most likely ones with their log-probs, most likely first, before the step."""

    @model_validator(mode="after")
    def _columns_are_as_long_as_the_tokens(self) -> Self:
        for name in COLUMNS:
            column = getattr(self, name)
            if column is not None and len(column) != len(self.tokens):
                raise ValueError(f"{name} has {len(column)} entries for {len(self.tokens)} tokens")
        return self


class VerifierFaultRow(Row):
    """A response whose judging timed out, crashed, failed, or needs a word; at most 20 a step."""

    phase: Literal["train", "validation", "test"]
    step: Count
    group: Count
    """Number of the group in the run; of the problem in an evaluation."""
    sample: Count
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

    update: Count
    """The optimizer step, as in UpdateRow."""
    step: Count
    num_states: Count
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


class FaultRow(Row):
    """Something that was not applied because a number in it was NaN or infinite; the weights are as they were."""

    step: Count
    update: Count | None
    """The optimizer step; None when the whole rollout was left out."""
    tensor: str
    """The first bad tensor."""
    message: str
    in_a_row: Count
    """Faults since the last rollout step without one; the third stops the run."""
    rollout: str | None
    """File in the run folder with the prompts and what had been sampled; tensors lie beside it as safetensors."""


class ResumeRow(Row):
    """One time that a run was taken up again."""

    time: Annotated[str, Field(json_schema_extra=_TIMING)]
    """UTC, ISO 8601."""
    checkpoint: str | None
    """Name of the checkpoint; None when there was none yet and the run began again."""
    step: Count
    """Rollout steps that were done."""
    set_aside: list[str]
    """Newer checkpoints that were damaged or did not fit the rows, by their new names."""
    changes: dict[str, tuple[str, str]]
    """What differs from the run so far and was allowed by name: before, after."""


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
    "faults": FaultRow,
    "resumes": ResumeRow,
}
