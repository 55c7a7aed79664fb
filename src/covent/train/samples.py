"""Responses that are kept with their token columns, for the report: which of a batch, and what is said of each token.

Nothing here changes the run: the passes are without gradient and draw no random number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from covent.core.penalties import NO_INPUTS
from covent.core.plan import Measured, Plan
from covent.errors import NonFiniteError
from covent.rollout.alternatives import top_alternatives
from covent.rollout.batch import Responses, score
from covent.store.schema import SampleRow
from covent.train.model import LanguageModel
from covent.train.rollouts import Rollout
from covent.train.step import LossChoice, OptimizerBatch

ALTERNATIVES = 4
"""Most likely tokens that are written down at each place."""

_AT_ONCE = 8
"""Responses scored in one forward pass."""

Alternatives = list[list[tuple[str, float]]]
"""For each token of a response, the most likely tokens with their log-probs, most likely first."""


@dataclass(frozen=True)
class KeptSamples:
    """Some responses of one optimizer batch, chosen before its step is taken."""

    index: Tensor
    """Their rows in the batch."""
    responses: Responses
    alternatives: list[Alternatives] | None
    """Of each response, before the step; None where they were not asked for."""
    temperature: float

    @classmethod
    def before(
        cls, model: LanguageModel, batch: OptimizerBatch, num: int, *, temperature: float, detail: bool
    ) -> KeptSamples:
        """Right and wrong responses in turn, best first; with `detail` also what else the policy might have said."""
        order = torch.argsort(batch.advantages, descending=True, stable=True).tolist()
        alternating = [row for pair in zip(order, reversed(order), strict=True) for row in pair]
        index = torch.tensor(list(dict.fromkeys(alternating))[:num], dtype=torch.int64)
        responses = batch.responses.rows(index.to(batch.responses.mask.device))
        found = _alternatives(model, responses, temperature) if detail and len(index) else None
        return cls(index, responses, found, temperature)

    def rows(
        self,
        model: LanguageModel,
        at: tuple[int, int],
        rollout: Rollout,
        batch: OptimizerBatch,
        measured: Measured,
        plan: Plan,
        choice: LossChoice,
    ) -> list[SampleRow]:
        """The rows of these responses, after the step was taken.

        Args:
          model: the policy after the step.
          at: rollout step and optimizer step.
          rollout: it was sampled in.
          batch, measured, plan, choice: of the optimizer step.
        """
        columns = {
            "logprobs": measured.logprobs,
            "entropies": measured.entropies,
            "covariances": measured.covariances(),
            "selected": plan.chosen,
            "old_logprobs": measured.old_logprobs,
            "cut": _cut(measured, plan, choice),
        }
        columns = {name: column[self.index.to(column.device)] for name, column in columns.items()}
        after = None if self.alternatives is None else _after(model, self.responses, self.temperature)
        if after is not None:
            columns |= dict(zip(("after_logprobs", "after_entropies"), after, strict=True))
        rows = []
        for place, row in enumerate(self.index.tolist()):
            mask, group = self.responses.mask[place], int(self.responses.group[place])
            problem, judgements = rollout.problems[group], rollout.judgements[group]
            judgement = judgements[int(self.responses.sample[place])]
            ids = self.responses.response_ids[place][mask].tolist()
            rows.append(
                SampleRow(
                    step=at[0],
                    update=at[1],
                    group=group,
                    sample=int(self.responses.sample[place]),
                    prompt=problem.prompt,
                    answer=problem.answer,
                    verdict=str(judgement.verdict),
                    reward=judgement.reward,
                    advantage=float(batch.advantages[row]),
                    group_rewards=[each.reward for each in judgements if each.reward is not None],
                    tokens=model.tokenizer.convert_ids_to_tokens(ids),
                    alternatives=None if self.alternatives is None else self.alternatives[place],
                    **{name: column[place][mask].tolist() for name, column in columns.items()},
                )
            )
        return rows


def _alternatives(model: LanguageModel, responses: Responses, temperature: float) -> list[Alternatives]:
    num = min(ALTERNATIVES, len(model.tokenizer))
    ids, logprobs = top_alternatives(model.network, responses, num, temperature=temperature)
    found = []
    for row, mask in enumerate(responses.mask):
        tokens = [model.tokenizer.convert_ids_to_tokens(each) for each in ids[row][mask].tolist()]
        # They are for looking at; all their digits would be most of the file.
        values = [[round(value, 5) for value in each] for each in logprobs[row][mask].tolist()]
        found.append([list(zip(*pair, strict=True)) for pair in zip(tokens, values, strict=True)])
    return found


def _cut(measured: Measured, plan: Plan, choice: LossChoice) -> Tensor:
    """[B, T] bool: tokens whose policy gradient the clip of the ratio takes away, at either side."""
    bare = replace(plan, kl_form=None, reference_weight=None, entropy_weight=None)
    columns = measured.logprobs, measured.old_logprobs, measured.advantages, measured.mask
    terms = choice.policy_loss(*columns, bare, NO_INPUTS)
    return terms.cut_low | terms.cut_high | terms.cut_dual


@torch.no_grad()
def _after(model: LanguageModel, responses: Responses, temperature: float) -> tuple[Tensor, Tensor] | None:
    """Log-probs and entropies [B, T] of the policy as the step left it; None where it has none."""
    parts = []
    try:
        for first in range(0, len(responses), _AT_ONCE):
            part = responses.rows(slice(first, first + _AT_ONCE))
            parts.append(score(model.network, part, temperature=temperature))
    except NonFiniteError:
        # The next measurement says so, and decides what becomes of the run.
        return None
    logprobs, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, entropies
