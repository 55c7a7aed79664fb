"""The epilogue in C against the one in torch, and what happens where it cannot be built."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from covent.core.entropy import logprob_and_entropy
from covent.core.lm_head import compiled, token_readings_from_hidden
from covent.core.lm_head.compiled import CompiledEpilogue, compiled_library
from covent.core.lm_head.epilogue import Rows, Shape, Slope, TorchEpilogue
from covent.core.lm_head.sums import REST, TOP, WEIGHTED, extras, statistics
from tests.support.tolerances import COMPILED, HEAD_GRADIENT_16_BIT, NEAR_ZERO_ENTROPY

PLAIN = Shape(None, None)
NUM, WIDTH = 37, 1111
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "compiled"))
    monkeypatch.delenv("COVENT_COMPILE", raising=False)
    monkeypatch.delenv("CC", raising=False)
    found = compiled_library()
    assert found is not None, "there is a compiler, but it did not build epilogue.c"
    yield found
    compiled._built.cache_clear()


def logits(dtype: torch.dtype) -> Tensor:
    """Ties at the top, entries and one row at -inf, large offsets."""
    z = 5 * torch.randn(NUM, WIDTH, generator=torch.Generator().manual_seed(40))
    z[3:9] += torch.tensor([[300.0], [-300.0], [1e4], [-1e4], [0.0], [80.0]])
    z[2, [5, 700, 1110]] = float(z[2].max()) + 1
    z[:, ::7] = -torch.inf
    z[11] = -torch.inf
    return z.to(dtype)


def rows(each: bool) -> Rows:
    place = torch.arange(-2, NUM - 2) * 40
    return Rows(place, torch.linspace(0.5, 2.5, NUM) if each else None)


def both(library: Any, z: Tensor) -> tuple[TorchEpilogue, CompiledEpilogue]:
    given = torch.float32, (NUM, WIDTH), z.device
    return TorchEpilogue(*given), CompiledEpilogue(library, *given)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_sums(library: Any, dtype: torch.dtype, extra: bool, each: bool) -> None:
    z = logits(dtype)
    truth, found = (e.fold(z, PLAIN, rows(each), extra=extra, keep=None) for e in both(library, z))
    torch.testing.assert_close(found, truth, rtol=COMPILED, atol=COMPILED)
    assert torch.equal(found[TOP], truth[TOP])
    other = both(library, z)[1].fold(z, PLAIN, rows(not each), extra=extra, keep=None)
    assert not torch.allclose(other[REST], truth[REST], rtol=COMPILED, atol=COMPILED)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steep", [False, True])
def test_gradient(library: Any, dtype: torch.dtype, steep: bool) -> None:
    z, generator = logits(dtype), torch.Generator().manual_seed(41)
    parts = torch.randn(3, NUM, generator=generator)
    top = z.float().amax(dim=1).where(z.float().amax(dim=1) > -torch.inf, torch.nan)
    slope = Slope(top, parts[0], parts[1] if steep else None, parts[2], None)
    outs = []
    for epilogue in both(library, z):
        out = z.clone()
        epilogue.gradient(out, PLAIN, rows(True), slope, out)
        outs.append(out.float())
    tolerance = COMPILED if dtype == torch.float32 else HEAD_GRADIENT_16_BIT
    alive = torch.arange(NUM) != 11
    torch.testing.assert_close(outs[1][alive], outs[0][alive], rtol=4 * tolerance, atol=COMPILED)
    assert all(bool(out[11].isnan().sum() >= WIDTH - 1) for out in outs)
    assert bool((outs[1][alive, 0] == 0).sum() >= NUM - 3)


@needs_compiler
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits(library: Any, broken: float) -> None:
    z = logits(torch.float32)
    z[4, 600] = broken
    for epilogue in both(library, z):
        sums = epilogue.fold(z, PLAIN, rows(False), extra=True, keep=None)
        found = statistics(sums, 1.0)
        for part in (found.entropy, *extras(sums, found)[1:]):
            assert part.isnan().nonzero().flatten().tolist() == [4, 11]


@needs_compiler
def test_entropies_near_zero(library: Any) -> None:
    z = 3 * torch.randn(1, 8192, generator=torch.Generator().manual_seed(42), dtype=torch.float64)
    z[0, 4000] = float(z.logsumexp(1)) + math.log(1e8)
    single = z.float()
    epilogue = CompiledEpilogue(library, torch.float32, (1, 8192), z.device)
    sums = epilogue.fold(single, PLAIN, Rows(torch.tensor([0]), None), extra=False, keep=None)
    truth = float(logprob_and_entropy(single.double(), torch.tensor([0]))[1])
    assert truth < 1e-6
    assert float(statistics(sums, 1.0).entropy) == pytest.approx(truth, rel=NEAR_ZERO_ENTROPY)
    assert float(sums[REST]) != pytest.approx(float(sums[WEIGHTED]), rel=NEAR_ZERO_ENTROPY)


def readings(**settings: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(43)
    hidden, weight = torch.randn(300, 8, generator=generator), torch.randn(3001, 8, generator=generator)
    tokens, leaves = torch.randint(0, 3001, (300,), generator=generator), (hidden, weight)
    for leaf in leaves:
        leaf.requires_grad_()
    found = token_readings_from_hidden(*leaves, tokens, **settings)
    (found.logprob.sum() + found.entropy.square().sum()).backward()
    return [*found, hidden.grad, weight.grad]


@needs_compiler
@pytest.mark.parametrize("settings", [{}, {"softcap": 4.0}, {"bias": torch.linspace(-1, 1, 3001)}])
def test_a_whole_call(library: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    monkeypatch.setattr("covent.core.lm_head.work.LARGE", 0)
    built = readings(**settings)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    threaded = readings(**settings)
    assert all(map(torch.equal, built, threaded))
    monkeypatch.setenv("COVENT_COMPILE", "0")
    plain = readings(**settings)
    for left, right in zip(built, plain, strict=True):
        torch.testing.assert_close(left, right, rtol=10 * COMPILED, atol=10 * COMPILED)
    same = [torch.equal(left, right) for left, right in zip(built, plain, strict=True)]
    assert all(same) is bool(settings), "a bias or a cap goes the torch way, everything else through C"


def test_small_calls_do_not_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covent.core.lm_head.work.compiled_library", lambda: pytest.fail("it was asked for"))
    readings()
    monkeypatch.setattr("covent.core.lm_head.work.LARGE", 300 * 3001)
    with pytest.raises(pytest.fail.Exception, match="asked for"):
        readings()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler(compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    assert compiled_library() is None
    monkeypatch.setattr("covent.core.lm_head.work.LARGE", 0)
    assert len(readings()) == 7
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_cache_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "covent").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled_library() is None


@needs_compiler
def test_a_file_that_was_cut_short_is_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To load it would kill the process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("COVENT_COMPILE", raising=False)
    (good,) = built_files(tmp_path)
    whole, time = good.read_bytes(), good.stat().st_mtime_ns
    assert (good, good.stat().st_mtime_ns) == (*built_files(tmp_path), time)
    for damaged in (whole[: len(whole) // 2], b""):
        # Not in place: this process has mapped the good one.
        good.unlink()
        good.write_bytes(damaged)
        assert built_files(tmp_path) == [good]
        assert good.read_bytes() == whole


@needs_compiler
def test_a_library_without_the_functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("COVENT_COMPILE", raising=False)
    source = tmp_path / "empty.c"
    source.write_text("int nothing;\n")
    with monkeypatch.context() as other:
        other.setattr(compiled, "_SOURCE", source)
        assert compiled_library() is None
        (empty,) = (tmp_path / "covent").iterdir()
    compiled._built.cache_clear()
    # Under the name of the right source it is passed over, and the right one built beside it.
    digest = empty.stem.rpartition("-")[2]
    empty.rename(empty.with_stem(f"epilogue-{compiled._identity()}-{digest}"))
    assert len(built_files(tmp_path)) == 2


def built_files(cache: Path) -> list[Path]:
    """What lies in the folder once a library is loaded from it, as a new process would."""
    compiled._built.cache_clear()
    assert compiled_library() is not None
    compiled._built.cache_clear()
    return sorted((cache / "covent").iterdir())


def test_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("COVENT_COMPILE", raising=False)
    assert compiled_library() is None
    monkeypatch.setattr("covent.core.lm_head.work.LARGE", 0)
    assert len(readings()) == 7
