"""docs/performance.md from the committed results of benchmarks/lm_head.py and benchmarks/lm_head_training.py."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

OURS = "covent, "
TARGETS = (
    ("bf16", "covent, low memory", 1.70),
    ("bf16", "covent, low memory, C", 1.45),
    ("bf16", "covent, 512 MiB budget, C", 1.22),
    ("fp32", "covent, low memory", 1.50),
    ("fp32", "covent, 512 MiB budget", 1.15),
    ("fp32", "covent, 512 MiB budget, C", 1.15),
)
"""Case, variant, and the time by the floor that was to be reached."""
PLOT = "images/lm_head_memory.svg"
MEMORY_TARGET = ("bf16", "covent, low memory, C", 120)
"""MiB beyond the weight's gradient."""
ERROR_TARGET = ("bf16_32k", "covent, float32 logits, C", 2.5e-3)
"""Relative error against float64."""

HEAD = """# Performance: log-prob and entropy from the LM head

<!-- Generated: python benchmarks/lm_head.py --page > docs/performance.md; the plot by benchmarks/lm_head_plot.py -->

`covent.core.lm_head` computes the log-prob of each token and the exact entropy of its distribution from hidden states
and the LM head, with the gradients of both, and never holds the `[tokens, vocabulary]` logits.

```python
from covent.core.lm_head import logprob_and_entropy_from_hidden

logprob, entropy = logprob_and_entropy_from_hidden(hidden, model.lm_head.weight, tokens, mask=mask, temperature=0.7)
```

A pass over the vocabulary is one unit of work, 2 · tokens · width · vocabulary operations. Logits that are kept need
three units, forward and backward; logits that are forgotten are made twice: four. So with nothing kept the best
possible time is 1.33 of the **floor**, the three bare matrix products (`benchmarks/lm_head_floor.py`) timed in the same
run. `workspace_bytes` buys the difference back, token by token. Tokens whose gradient is zero are left out of the
backward pass.
"""

READING = """Time: CPU time on one thread, forward and backward, with the entropy's gradient where there is one, by the
floor; median and range of the turns, all variants in turn in one process on a shared machine. Memory: what the
call adds to the peak of a fresh process, the gradient of the weight included. `C`: with the epilogue compiled on first
use, where there is a compiler; `COVENT_COMPILE=0` turns it off.

For bfloat16 inputs covent's default is the row `float32 logits`: exact, and slower on a CPU than logits in bfloat16,
since a CPU has no product of 16-bit numbers with a float32 result. The other rows of covent ask for
`logits_dtype=torch.bfloat16`, the rounding that every peer makes. prime-rl is not published as a package: left out.
"""

TARGET_NOTE = """Rows without `C` are plain torch, which is all that an installation needs. Whether the 1.15 in
float32 was meant for plain torch or for the compiled epilogue was left open, so both are listed. What separates the two
from 1.00 is the epilogue, and the first write to fresh memory, page by page: the kept logits and the gradient of the
weight, which the floor has at hand. Large pages help where the system has them free and cost where it must make them
first ([log.md](log.md)), so covent does not ask for them; `THP_MEM_ALLOC_ENABLE=1` makes PyTorch ask.
"""

KEPT = """For bfloat16 inputs with float32 logits, a budget keeps logits as float16 differences to the maximum. That
shows only in states with one nearly certain entry, whose gradient comes from entries far below it: half a step of
float16 is 3.9e-3 at 8 to 16 nats and 7.8e-3 at 16 to 32. Where all states are such, with one runner-up that far below
the top, the gradient of the hidden states is off by (relative to float64, by norm, the larger of log-prob's and
entropy's):

| runner-up, nats below | entropy | without a budget | all logits kept |
| ---: | ---: | ---: | ---: |
| 9 | 1e-3 | 1.7e-3 | 2.9e-3 |
| 12 | 8e-5 | 1.7e-3 | 3.0e-3 |
| 17 | 7e-7 | 1.6e-3 | 5.0e-3 |

So 2.5e-3 holds without a budget, and with one for states of ordinary entropy; with one and nearly certain states, 6e-3
(`tests/core/test_lm_head_contract.py`). Where other states share the batch, theirs is nearly all of the gradient.
"""

GPU = """## GPU

Not measured on a GPU: none was available. There the epilogue is two Triton kernels beside torch's matrix products with
float32 tiles. Triton's interpreter holds them to the torch epilogue on a CPU, and they compile for sm_90 without spills
(`tests/core/test_lm_head_kernels.py`). Kernels that fuse the product as well, which would matter for widths up to some
2,000, are not written: without a GPU nobody could say whether they pay. The vocabulary can lie on several ranks; 16
bytes a token travel forward (`tests/core/test_lm_head_ranks.py`, on gloo).
"""

USE = """## Where it is used

The embedded trainer scores a model this way when its vocabulary has at least 16,384 entries and its head is nothing
but a product (`covent.rollout.batch`). The rule looks at the model alone, so that the size of a micro-batch never
decides. Three places keep logits: sampling, in training and in evaluation, which draws from them and takes the entropy
on the way; a KL over the whole vocabulary; and the probe states, which need every logit before and after a step, and
theirs alone are made.

Under TRL the head stays TRL's own. On a CPU covent's is faster and smaller, with float32 logits too (the rows `TRL
chunked` above), but who trains with TRL trains on a GPU, where the two were not compared; and TRL's head lies behind a
private method, which would have to be replaced in every version. That is worth it once covent's is better there.
"""


def page(results: Path) -> str:
    """The whole page."""
    cases = {name: _read(results / f"lm_head_{name}.json") for name in ("bf16", "bf16_32k", "fp32")}
    present = {name: case for name, case in cases.items() if case}
    parts = [HEAD, "## CPU: time and memory\n", READING]
    parts += [_case_table(case) for case in present.values()]
    if targets := _target_rows(present):
        parts += ["### What was to be reached\n", _table(["", "at most", "found", "reached"], targets), TARGET_NOTE]
    parts += ["## Errors\n", _errors(present), KEPT]
    sweep, training = _read(results / "lm_head_sweep.json"), _read(results / "lm_head_training.json")
    if sweep:
        parts += ["## Memory against the number of tokens\n", _sweep_table(sweep)]
    if training:
        parts += ["## A step of the embedded trainer\n", _training_table(training)]
    return "\n".join([*parts, USE, GPU])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ratio(result: Any, variant: str) -> float:
    """Median time by the median of the floor."""
    seconds = result["seconds"]
    return statistics.median(seconds[variant]) / statistics.median(seconds["floor"])


def _case_table(result: Any) -> str:
    case, seconds = result["case"], result["seconds"]
    floor = statistics.median(seconds["floor"])
    rows = []
    for name, times in seconds.items():
        if name == "floor":
            continue
        spread = f"{min(times) / floor:.2f} to {max(times) / floor:.2f}" if len(times) > 1 else "one turn"
        bold = "**" if name.startswith(OURS) else ""
        memory = result["peak_mib"].get(name)
        rows.append([f"{bold}{name}{bold}", f"{ratio(result, name):.2f}", spread, str(len(times)), f"{memory:,}"])
    size = f"{case['num_tokens']:,} tokens, width {case['width']}, vocabulary {case['vocabulary']:,}"
    title = f"### {case['dtype']}, {size}\n\n"
    operations = 6 * case["num_tokens"] * case["width"] * case["vocabulary"]
    note = (
        f"\nFloor: {floor:.2f} s, {operations / floor / 1e9:,.0f} GFLOP/s. Both gradients and the values take "
        f"{result['output_mib']:,} MiB. {_origin(result)}\n"
    )
    return title + _table(["", "× floor", "range", "turns", "extra MiB"], rows) + note


def _origin(result: Any) -> str:
    hardware, versions = result["hardware"], result["versions"]
    cpu = f"{hardware['cpu']}, {'with' if hardware['avx512_bf16'] else 'without'} avx512_bf16"
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = f" Not installed: {', '.join(result['not_installed'])}." if result.get("not_installed") else ""
    return f"{cpu}; {named}; commit {result['commit'][:10]}.{missing}"


def _target_rows(cases: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, variant, limit in TARGETS:
        if name in cases:
            found = ratio(cases[name], variant)
            rows.append([f"{name}: {variant}, × floor", f"{limit:.2f}", f"{found:.2f}", _yes(found <= limit)])
    name, variant, limit = MEMORY_TARGET
    if name in cases:
        case = cases[name]["case"]
        gradient = case["vocabulary"] * case["width"] * 2 / 2**20
        beyond = cases[name]["peak_mib"][variant] - gradient
        rows.append([f"{name}: {variant}, MiB beyond dW", str(limit), f"{beyond:.0f}", _yes(beyond <= limit)])
    name, variant, allowed = ERROR_TARGET
    if name in cases:
        for kind in ("gradient of log-prob", "gradient of entropy"):
            error = cases[name]["errors"][variant][kind]
            rows.append([f"{name}: {variant}, {kind}", f"{allowed:.1e}", f"{error:.1e}", _yes(error <= allowed)])
    return rows


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def _errors(cases: dict[str, Any]) -> str:
    parts, kinds = [], ("log-prob", "entropy", "gradient of log-prob", "gradient of entropy")
    for result in {case["case"]["dtype"]: case for case in cases.values()}.values():
        size = result["error_case"]
        rows = [
            [name, *(f"{found[kind]:.1e}" if kind in found else "none" for kind in kinds)]
            for name, found in result["errors"].items()
        ]
        text = f"{size['dtype']}, {size['num_tokens']} tokens, width {size['width']}, vocabulary {size['vocabulary']:,}"
        parts.append(
            f"{text}; relative to float64, by norm; gradients of the hidden states.\n\n" + _table(["", *kinds], rows)
        )
    return "\n".join(parts) + (
        "\nRounding logits to bfloat16 is the largest error there is; covent does it only when asked.\n"
    )


def _sweep_table(result: Any) -> str:
    case, outputs = result["case"], result["output_mib"]
    rows = [
        [name, *(f"{peaks[size] - outputs[size]:,.0f}" if size in peaks else "not run" for size in outputs)]
        for name, peaks in result["peak_mib"].items()
    ]
    text = (
        f"{case['dtype']}, width {case['width']}, vocabulary {case['vocabulary']:,}: MiB beyond inputs and outputs "
        "(both gradients, log-probs, entropies), each in a fresh process. What grows is the float32 sum of the "
        "gradient of the hidden states, 4 bytes a number, before it is rounded once; and from the second tile of "
        "tokens on, a slice of the weight's gradient is summed in float32.\n\n"
    )
    picture = (
        "\n![Memory that a call adds, against the number of tokens: all logits at once grow with it, covent's modes "
        f"stay with what they return]({PLOT})\n"
    )
    return text + _table(["tokens", *(f"{int(size):,}" for size in outputs)], rows) + picture + f"\n{_origin(result)}\n"


def _training_table(result: Any) -> str:
    size, ways = result["size"], result["ways"]
    rows = []
    for name, way in ways.items():
        seconds = way["seconds"]
        spread = f"{statistics.median(seconds):.1f}", f"{min(seconds):.1f} to {max(seconds):.1f}", str(len(seconds))
        rows.append([name, *spread, f"{way['peak_mib']:,}", f"{way['grad_norm']:.6f}", f"{way['entropy']:.6f}"])
    text = (
        f"A random float32 model of the shape of Qwen2.5-0.5B (vocabulary {size['vocabulary']:,}), "
        f"{size['num_responses']} responses of up to {size['response_tokens']} tokens: measure, plan, forward, "
        "backward, clip, SGD, all responses at once. CPU seconds of one step on one thread, median and range, one way "
        "after the other; peak memory of the process, the model and its gradients included.\n\n"
    )
    heads = ["scored by", "seconds", "range", "steps", "peak MiB", "gradient norm", "entropy"]
    return text + _table(heads, rows) + f"\n{_origin(result)}\n"
