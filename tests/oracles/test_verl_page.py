"""The counts that docs/verl.md prints, from the committed answers of verl."""

from __future__ import annotations

from tests.contract.source import ROOT
from tests.oracles.test_verl_losses import (
    FAR,
    RANDOM,
    Answer,
    asks_for_a_token,
    clip,
    exact_kl_cov,
    made_by,
    num_missed,
    of_covent,
    of_verl,
    ratio_answer,
    released_clip_cov,
)
from tests.oracles.verl_batches import VerlBatch

PAGE = " ".join((ROOT / "docs" / "verl.md").read_text(encoding="utf-8").split())


def counted(one_more: int = 0) -> list[str]:
    """The page's sentences with the counts as they are, or each of them off by something."""

    def without_dual_clip(batch: VerlBatch) -> Answer:
        return of_covent(batch, "vanilla", made_by(batch, clip(batch)))

    less_than_one = [batch for batch in RANDOM if not asks_for_a_token(batch)]
    num_less, num_seen = len(less_than_one), num_missed("kl_cov", exact_kl_cov, less_than_one)
    by_chance = [batch for batch in RANDOM if batch.settings["clip_cov_ratio"] != 1]
    num_drawn = num_missed("clip_cov", released_clip_cov, by_chance)
    gspo, cispo = ratio_answer("gspo"), ratio_answer("cispo")
    times = max(abs(gspo(batch).loss / of_verl(batch, "gspo").loss) for batch in FAR)
    gap = max(abs(cispo(batch).loss - of_verl(batch, "cispo").loss) for batch in FAR)
    return [
        f"`controls.kl_cov.kl_cov` | {len(RANDOM) - num_missed('kl_cov', exact_kl_cov) + one_more} of {len(RANDOM)} |",
        f"Left out, {num_missed('vanilla', without_dual_clip) + one_more} of the {len(RANDOM)} batches differ",
        f"In {num_less + one_more} batches KL-Cov asks for less than one; in {num_seen} of these the loss differs, in"
        f" the other {num_less - num_seen} the policy",
        f"{num_drawn + one_more} of the {len(by_chance)} batches with chance",
        f"the loss was up to {round(times, -2) + 100 * one_more:,.0f} times as large",
        f"{gap * (1 + one_more):.1e} in a loss at most".replace("e-0", "e-"),
    ]


def test_the_counts_are_those_of_the_oracle() -> None:
    assert [sentence for sentence in counted() if sentence not in PAGE] == []
    assert [sentence for sentence in counted(one_more=1) if sentence in PAGE] == []
