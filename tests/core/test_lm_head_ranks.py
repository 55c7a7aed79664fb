"""The LM head's rows on two and three gloo ranks against one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from covent.core.lm_head import logprob_and_entropy_from_hidden
from tests.contract.source import ROOT
from tests.support.head_ranks import NUM, SHARDS, VOCABULARY, given_head, parts
from tests.support.tolerances import CHUNKED


@pytest.mark.parametrize("num_ranks", SHARDS)
def test_rows_on_ranks(num_ranks: int, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.support.head_ranks", str(num_ranks), str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(num_ranks)]
    readings, gradients = parts(0, VOCABULARY, None)
    for name, truth in readings._asdict().items():
        assert all(torch.equal(each[name], found[0][name]) for each in found), name
        assert torch.allclose(found[0][name].double(), truth.double(), rtol=CHUNKED, atol=CHUNKED), name
    hidden, weight, bias = gradients
    for each in found:
        assert torch.allclose(each["hidden"], hidden, rtol=CHUNKED, atol=CHUNKED)
    assert torch.allclose(torch.cat([each["weight"] for each in found]), weight, rtol=CHUNKED, atol=CHUNKED)
    assert torch.allclose(torch.cat([each["bias"] for each in found]), bias, rtol=CHUNKED, atol=CHUNKED)
    # The size of the shard, then six float64 a token that counts; without the extra readings four float32, 16 bytes.
    assert found[0]["sent"].tolist() == [8, 6 * 8 * (NUM - 1), 8, 16 * NUM]

    # What a rank would see without the others.
    hidden, weight, _, tokens = given_head()
    own = weight[: SHARDS[num_ranks][1]]
    _, alone = logprob_and_entropy_from_hidden(hidden, own, tokens.clamp(max=len(own) - 1))
    assert not torch.allclose(found[0]["entropy"], alone, rtol=CHUNKED, atol=CHUNKED)
