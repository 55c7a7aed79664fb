"""What opening the page costs with 3 methods × 3 seeds × 200 steps and 2,000 coloured rollouts; figures are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covent.report.page import write_report
from covent.store.reader import Run, read_run
from covent.store.schema import SampleRow
from tests.support.synthetic import SHAPES, write_run

pytestmark = pytest.mark.browser

OPENS_S = 2.0
VERDICT_S = 1.0
FILE_BYTES = 12 * 10**6
NUM_ROLLOUTS = 2000
NUM_TOKENS = 49
TRIES = 5
"""Other work on the machine only ever adds to a time: the fastest try counts."""


def rollouts(run: Run, count: int, rng: np.random.Generator) -> list[SampleRow]:
    """Responses of 49 tokens with every column, of random numbers, which compress worse than a policy's."""
    words = [f"word{place}" for place in range(500)]
    made = []
    for place in range(count):
        tokens = [words[i] for i in rng.integers(0, 500, NUM_TOKENS)]
        logprobs = (-rng.gamma(0.3, 0.5, NUM_TOKENS)).tolist()
        made.append(
            SampleRow(
                step=5 * (place % 40) + 2,
                group=place,
                sample=place % 8,
                prompt=f"Q {place} A",
                answer=str(place % 10),
                verdict="right" if place % 2 else "wrong",
                reward=float(place % 2),
                advantage=float(rng.normal()),
                tokens=tokens,
                logprobs=logprobs,
                entropies=rng.gamma(0.5, 0.4, NUM_TOKENS).tolist(),
                covariances=rng.normal(0, 0.5, NUM_TOKENS).tolist(),
                selected=(rng.random(NUM_TOKENS) < 0.01).tolist(),
                update=place,
                group_rewards=[0.0, 1.0] * 4,
                old_logprobs=(np.array(logprobs) * 0.99).tolist(),
                cut=(rng.random(NUM_TOKENS) < 0.01).tolist(),
                after_logprobs=(np.array(logprobs) * 1.01).tolist(),
                after_entropies=rng.gamma(0.5, 0.4, NUM_TOKENS).tolist(),
                alternatives=[
                    [(words[i], float(-rng.gamma(0.5, 2))) for i in rng.integers(0, 500, 4)] for _ in range(NUM_TOKENS)
                ],
            )
        )
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    runs = []
    for method in SHAPES:
        for seed in range(3):
            run = read_run(write_run(folder / f"{method}-{seed}", method, seed, num_steps=200))
            runs.append(Run(**(vars(run) | {"samples": rollouts(run, NUM_ROLLOUTS // 9 + 1, rng)})))
    return write_report(runs, folder / "report.html")


DONE = {
    "": "html[data-ready]",
    "#curves": "#curves .plot .main-svg",
    "#rollouts": "#rollouts .sample .token",
}
"""Where a page is opened, and what is there when that place can be read."""

READ_AT = """(done) => new Promise((read) => {
    const look = () => (document.querySelector(done) && performance.getEntriesByType('navigation')[0].loadEventEnd
        ? requestAnimationFrame(() => read(performance.now())) : setTimeout(look, 5));
    look();
})"""


def opening(large: Path, opened: Any, place: str) -> tuple[float, float]:
    """Seconds from the start until the place is drawn, and until the verdict is painted."""
    page = opened(large, place=place).page
    done = page.evaluate(READ_AT, DONE[place])
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.close()
    return done / 1000, painted / 1000


def test_the_page_opens_fast_and_is_small(large: Path, opened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tries = {place: [opening(large, opened, place) for _ in range(TRIES)] for place in DONE}
    opens = {place: min(done for done, _ in found) for place, found in tries.items()}
    painted = min(paint for _, paint in tries[""])
    page = opened(large).ready().page
    spent = page.evaluate(
        """() => { const start = performance.now(); const form = document.querySelector('#rollouts form');
            form.elements.order.value = 'covariance'; form.dispatchEvent(new Event('input', { bubbles: true }));
            return performance.now() - start; }"""
    )
    shown = int(page.locator("#rollouts").get_attribute("data-shown"))
    size = large.stat().st_size
    with capsys.disabled():
        print(f"\n9 runs of 200 steps, {shown} rollouts: file {size / 1e6:.1f} MB; sorting all rollouts {spent:.0f} ms")
        for place, found in tries.items():
            listed = ", ".join(f"{done:.2f}" for done, _ in found)
            print(f"  opened at {place or 'its top'}: {opens[place]:.2f} s (of {TRIES}: {listed})")
        print(f"  verdict painted after {painted:.2f} s ({', '.join(f'{paint:.2f}' for _, paint in tries[''])})")
    assert shown >= NUM_ROLLOUTS
    assert size < FILE_BYTES
    assert max(opens.values()) < OPENS_S
    assert painted < VERDICT_S
