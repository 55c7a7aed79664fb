"""Make the golden files under tests/logs/data by running the real engines on a CPU.

    python -m venv engines && engines/bin/pip install torch trl tensorboard wandb trackio mlflow-skinny
    engines/bin/pip install sqlalchemy alembic pyarrow
    engines/bin/python tests/logs/make_golden.py

One TRL GRPO run (a random Qwen2 on a toy task, 12 steps, an evaluation every 2) writes its state, TensorBoard events
and the console. Its rows are then logged through the clients of wandb (offline) and trackio under the names that
transformers' callbacks give them, so that all of these files hold the same numbers; wandb's own exports of the same
rows are written in the form of its panel download and of `scan_history`. MLflow's client gets the rows of verl.

verl has no CPU path: `verl_files` writes the two formats of its tracking module (`concat_dict_to_str` of
verl/utils/logger/aggregate_logger.py and `FileLogger` of verl/utils/tracking.py at commit b178a3c), with the prefix
that Ray puts before a worker's lines and the metric names of its GRPO trainer. The numbers in the verl files are made
up; their form is not. So are the token dumps of prime-rl (src/prime_rl/trainer/rl/token_export.py at 559b447), slime
(the samples of slime/observability/train_data_utils.py at 624b824, as JSON Lines) and ROLL (save_metrics of
roll/pipeline/rlvr/rlvr_pipeline.py at 8eb27cc): all three hold the same tokens. Versions go into data/VERSIONS.json.
Of the sqlite stores only the tables that a reader needs are kept.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import pprint
import shutil
import sqlite3
import sys
import tempfile
from importlib import metadata
from pathlib import Path

DATA = Path(__file__).parent / "data"
NUM_STEPS = 12
EVAL_EVERY = 2
WORDS = ["<pad>", "<eos>", "<unk>", *(str(digit) for digit in range(10)), "+", "="]


def main() -> None:
    """Run everything in a scratch folder, then copy what is to be kept."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        os.environ |= {"TRACKIO_DIR": str(Path(scratch) / "trackio"), "HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true"}
        console = trl_run(Path(scratch) / "trl")
        DATA.mkdir(exist_ok=True)
        keep_trl(Path(scratch), console)
        mlflow_database(Path(scratch))
    table_files()
    verl_files()
    dump_files()
    versions = {name: metadata.version(name) for name in ("torch", "trl", "transformers", "tensorboard", "wandb")}
    versions |= {name: metadata.version(name) for name in ("trackio", "mlflow-skinny", "pyarrow")}
    sources = {"verl": "b178a3c", "prime-rl": "559b447", "slime": "624b824", "ROLL": "8eb27cc"}
    versions |= {f"{name} (form from its source)": commit for name, commit in sources.items()}
    (DATA / "VERSIONS.json").write_text(json.dumps(versions, indent=2) + "\n")


def trl_run(folder: Path) -> str:
    """Train, and return what was printed."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))  # noqa: S106 - a special token, no password
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",  # noqa: S106 - a special token, no password
        eos_token="<eos>",  # noqa: S106 - a special token, no password
        unk_token="<unk>",  # noqa: S106 - a special token, no password
    )
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )

    def low_digit_first(completions: list[str], **_: object) -> list[float]:
        """Right if the first token is a digit below 5."""
        firsts = [(text.split() or [""])[0] for text in completions]
        return [float(first.isdigit() and int(first) < 5) for first in firsts]

    problems = Dataset.from_list([{"prompt": f"{a} + {b} ="} for a in range(8) for b in range(8)])
    arguments = GRPOConfig(
        output_dir=str(folder),
        run_name="golden",
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        num_generations=8,
        max_completion_length=4,
        max_steps=NUM_STEPS,
        learning_rate=6e-3,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=EVAL_EVERY,
        save_steps=NUM_STEPS,
        report_to=["tensorboard"],
        use_cpu=True,
        seed=0,
        disable_tqdm=True,
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=low_digit_first,
            args=arguments,
            train_dataset=problems,
            eval_dataset=problems.select(range(16)),
            processing_class=tokenizer,
        )
        trainer.train()
    return printed.getvalue()


def keep_trl(scratch: Path, console: str) -> None:
    """Copy the files of the TRL run, without any path of the machine that made them."""
    (state,) = (scratch / "trl").glob("checkpoint-*/trainer_state.json")
    shutil.copy(state, DATA / "trl_trainer_state.json")
    lines = [line for line in console.splitlines() if line.startswith("{")]
    (DATA / "trl_console.log").write_text("\n".join(lines) + "\n")
    found = sorted(scratch.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_size)
    (DATA / "events.out.tfevents.1.host.1.0").write_bytes(_scalars_only(found[-1].read_bytes()))
    rows = callback_rows(json.loads(state.read_text())["log_history"])
    wandb_exports(rows)
    wandb_file(scratch, rows)
    trackio_database(scratch, rows)


def _scalars_only(events: bytes) -> bytes:
    """The records of an event file without the texts of settings, which hold paths of the machine.

    A record is its length (8 bytes), a checksum (4), the event, a checksum (4).
    """
    kept, at = b"", 0
    while at < len(events):
        length = int.from_bytes(events[at : at + 8], "little")
        record = events[at : at + 16 + length]
        kept += b"" if b"text_summary" in record else record
        at += len(record)
    return kept


def callback_rows(history: list[dict[str, float]]) -> list[tuple[int, dict[str, float]]]:
    """(step, metrics) as transformers' callbacks report them: `rewrite_logs` of transformers/integrations."""
    rows = []
    for row in history:
        names = {key: f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}" for key in row}
        step = int(row["step"])
        rows.append(
            (step, {names[key]: value for key, value in row.items() if key != "step"} | {"train/global_step": step})
        )
    return rows


def wandb_file(scratch: Path, rows: list[tuple[int, dict[str, float]]]) -> None:
    """The binary file of an offline run, without facts about the machine."""
    import wandb

    quiet = wandb.Settings(
        console="off",
        host="host",
        username="user",
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    with wandb.init(project="golden", name="golden", mode="offline", dir=scratch, settings=quiet) as run:
        for _, row in rows:
            run.log(row)
    # Only the end of wandb's service process writes the last block.
    wandb.teardown()
    (offline,) = scratch.rglob("*.wandb")
    shutil.copy(offline, DATA / "trl_offline.wandb")


def trackio_database(scratch: Path, rows: list[tuple[int, dict[str, float]]]) -> None:
    """The sqlite store of trackio."""
    import trackio

    trackio.init(project="golden", name="golden", auto_log_gpu=False, auto_log_cpu=False)
    for step, row in rows:
        trackio.log(row, step=step)
    trackio.finish()
    tables(scratch / "trackio" / "golden.db", DATA / "trackio.db", ["metrics"])


def wandb_exports(rows: list[tuple[int, dict[str, float]]]) -> None:
    """The history as wandb's export button and its API give it: a panel's CSV, and `scan_history` as JSON Lines."""
    lines = [json.dumps({"_step": index, **row}) for index, (_, row) in enumerate(rows)]
    (DATA / "wandb_history.jsonl").write_text("\n".join(lines) + "\n")
    columns = ["train/entropy", "eval/rewards/low_digit_first/mean"]
    names = [f'"golden - {column}{suffix}"' for column in columns for suffix in ("", "__MIN", "__MAX")]
    text = [",".join(['"Step"', *names])]
    for index, (_, row) in enumerate(rows):
        cells = [f'"{row[column]!r}"' if column in row else '""' for column in columns for _ in range(3)]
        text.append(",".join([f'"{index}"', *cells]))
    (DATA / "wandb_panel.csv").write_text("\n".join(text) + "\n")


def table_files() -> None:
    """The rows of the trainer state as a plain table: CSV by Python's own writer, Parquet by pyarrow."""
    import pyarrow
    from pyarrow.parquet import write_table

    history = json.loads((DATA / "trl_trainer_state.json").read_text())["log_history"]
    names = list(dict.fromkeys(name for row in history for name in row))
    with (DATA / "trl_history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)
    columns = ["step", "entropy", "eval_rewards/low_digit_first/mean"]
    kept = [{name: row.get(name) for name in columns} for row in history]
    write_table(pyarrow.Table.from_pylist(kept), DATA / "trl_history.parquet", compression="zstd")


def mlflow_database(scratch: Path) -> None:
    """The verl rows through MLflow's client into its sqlite store."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{scratch / 'mlflow.db'}")
    mlflow.set_experiment("golden")
    with mlflow.start_run(run_name="golden"):
        for step, row in verl_rows():
            # What verl's MLflow adapter does to the names.
            mlflow.log_metrics({key.replace("@", "_at_"): float(value) for key, value in row.items()}, step=step)  # type: ignore[arg-type]  # numbers among them
    tables(scratch / "mlflow.db", DATA / "mlflow.db", ["runs", "metrics"])
    with contextlib.closing(sqlite3.connect(DATA / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET artifact_uri = '', source_name = '', user_id = 'user'")


def tables(source: Path, target: Path, names: list[str]) -> None:
    """Copy tables with their columns: the whole stores are several times as large."""
    target.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(target)) as database:
        database.execute("ATTACH ? AS whole", (str(source),))
        with database:
            for name in names:
                database.execute(f"CREATE TABLE {name} AS SELECT * FROM whole.{name}")  # noqa: S608 - names of this file
        database.execute("DETACH whole")
        database.execute("VACUUM")


def verl_rows() -> list[tuple[int, dict[str, object]]]:
    """(step, metrics) as verl's trainer logs them, with a validation every 4 steps and before the first."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows: list[tuple[int, dict[str, object]]] = [(0, {"val-core/openai/gsm8k/acc/mean@1": np.float64(0.1137)})]
    for step in range(1, 25):
        entropy = 0.05 + 0.55 * math.exp(-step / 8) + 0.01 * rng.standard_normal()
        accuracy = 0.75 - 0.35 * math.expm1(entropy) + 0.01 * rng.standard_normal()
        row: dict[str, object] = {"actor/entropy": float(entropy)}
        if step % 4 == 0:
            row["val-core/openai/gsm8k/acc/mean@1"] = np.float64(round(accuracy, 4))
            row["val-aux/openai/gsm8k/reward/mean@1"] = np.float64(round(accuracy, 4))
        row |= {
            "actor/pg_loss": float(0.01 * rng.standard_normal()),
            "actor/pg_clipfrac": float(0.002 * rng.random()),
            "actor/ppo_kl": float(0.001 * rng.random()),
            "actor/grad_norm": float(0.2 + 0.1 * rng.random()),
            "actor/lr": 1e-06,
            "training/global_step": step,
            "training/epoch": 0,
            "critic/score/mean": float(accuracy - 0.02),
            "critic/rewards/mean": float(accuracy - 0.02),
            "response_length/mean": float(250 + 5 * step),
            "response_length/clip_ratio": float(0.02 * rng.random()),
            "perf/throughput": float(1500 + 100 * rng.random()),
        }
        rows.append((step, row))
    return rows


def verl_files() -> None:
    """verl's console and file loggers."""
    rows = verl_rows()
    prefix = "\x1b[36m(TaskRunner pid=4242)\x1b[0m "
    first = f"{prefix}(\"Initial validation metrics: {{'val-core/openai/gsm8k/acc/mean@1': np.float64(0.1137)}}\")"
    console = ["Creating the dataset", first]
    for step, row in rows:
        console.append(prefix + " - ".join([f"step:{step}", *(f"{k}:{pprint.pformat(v)}" for k, v in row.items())]))
        console.append(f"{prefix}Training Progress:  {100 * step // 24}%|##    | {step}/24 [00:31<01:02,  7.8s/it]")
    (DATA / "verl_console.log").write_text("\n".join(console) + "\n")
    lines = [json.dumps({"step": step, "data": {k: float(v) for k, v in row.items()}}) for step, row in rows]  # type: ignore[arg-type]  # numbers among them
    (DATA / "verl_file_logger.jsonl").write_text("\n".join(lines) + "\n")


def dump_responses() -> list[dict[str, object]]:
    """Responses to 4 prompts, 4 each: prompt length, tokens, log-probs, entropies, reward and GRPO advantage."""
    import numpy as np

    rng = np.random.default_rng(1)
    responses: list[dict[str, object]] = []
    for prompt in range(4):
        rewards = rng.permutation([0.0, 0.0, 1.0, 1.0] if prompt % 2 else [0.0, 1.0, 1.0, 1.0])
        advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
        for reward, advantage in zip(rewards, advantages, strict=True):
            length = int(rng.integers(8, 16))
            entropies = rng.gamma(0.5, 0.6, length)
            logprobs = -rng.gamma(0.5, 0.6, length)
            sampler = logprobs + 0.001 * rng.standard_normal(length)
            responses.append(
                {
                    "prompt": f"What is {prompt} + {prompt}?",
                    "prompt_ids": [100 + prompt] * 3,
                    "ids": rng.integers(0, 50, length).tolist(),
                    "logprobs": np.round(logprobs, 6).tolist(),
                    "sampler": np.round(np.minimum(sampler, 0.0), 6).tolist(),
                    "entropies": np.round(entropies, 6).tolist(),
                    "reward": float(reward),
                    "advantage": round(float(advantage), 6),
                }
            )
    return responses


def dump_files() -> None:
    """One step of tokens in the forms of three engines."""
    rows: dict[str, list[dict[str, object]]] = {"prime_rl": [], "slime": [], "roll": []}
    for index, response in enumerate(dump_responses()):
        prompt_ids, ids = response["prompt_ids"], response["ids"]
        assert isinstance(prompt_ids, list) and isinstance(ids, list)
        rows["prime_rl"].append(_prime_rl_row(index, response, len(prompt_ids), len(ids)))
        rows["slime"].append(
            {
                "data_parallel_rank": 0,
                "rollout_position": index,
                "sample_index": index,
                "tokens": prompt_ids + ids,
                "total_lengths": len(prompt_ids) + len(ids),
                "response_lengths": len(ids),
                "rewards": response["reward"],
                "loss_masks": [1] * len(ids),
                "log_probs": response["logprobs"],
                "rollout_log_probs": response["sampler"],
                "advantages": [response["advantage"]] * len(ids),
                "entropy": response["entropies"],
            }
        )
        rows["roll"].append(
            {
                "log_probs2": response["logprobs"],
                "logprobs": response["logprobs"],
                "new_response_mask": [1] * len(ids),
                "prompt": response["prompt"],
                "response": "…",
                "old_log_probs2_entropy": response["entropies"],
                "reward": response["reward"],
                "step": 7,
                "response_tokens": [f"t{i}" for i in ids],
            }
        )
    for engine, found in rows.items():
        (DATA / f"dump_{engine}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def _prime_rl_row(index: int, response: dict[str, object], before: int, length: int) -> dict[str, object]:
    """A record of prime-rl's token export: columns over prompt and response, the mask tells which is which."""

    def column(name: str, prompt_value: object) -> list[object]:
        values = response[name]
        assert isinstance(values, list)
        return [prompt_value] * before + values

    return {
        "schema_version": 1,
        "step": 7,
        "export_step": 7,
        "rank": 0,
        "micro_step": index // 4,
        "micro_sequence_idx": index % 4,
        "export_sequence_idx": index,
        "run_id": None,
        "env_name": "arithmetic",
        "token_ids": [*response["prompt_ids"], *response["ids"]],  # type: ignore[misc]  # numbers among them
        "position_ids": list(range(before + length)),
        "loss_mask": [False] * before + [True] * length,
        "advantages": [None] * before + [response["advantage"]] * length,
        "rewards": [response["reward"]] * (before + length),
        "inference_logprobs": column("sampler", 0.0),
        "trainer_logprobs": column("logprobs", 0.0),
        "entropy": column("entropies", 3.912023),
        "mismatch_kl": [None] * (before + length),
        "is_masked": [False] * (before + length),
    }


if __name__ == "__main__":
    sys.exit(main())
