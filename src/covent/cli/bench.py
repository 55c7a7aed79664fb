"""`covent bench`: the LM head beside its peers, which get an environment of their own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from covent.cli.options import option
from covent.cli.output import Outcome, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHECKOUT = Path(__file__).parents[3]
_PEERS = ("lm_head_peers.txt", "lm_head_peers_no_deps.txt")


@dataclass(frozen=True)
class Bench:
    """Time, memory and errors of log-prob and entropy from the LM head: covent, TRL, verl, Liger and torch in one run.

    Needs a checkout of covent, Linux, and for the large case 8 GB and a quarter of an hour; the sweep takes 13 GB. The
    first call installs the peers into an environment in the cache folder.
    """

    case: Literal["bf16", "bf16_32k", "fp32", "sweep", "tiny"] = "bf16"
    """bf16: vocabulary 151,936; bf16_32k and fp32: 32,768; sweep: memory for 1k to 64k tokens; tiny: does it run."""
    out: Annotated[Path | None, option("FILE")] = None
    """File of the result; benchmarks/results/lm_head_CASE.json if left out."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Set up once, then run the benchmark with the peers' own Python."""
        folder = benchmarks_folder(_CHECKOUT)
        target = (self.out or folder / "results" / f"lm_head_{self.case}.json").resolve()
        require_possible(target)
        python = peers_python(folder, output)
        words = [str(folder / "lm_head.py"), "--case", self.case, "--json", str(target)]
        _run([str(python), *words], "the benchmark", {"PYTHONPATH": str(_CHECKOUT / "src"), "OMP_NUM_THREADS": "1"})
        output.say(f"written to {target}")
        return Outcome({"result": str(target)})


def benchmarks_folder(checkout: Path) -> Path:
    """The folder `benchmarks` of a checkout.

    Raises:
        MissingPathError: when covent is installed without its source.
    """
    from covent.errors import MissingPathError

    folder = checkout / "benchmarks"
    if not (folder / "lm_head.py").is_file():
        raise MissingPathError(
            f"'{folder}' is not there: benchmarks need a checkout. Clone covent and `pip install -e` it."
        )
    return folder


def require_possible(target: Path) -> None:
    """Before the minutes are spent: can this system be measured, and the result be written?

    Raises:
        BenchError: when memory cannot be read as Linux tells it.
        ConfigError: when the result would have the place of a folder.
        DiskError: when it may not be written there.
        MissingPathError: when the folder of the result is not there.
    """
    from covent.errors import BenchError, ConfigError, DiskError, MissingPathError

    if sys.platform != "linux":
        raise BenchError(f"This system is {sys.platform}; memory is read from /proc, so run the benchmark on Linux.")
    if not target.parent.is_dir():
        raise MissingPathError(f"The folder '{target.parent}' of --out is not there; make it first.")
    if target.is_dir():
        raise ConfigError(f"--out '{target}' is a folder. Name the file to write: --out {target / 'lm_head.json'}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise DiskError(f"--out '{target}' may not be written; take another place, or change its permissions.")


def peers_python(folder: Path, output: Output) -> Path:
    """Python of an environment with the peers; made on first use, and again when the lists of peers change."""
    lists = [folder / name for name in _PEERS]
    text = "".join(each.read_text(encoding="utf-8") for each in lists) + sys.version
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "covent"
    environment = root / f"peers-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python, done = environment / "bin" / "python", environment / "complete"
    if not done.is_file():
        output.say(f"installing the peers into {environment}; this takes minutes")
        _run([sys.executable, "-m", "venv", "--clear", str(environment)], "venv")
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        _run([*pip, "-r", str(lists[0])], "pip")
        _run([*pip, "--no-deps", "-r", str(lists[1])], "pip")
        done.touch()
    return python


def _run(words: Sequence[str], name: str, variables: dict[str, str] | None = None) -> None:
    from covent.errors import BenchError

    code = subprocess.run(words, env={**os.environ, **(variables or {})}, stdout=sys.stderr, check=False).returncode
    if code:
        raise BenchError(f"{name} ended with exit code {code}; its own words are above. Called: {' '.join(words)}")
