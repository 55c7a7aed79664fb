"""Run folders with known truth, written by `RunWriter`: for tests of the store and of the report, and for looking.

The entropy falls along an exponential to a floor that depends on the method, the accuracy follows the law
R = -a·exp(H) + b with the constants below plus noise, and each optimizer step's entropy change on the probe states is
drawn first; the accounted and predicted numbers are that change plus errors of known size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from covent.readings import (
    COVARIANCE_EDGES,
    ControlReading,
    CovarianceTail,
    EntropyReading,
    Mean,
    PolarityReading,
    ProbeReading,
)
from covent.store.schema import (
    SCHEMA_VERSION,
    AttributionRow,
    Estimate,
    EvaluationRow,
    RunHeader,
    SampleRow,
    StepRow,
    UpdateRow,
    VerdictRow,
)
from covent.store.writer import RunWriter

EVERY = 5
UPDATES_PER_STEP = 4
NUM_PROBLEMS = 128
NUM_SAMPLES = 32
START_ENTROPY = 0.18
SHARES = (0.0002, 0.002, 0.02, 0.2, 0.5)


@dataclass(frozen=True)
class Shape:
    """How a method's curves look."""

    floor: float
    """Entropy that is left at the end, nats."""
    decay_steps: float
    slope: float
    """a of the law."""
    ceiling: float
    """Accuracy at zero entropy, b - a of the law."""
    drift: float
    """Accuracy that comes with time alone, over the whole run: what the law does not know."""
    coverage: float
    """pass@k of a problem that is not solved surely, at the end."""


SHAPES = {
    "grpo": Shape(floor=0.008, decay_steps=20.0, slope=2.5, ceiling=0.955, drift=0.0, coverage=0.945),
    "clip_cov": Shape(floor=0.070, decay_steps=16.0, slope=3.0, ceiling=1.10, drift=0.06, coverage=0.985),
    "kl_cov": Shape(floor=0.075, decay_steps=22.0, slope=2.9, ceiling=1.06, drift=0.06, coverage=0.98),
}


def write_run(
    folder: Path,
    method: str = "grpo",
    seed: int = 0,
    num_steps: int = 160,
    stop_after: int | None = None,
    text: Callable[[str], str] = str,
    evaluate: bool = True,
) -> Path:
    """Write a run folder and return it.

    Args:
        folder: a folder that does not exist yet.
        method: a key of `SHAPES`.
        seed: of all noise.
        num_steps: rollout steps asked for.
        stop_after: rollout steps written; fewer than `num_steps` makes an interrupted run.
        text: applied to the name, prompts, answers and tokens, for hostile or long text.
        evaluate: whether validation and test evaluations are written.
    """
    done = num_steps if stop_after is None else stop_after
    rng = np.random.default_rng([seed, *method.encode()])
    shape = SHAPES[method]
    header = _header(text(method), method, seed)
    config_yaml = f"seed: {seed}\ncontrol:\n  type: {method}\nevaluation:\n  every: {EVERY}\n"
    with RunWriter.create(folder, header, config_yaml, num_steps) as writer:
        if evaluate:
            _evaluate(writer, rng, shape, 0, num_steps, "test", text)
            _evaluate(writer, rng, shape, 0, num_steps, "validation", text)
        probe_entropy = START_ENTROPY
        for step in range(done):
            entropy = entropy_at(shape, step) * math.exp(rng.normal(0, 0.05))
            accuracy = accuracy_at(shape, entropy_at(shape, step), step / num_steps)
            writer.append("steps", _step_row(rng, step, entropy, accuracy))
            for part in range(UPDATES_PER_STEP):
                update = step * UPDATES_PER_STEP + part
                probe = _probe(rng, shape, step, probe_entropy)
                probe_entropy += probe.observed
                writer.append("updates", _update_row(rng, method, update, step, entropy, probe))
                if method == "clip_cov" and update % 20 == 0:
                    writer.append("attributions", _attribution_row(update, step, probe))
            if step % 40 == 0:
                for sample in range(3):
                    writer.append("samples", _sample_row(rng, step, sample, entropy, text))
            if evaluate and step % EVERY == EVERY // 2:
                _evaluate(writer, rng, shape, step, num_steps, "validation", text)
        if done == num_steps:
            if evaluate:
                _evaluate(writer, rng, shape, num_steps, num_steps, "test", text)
            writer.status("finished", step=done, seconds=0.21 * done)
        else:
            writer.status("interrupted", step=done, message="Ctrl-C", seconds=0.21 * done)
    return folder


def entropy_at(shape: Shape, step: float) -> float:
    """The entropy of the run without noise, nats."""
    return shape.floor + (START_ENTROPY - shape.floor) * math.exp(-step / shape.decay_steps)


def accuracy_at(shape: Shape, entropy: float, progress: float) -> float:
    """The accuracy of the run without noise: the law, plus what comes with time alone."""
    law = shape.ceiling - shape.slope * (math.exp(entropy) - 1) - shape.drift * (1 - progress)
    return min(max(law, 0.0), 1.0)


def _header(name: str, method: str, seed: int) -> RunHeader:
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        name=name,
        created="2026-01-02T03:04:05Z",
        config={
            "seed": seed,
            "task": {"name": "clock", "preset": "default"},
            "control": {"type": method, "clip_cov_ratio": 0.004, "clip_cov_lb": 1.0, "clip_cov_ub": 5.0}
            if method == "clip_cov"
            else {"type": method},
            "evaluation": {"every": EVERY, "num_samples": NUM_SAMPLES},
            "optimizer": {"lr": 3e-4, "betas": [0.9, 0.99]},
        },
        seed=seed,
        threads=1,
        versions={"covent": "0.1.0", "python": "3.12.3", "torch": "2.13.0", "numpy": "2.4.0", "platform": "Linux"},
        commit="0123456789abcdef0123456789abcdef01234567+dirty",
        hardware="2 cores, no GPU",
        num_parameters=100_032,
        start_model="sha256:5f1c0d",
    )


def _entropy(value: float, weighting: str, tokens: str, count: int) -> EntropyReading:
    return EntropyReading.model_validate(
        {
            "sum": value * count,
            "count": count,
            "estimator": "exact",
            "temperature": 1.0,
            "policy": "learner",
            "weighting": weighting,
            "tokens": tokens,
        }
    )


def _share(rng: np.random.Generator, probability: float, count: int) -> Mean:
    return Mean(sum=float(rng.binomial(count, min(max(probability, 0.0), 1.0))), count=count)


def _step_row(rng: np.random.Generator, step: int, entropy: float, accuracy: float) -> StepRow:
    right = int(rng.binomial(32, accuracy**3))
    wrong = int(rng.binomial(32 - right, (1 - accuracy) ** 3))
    return StepRow(
        step=step,
        entropy=_entropy(entropy, "response", "all responses", 256),
        entropy_token=_entropy(entropy * 0.97, "token", "all responses", 4352),
        reward=_share(rng, accuracy, 256),
        response_length=Mean(sum=256 * 17.0, count=256),
        truncated=_share(rng, 0.002, 256),
        unparsable=_share(rng, 0.01, 256),
        num_groups=32,
        num_all_right=right,
        num_all_wrong=wrong,
        num_kept_groups=32 - right - wrong,
        num_generations=1,
        num_updates=UPDATES_PER_STEP,
        verdicts={"right": round(256 * accuracy), "wrong": 256 - round(256 * accuracy)},
        sampler_gap=2e-6,
        seconds={"rollout": 0.07, "measure": 0.04, "update": 0.09, "probe": 0.01},
    )


def _probe(rng: np.random.Generator, shape: Shape, step: int, before: float) -> ProbeReading:
    """The observed change is the slope of the curve plus noise; Lemma 1 misses it by 5 %, the theorems by far more."""
    trend = (entropy_at(shape, step + 1) - entropy_at(shape, step)) / UPDATES_PER_STEP
    observed = trend + rng.normal(0, 0.4 * abs(trend) + 5e-5)
    return ProbeReading(
        num_states=256,
        entropy_before=max(before, 0.0),
        predicted_theorem1=0.3 * trend * math.exp(rng.normal(0, 0.5)),
        predicted_theorem2=0.6 * trend * math.exp(rng.normal(0, 0.5)) + 0.02 * observed,
        accounted=observed * (1 + rng.normal(0, 0.05)),
        observed=observed,
    )


def _update_row(
    rng: np.random.Generator, method: str, update: int, step: int, entropy: float, probe: ProbeReading
) -> UpdateRow:
    mean = 0.25 * entropy * math.exp(rng.normal(0, 0.2))
    std = 3.0 * math.sqrt(entropy) * math.exp(rng.normal(0, 0.1))
    tail = {"min": -4.0, "p01": -1.2, "p50": 0.0, "p90": 0.15, "p99": 1.3, "p99.9": 3.6, "max": 6.0}
    return UpdateRow(
        update=update,
        step=step,
        num_responses=48,
        num_tokens=816,
        loss=float(rng.normal(0, 0.01)),
        grad_norm=float(rng.gamma(4, 0.1)),
        lr=3e-4,
        entropy=_entropy(entropy * 1.2, "response", "kept responses", 48),
        abs_log_ratio=Mean(sum=816 * 0.01, count=816),
        clip_low=_share(rng, 0.001, 816),
        clip_high=_share(rng, 0.002, 816),
        covariance=CovarianceTail(
            mean=mean,
            std=std,
            quantiles={key: value * std * math.exp(rng.normal(0, 0.1)) for key, value in tail.items()},
            top_means={f"{share:g}": None if share * 816 < 1 else std * (2.5 - share * 4) for share in SHARES},
            positive_shares={f"{share:g}": None if share * 816 < 1 else min(1.0, share**0.3) for share in SHARES},
            histogram=_histogram(rng, mean, std),
        ),
        control=_control(rng, method),
        probe=probe,
        polarity=PolarityReading(num_tokens=816, num_raising=300, num_lowering=500, raising=40.0, lowering=-816 * mean),
    )


def _attribution_row(update: int, step: int, probe: ProbeReading) -> AttributionRow:
    """Right answers lower entropy, wrong ones raise it by half as much; the rest is what Lemma 1 misses."""
    return AttributionRow(
        update=update,
        step=step,
        num_states=probe.num_states,
        entropy_before=probe.entropy_before,
        parts={"right answers": 2 * probe.accounted, "wrong answers": -probe.accounted},
        unattributed=0.0,
        second_order_logits=0.0,
        second_order_entropy=probe.observed - probe.accounted,
        observed=probe.observed,
        grad_factor=1.0,
    )


def _histogram(rng: np.random.Generator, mean: float, std: float) -> list[int]:
    values = rng.laplace(mean, std / 2, 816)
    return np.bincount(np.searchsorted(COVARIANCE_EDGES, values), minlength=len(COVARIANCE_EDGES) + 1).tolist()


def _control(rng: np.random.Generator, method: str) -> ControlReading:
    if method == "grpo":
        return ControlReading(
            name="grpo", asked_frac=None, num_tokens=816, num_candidates=None, num_selected=0, took_all_candidates=False
        )
    asked = 0.004 if method == "clip_cov" else 0.05
    wanted = math.floor(asked * 816)
    candidates = int(rng.poisson(5)) if method == "clip_cov" else 816
    return ControlReading(
        name=method,
        asked_frac=asked,
        num_tokens=816,
        num_candidates=candidates,
        num_selected=min(wanted, candidates),
        took_all_candidates=candidates <= wanted,
    )


def _evaluate(
    writer: RunWriter,
    rng: np.random.Generator,
    shape: Shape,
    step: int,
    num_steps: int,
    split: str,
    text: Callable[[str], str],
) -> None:
    entropy = entropy_at(shape, step)
    accuracy = accuracy_at(shape, entropy, step / num_steps)
    collapse = 1 - entropy / START_ENTROPY
    coverage = max(accuracy, 0.93 + (shape.coverage - 0.93) * collapse)
    num_samples = NUM_SAMPLES if split == "test" else 4
    solvable = rng.random(NUM_PROBLEMS) < coverage
    num_right = np.where(solvable, rng.binomial(num_samples, min(1.0, accuracy / coverage), NUM_PROBLEMS), 0)
    ks = [k for k in (1, 4, 8, 32) if k <= num_samples]
    writer.append(
        "evaluations",
        EvaluationRow.model_validate(
            {
                "step": step,
                "split": split,
                "num_problems": NUM_PROBLEMS,
                "num_samples": num_samples,
                "greedy": interval(min(1.0, accuracy + 0.05)) if split == "test" else None,
                "avg": interval(float(num_right.mean()) / num_samples),
                "pass_at": {str(k): interval(_pass_at(num_right, num_samples, k)) for k in ks},
                "entropy": _entropy(entropy, "response", "all responses", NUM_PROBLEMS * num_samples),
                "num_right": [int(count) for count in num_right],
                "unparsable": _share(rng, 0.01, NUM_PROBLEMS * num_samples),
                "seconds": 2.5 if split == "test" else 0.2,
            }
        ),
    )
    if split != "test":
        return
    for index in range(4):
        right = int(num_right[index])
        writer.append(
            "verdicts",
            VerdictRow(
                step=step,
                split="test",
                problem=f"{index:08x}",
                prompt=text("Q 4 * 5 - 8 + 7 A"),
                answer=text("9"),
                greedy_response=text("4 * 5 is 0 0 + 2 is 2 2 + 7 is 9 answer 9"),
                greedy_verdict="right",
                verdicts={"right": right, "wrong": num_samples - right, "unparsable": 0},
            ),
        )


def interval(value: float, count: int = NUM_PROBLEMS) -> Estimate:
    """The Wilson interval at 95 %."""
    z = 1.959963984540054
    centre = (value + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count))
    return Estimate(value=value, low=min(value, max(0.0, centre - half)), high=max(value, min(1.0, centre + half)))


def _pass_at(num_right: np.ndarray, num_samples: int, k: int) -> float:
    return float(
        np.mean([1 - math.comb(num_samples - int(right), k) / math.comb(num_samples, k) for right in num_right])
    )


def _sample_row(
    rng: np.random.Generator, step: int, sample: int, entropy: float, text: Callable[[str], str]
) -> SampleRow:
    words = ["4", "*", "5", "is", "0", "0", "+", "2", "is", "2", "2", "+", "7", "is", "9", "answer", "9", "<eos>"]
    right = sample != 2
    entropies = rng.gamma(0.5, 2 * entropy, len(words))
    return SampleRow(
        step=step,
        group=step * 32 + 1,
        sample=sample,
        prompt=text("Q 4 * 5 - 8 + 7 A"),
        answer=text("9"),
        verdict="right" if right else "wrong",
        reward=float(right),
        advantage=0.6 if right else -1.6,
        tokens=[text(word) for word in words],
        logprobs=[float(value) for value in -rng.gamma(0.4, entropy, len(words))],
        entropies=[float(value) for value in entropies],
        covariances=[float(value) for value in rng.normal(0, 0.5, len(words))] if sample != 1 else None,
        selected=[bool(value) for value in rng.random(len(words)) < 0.05] if sample != 1 else None,
        **(_detail(rng, step, entropies, text, words) if sample == 0 else {}),
    )


def _detail(
    rng: np.random.Generator, step: int, entropies: np.ndarray, text: Callable[[str], str], words: list[str]
) -> dict[str, Any]:
    """What only a newer covent writes down."""
    first = -rng.gamma(0.4, 0.1, len(words))
    return {
        "update": 4 * step + 3,
        "group_rewards": [1.0, 1.0, 0.0, 1.0],
        "old_logprobs": first.tolist(),
        "cut": [place == 3 for place in range(len(words))],
        "after_logprobs": (first / 2).tolist(),
        "after_entropies": (entropies * 0.9).tolist(),
        "alternatives": [[(text(word), -0.1), (text("7"), -2.5)] for word in words],
    }
