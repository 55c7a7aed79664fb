"""The entropy change of a run by cause: the rows of its attributions, added up."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from covent.store.reader import Run

LEFT_OVER = {
    "unattributed": "Along the step that the weights took, but named by no cause: rounding, if nothing is missing.",
    "second order, logits": "The network is not linear in its weights: Lemma 1 from the moved logits minus the causes.",
    "second order, entropy": "Entropy is not linear in the logits: observed minus Lemma 1.",
}
"""What no cause explains, by name, and how to read it."""


class AttributionSummary(BaseModel):
    """Sums over the attributed optimizer steps, nats on the probe states: parts + left_over = observed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_updates: int
    """Optimizer steps that were attributed."""
    num_states: int
    parts: dict[str, float]
    """By cause, in the order of the rows."""
    left_over: dict[str, float]
    """Keys as in `LEFT_OVER`."""
    observed: float


def attribution_summary(run: Run) -> AttributionSummary | None:
    """The attributed steps of a run added up; None if there are none."""
    rows = run.attributions
    if not rows:
        return None
    causes = dict.fromkeys(cause for row in rows for cause in row.parts)
    return AttributionSummary(
        num_updates=len(rows),
        num_states=rows[0].num_states,
        # A cause that is not in a row did nothing there.
        parts={cause: sum(row.parts.get(cause, 0.0) for row in rows) for cause in causes},
        left_over={
            "unattributed": sum(row.unattributed for row in rows),
            "second order, logits": sum(row.second_order_logits for row in rows),
            "second order, entropy": sum(row.second_order_entropy for row in rows),
        },
        observed=sum(row.observed for row in rows),
    )
