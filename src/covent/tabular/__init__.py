"""The tabular lab: softmax policies small enough that every expectation is a sum, and the paper's theory on them.

numpy and float64 only; importing this never imports torch.

    tree, logits = bandit(rewards), np.zeros((1, len(rewards)))
    sides = theorem_1(tree, logits, step_size=1e-3)     what the theorem predicts, and what happens
    error_order(lambda eta: theorem_1(tree, logits, eta).relative_errors).slope     1: the error is of second order
    study()                                             every statement, and every broken assumption: `covent theory`

Where the next thing goes: a quantity of the logits alone in `softmax`; of problem and policy in `tree`; a direction to
move in in `gradient` or `grpo`; a claim with two sides in `statements`; a setting to measure it in in `cases`.

Source: arXiv 2505.22617, section 3 and appendix E.
"""

from covent.tabular.cases import BROKEN, HOLDING, Case, Step
from covent.tabular.gradient import (
    enumerated_gradient,
    fisher,
    natural_gradient,
    policy_gradient,
    shared_gradient,
    shared_natural_gradient,
)
from covent.tabular.grpo import (
    Rollouts,
    expected_standardised_advantages,
    expected_surrogate,
    expected_surrogate_gradient,
    group_centred,
    group_standardised,
    leave_one_out,
    sample,
    sampled_gradient,
)
from covent.tabular.order import ErrorOrder, error_order
from covent.tabular.softmax import covariance, entropy, entropy_change, log_policy, policy, score
from covent.tabular.statements import (
    Sides,
    lemma_1,
    natural_entropy_slope,
    proposition_1,
    proposition_1_visited,
    theorem_1,
    theorem_1_visited,
    theorem_2,
    vanilla_entropy_slope,
)
from covent.tabular.steps import Ascent, adam_direction, ascent
from covent.tabular.theory import CaseReading, Study, measure, study
from covent.tabular.tree import (
    Trajectory,
    Tree,
    action_values,
    advantages,
    bandit,
    expected_return,
    full_tree,
    optimal_return,
    trajectories,
    visitation,
    visited_entropy,
)

__all__ = [
    "BROKEN",
    "HOLDING",
    "Ascent",
    "Case",
    "CaseReading",
    "ErrorOrder",
    "Rollouts",
    "Sides",
    "Step",
    "Study",
    "Trajectory",
    "Tree",
    "action_values",
    "adam_direction",
    "advantages",
    "ascent",
    "bandit",
    "covariance",
    "entropy",
    "entropy_change",
    "enumerated_gradient",
    "error_order",
    "expected_return",
    "expected_standardised_advantages",
    "expected_surrogate",
    "expected_surrogate_gradient",
    "fisher",
    "full_tree",
    "group_centred",
    "group_standardised",
    "leave_one_out",
    "lemma_1",
    "log_policy",
    "measure",
    "natural_entropy_slope",
    "natural_gradient",
    "optimal_return",
    "policy",
    "policy_gradient",
    "proposition_1",
    "proposition_1_visited",
    "sample",
    "sampled_gradient",
    "score",
    "shared_gradient",
    "shared_natural_gradient",
    "study",
    "theorem_1",
    "theorem_1_visited",
    "theorem_2",
    "trajectories",
    "vanilla_entropy_slope",
    "visitation",
    "visited_entropy",
]
