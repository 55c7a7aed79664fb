"""Some faults of docs/reliability.md given to TRL, in the same words: a stock GRPOTrainer on a toy task on the CPU.

    make reliability-trl                                     # sets the environment up and runs all rows
    python -m benchmarks.trl_faults --row 7 --row 8          # some, in an environment with TRL

A Qwen2 with random weights, 16 completions a step, 8 steps, a checkpoint after each, one thread, all other settings
TRL's own. What is shown is what happened here with this version; it says nothing about models and settings that were
not tried. Results: benchmarks/results/trl_faults.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import platform
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from benchmarks.trl_fault_processes import ended, in_process, killed_at_random, limited, started, together
from covent.provenance import commit
from tests.support.tiny_trl import low_digits, trainer
from tests.verifiers import reward_functions
from tests.verifiers.hostile_answers import hostile_answers
from tests.verifiers.processes import alive, descendants

RESULT = Path(__file__).parent / "results" / "trl_faults.json"
STEPS = 8
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "num_iterations=2": {"num_iterations": 2},
    "steps_per_generation=4": {"steps_per_generation": 4},
}


def train(folder: Path, mode: str = "default", *, resume: Any = None, reward: Any = low_digits, **more: Any) -> Any:
    """One run, or the rest of one; returns the trainer."""
    settings = {
        "max_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": 1,
        "log_level": "error",
        **MODES[mode],
        **more,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = trainer(GRPOTrainer, folder, reward=reward, **settings)
        made.train(resume_from_checkpoint=resume)
    return made


def digest(made: Any) -> str:
    """Hash of the weights that a trainer has."""
    found = hashlib.sha256()
    for name, weight in sorted(made.model.state_dict().items()):
        found.update(name.encode() + weight.detach().numpy().tobytes())
    return found.hexdigest()


def checkpoint(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step}"


def after_step(whole: Path, folder: Path, step: int) -> Path:
    """The output folder of a run that was killed after a step."""
    shutil.copytree(whole, folder)
    for path in folder.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > step:
            shutil.rmtree(path)
    return folder


def exact_resume(place: Path) -> list[str]:
    """Row 6: each step of each mode."""
    told = []
    for mode in MODES:
        whole = digest(train(place / mode, mode))
        again = digest(train(place / f"{mode} again", mode))
        same = 0
        for step in range(1, STEPS):
            part = after_step(place / mode, place / f"{mode} {step}", step)
            same += digest(train(part, mode, resume=True)) == whole
            shutil.rmtree(part)
        repeated = "" if whole == again else "; two uninterrupted runs differ"
        told.append(f"{mode}: {same} of {STEPS - 1} steps resumed to the same weights{repeated}")
    return told


def damaged(place: Path, change: Callable[[Path], None], whole: str, newest: int = 5) -> str:
    """What `resume_from_checkpoint=True` does when the newest checkpoint was changed."""
    part = after_step(place / "whole", place / "part", newest)
    change(checkpoint(part, newest))
    try:
        found = digest(train(part, resume=True))
    except Exception as error:  # whatever it is, it is what is asked for
        return f"stopped ({type(error).__name__})"
    finally:
        shutil.rmtree(part)
    return "went on unnoticed to the same weights" if found == whole else "went on unnoticed to other weights"


def counted(outcomes: list[str]) -> str:
    groups = Counter(outcome.partition(" (")[0] for outcome in outcomes)
    return ", ".join(f"{count} {outcome}" for outcome, count in groups.most_common())


def truncated_files(place: Path) -> list[str]:
    """Row 7: each file of the newest checkpoint at 0, 1, half and all but one of its bytes."""
    whole, outcomes = digest(train(place / "whole")), []
    for file in sorted(path for path in checkpoint(place / "whole", 5).iterdir() if path.is_file()):
        size = file.stat().st_size
        for left in dict.fromkeys((0, 1, size // 2, size - 1)):
            outcomes.append(damaged(place, lambda path, f=file, n=left: os.truncate(path / f.name, n), whole))
    return [f"{len(outcomes)} truncations, an older whole checkpoint beside: {counted(outcomes)}"]


def flipped_bits(place: Path, num: int = 200) -> list[str]:
    """Row 8: random bits of all files of the newest checkpoint, by their size."""
    whole, chance, outcomes = digest(train(place / "whole")), random.Random(0), []  # noqa: S311 - not cryptography
    files = sorted(path for path in checkpoint(place / "whole", 5).iterdir() if path.is_file())
    for _ in range(num):
        file = chance.choices(files, [path.stat().st_size for path in files])[0]
        bit = chance.randrange(8 * file.stat().st_size)

        def flip(folder: Path, name: str = file.name, bit: int = bit) -> None:
            data = bytearray((folder / name).read_bytes())
            data[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(data)

        outcomes.append(damaged(place, flip, whole))
    return [f"{num} flips: {counted(outcomes)}"]


def finished_again(place: Path) -> list[str]:
    """Row 16: three more calls."""
    train(place / "run")
    steps = [train(place / "run", resume=True).state.global_step for _ in range(3)]
    return [f"the run of {STEPS} steps stands at steps {', '.join(map(str, steps))} after three more calls"]


class _Spoiled:
    """A reward function that is bad once, at one step."""

    __name__ = "spoiled"

    def __init__(self, bad: float) -> None:
        self.bad, self.calls = bad, 0

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:
        found = low_digits(completions)
        if self.calls == 3:
            found[5] = self.bad
        self.calls += 1
        return found


class _SpoiledGradient(GRPOTrainer):
    """One gradient is bad at one step."""

    bad = math.nan

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 3:
            next(self.model.parameters()).grad.view(-1)[0] = self.bad
        return loss


def not_finite(place: Path) -> list[str]:
    """Row 19: NaN and infinities in one reward, and in one gradient, of one step."""
    told = []
    for what in ("reward", "gradient"):
        outcomes = []
        for number, bad in enumerate((math.nan, math.inf, -math.inf)):
            _SpoiledGradient.bad = bad
            made = trainer(
                _SpoiledGradient if what == "gradient" else GRPOTrainer,
                place / f"{what} {number}",
                reward=_Spoiled(bad) if what == "reward" else low_digits,
                max_steps=STEPS,
            )
            try:
                made.train()
                how = "finished"
            except Exception as error:  # whatever it is, it is what is asked for
                how = f"stopped at step {made.state.global_step + 1} by {type(error).__name__}"
            finite = all(bool(weight.isfinite().all()) for weight in made.model.parameters())
            outcomes.append(f"{how}, the weights {'finite' if finite else 'NaN'}")
        told.append(f"one bad {what} (NaN, +∞, -∞) in step 4: {counted(outcomes)}")
    return told


MISBEHAVIOURS = {
    "raises": "raises",
    "wrong length": "returns_wrong_length",
    "NaN": "returns_nan",
    "str": "returns_text",
    "tensor": "returns_a_tensor",
    "None": "returns_nothing",
    "SystemExit": "exits",
    "os._exit": "exits_at_once",
    "hangs": "hangs",
}


def reward_misbehaves(place: Path, name: str) -> None:
    """A run whose reward function misbehaves for one completion of its third step; for a process of its own."""
    wrong, calls = getattr(reward_functions, name), []

    def reward(completions: list[str], **columns: Any) -> Any:
        calls.append(1)
        if len(calls) != 3:
            return low_digits(completions)
        return wrong(["HOSTILE", *completions[1:]], **columns)

    train(place, reward=reward)


def misbehaviours(place: Path) -> list[str]:
    """Row 28."""
    told = []
    for kind, name in MISBEHAVIOURS.items():
        ended = in_process(reward_misbehaves, place / name, name, longest_s=60)
        told.append(f"{kind}: {ended} after {len(list((place / name).glob('checkpoint-*')))} of {STEPS} steps")
    return [f"third call of the reward function: {'; '.join(told)}"]


def judged(answer: str, place: Path) -> None:
    """TRL's own accuracy reward on one answer, then on a right one; for a process of its own."""
    from trl.rewards import accuracy_reward

    for text, name in ((answer, "ended"), (r"\boxed{42}", "next")):
        start = time.monotonic()
        scores = accuracy_reward([[{"role": "assistant", "content": text}]], ["$42$"])
        place.mkdir(exist_ok=True)
        (place / name).write_text(json.dumps({"seconds": time.monotonic() - start, "score": scores[0]}))


def hostile_mathematics(place: Path, every: int = 10) -> list[str]:
    """Row 24: answers of covent's own list. math-verify's own limit is 5 s a call."""
    ended, next_right, worst_s = 0, 0, 0.0
    answers = [f"\\boxed{{{answer}}}" for answer in hostile_answers()[::every]]
    for number, answer in enumerate(answers):
        folder = place / str(number)
        in_process(judged, answer, folder, longest_s=20)
        if (folder / "ended").exists():
            ended += 1
            worst_s = max(worst_s, json.loads((folder / "ended").read_text())["seconds"])
        if (folder / "next").exists():
            next_right += json.loads((folder / "next").read_text())["score"] == 1
    return [
        f"accuracy_reward, {len(answers)} answers, each in a process that is killed after 20 s: {ended} ended, after"
        f" {worst_s:.1f} s at most; the next right answer scored {next_right} times"
    ]


def resumed(folder: Path, log: Path) -> None:
    """What a restart script calls: resume if there is a checkpoint, and leave the weights' hash; for a process."""
    log.write_text(digest(train(folder, resume=any(folder.glob("checkpoint-*")) or None)))


def random_kills(place: Path, num: int = 40) -> list[str]:
    """Row 1: SIGKILL at a random moment, then one more call that is left alone."""
    log = place / "log"
    assert in_process(resumed, place / "whole", log, longest_s=600) == "exit code 0"
    whole, chance, outcomes = log.read_text(), random.Random(0), []  # noqa: S311 - not cryptography
    start = time.monotonic()
    assert in_process(resumed, place / "timed", log, longest_s=600) == "exit code 0"
    longest_s = time.monotonic() - start
    while len(outcomes) < num:
        folder = place / "run"
        if killed_at_random(resumed, folder, log, chance=chance, longest_s=longest_s):
            log.unlink(missing_ok=True)
            ended = in_process(resumed, folder, log, longest_s=600)
            same = log.exists() and log.read_text() == whole
            outcomes.append("resumed to the same weights" if same else f"needed a person ({ended})")
        shutil.rmtree(folder, ignore_errors=True)
    return [f"{num} kills, default mode: {counted(outcomes)}"]


def two_runs(place: Path, num: int = 10) -> list[str]:
    """Row 14: two processes that are told to write to one folder."""
    outcomes = []
    for number in range(num):
        codes = together(resumed, place / str(number), [place / f"log {number} {i}" for i in (0, 1)])
        outcomes.append("both ran to the end" if codes == [0, 0] else f"exit codes {codes}")
    return [f"{num} pairs: {counted(outcomes)}"]


def full_disk(place: Path) -> list[str]:
    """Row 11: a limit on the size of files that a save meets; then the run is taken up without it."""
    log, outcomes = place / "log", []
    assert in_process(resumed, place / "whole", log, longest_s=600) == "exit code 0"
    whole = log.read_text()
    sizes = sorted({path.stat().st_size for path in checkpoint(place / "whole", 3).iterdir() if path.is_file()})
    for limit in sizes[:-1]:
        folder = place / f"limit {limit}"
        # The first checkpoints are whole: the limit comes with the next.
        after_step(place / "whole", folder, 3)
        if limited(resumed, folder, log, num_bytes=limit) == "exit code 0":
            continue
        log.unlink(missing_ok=True)
        in_process(resumed, folder, log, longest_s=600)
        same = log.exists() and log.read_text() == whole
        outcomes.append("resumed to the same weights" if same else "needed a person")
    return [f"{len(outcomes)} limits on file size, each met in a save: stopped; with room: {counted(outcomes)}"]


def endless(folder: Path, workers: int) -> None:
    """A run that somebody ends; for a process of its own, which starts others as a program of its own would."""
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    train(folder, max_steps=100_000, save_strategy="no", dataloader_num_workers=workers)


def orphans(place: Path, num: int = 10) -> list[str]:
    """Row 35: SIGKILL and SIGINT in turn, at a random moment of training; what is left of its processes 2 s later."""
    told, chance = [], random.Random(0)  # noqa: S311 - not cryptography
    for workers in (0, 2):
        had_some, left = 0, 0
        for number in range(num):
            process = started(endless, place / f"{workers} {number}", workers)
            # Until it trains, and a random time of that.
            time.sleep(15 + chance.uniform(0, 5))
            under = descendants(process.pid)
            os.kill(process.pid, (signal.SIGKILL, signal.SIGINT)[number % 2])
            ended(process, 60)
            time.sleep(2)
            had_some += bool(under)
            left += bool(alive(under))
        told.append(
            f"dataloader_num_workers={workers}: {had_some} of {num} had processes under them; of these {left} left some"
        )
    return told


ROWS: dict[int, Callable[[Path], list[str]]] = {
    1: random_kills,
    6: exact_resume,
    7: truncated_files,
    8: flipped_bits,
    11: full_disk,
    14: two_runs,
    16: finished_again,
    19: not_finite,
    24: hostile_mathematics,
    28: misbehaviours,
    35: orphans,
}


def main() -> None:
    """Run the rows that are asked for and keep the others' figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=int, action="append", choices=sorted(ROWS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for row in asked.row or ROWS:
        with tempfile.TemporaryDirectory() as place:
            start = time.monotonic()
            figures = ROWS[row](Path(place))
        found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        packages = ("trl", "transformers", "torch", "accelerate", "math-verify")
        found[str(row)] = {
            "figures": figures,
            "seconds": round(time.monotonic() - start),
            "versions": {name: version(name) for name in packages},
            "python": platform.python_version(),
            "commit": commit(),
        }
        RESULT.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        print(row, *figures, sep="\n  ", flush=True)


if __name__ == "__main__":
    main()
