"""The epilogue in C, for large calls on a CPU that has a compiler: built on first use, kept in the user's cache folder.

Nothing needs it. Without a compiler, with COVENT_COMPILE=0, or where a build fails, plain torch does the same work to
rounding. One machine uses one of the two in every large call, so a run repeats bit for bit there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from covent.core.lm_head.epilogue import Rows, Shape, Slope, TorchEpilogue
from covent.core.lm_head.sums import NUM_SUMS, NUM_SUMS_WITH_EXTRAS, TOKEN
from covent.core.shapes import Tensor

LARGE = 1 << 24
"""Logits of a call from which on the build, under a second once, is worth it."""

_SOURCE = Path(__file__).with_name("epilogue.c")
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
# Vector code for this machine, as far as the compiler knows how.
_FASTER_FLAGS = (("-fopenmp-simd", "-march=native"), ("-march=native",), ())
_TIMEOUT_S = 60
_P, _I = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {"fold": (_P, _I, _I, _P, ctypes.c_int, _P, _I), "gradient": (_P, _I, _I, _P, _P, _P, _P, _P)}


class CompiledEpilogue(TorchEpilogue):
    """`TorchEpilogue` with C for plain tiles; tiles with a bias, a cap or kept d go the torch way."""

    def __init__(self, library: ctypes.CDLL, work: torch.dtype, shape: tuple[int, int], device: torch.device) -> None:
        super().__init__(work, shape, device)
        self._library = library

    def fold(self, z: Tensor, shape: Shape, rows: Rows, *, extra: bool, keep: Tensor | None) -> Tensor:
        """As `TorchEpilogue.fold`."""
        if keep is not None or not _is_plain(z, shape):
            return super().fold(z, shape, rows, extra=extra, keep=keep)
        function = getattr(self._library, f"fold_{_TYPES[z.dtype]}")
        inverse, width = _contiguous(rows.inverse), z.shape[1]
        sums = torch.empty(NUM_SUMS_WITH_EXTRAS if extra else NUM_SUMS, len(z))

        def fold_rows(first: int, count: int) -> None:
            place = _address(z, first * width), count, width, _address(inverse, first)
            function(*place, int(extra), _address(sums, first), len(z))

        _in_threads(fold_rows, len(z))
        token = z.gather(1, rows.place.clamp(0, width - 1)[:, None]).squeeze(1).float()
        sums[TOKEN] = token.where((rows.place >= 0) & (rows.place < width), -torch.inf)
        return sums

    def gradient(self, z: Tensor, shape: Shape, rows: Rows, slope: Slope, out: Tensor) -> None:
        """As `TorchEpilogue.gradient`."""
        if slope.kept_top is not None or out.dtype != z.dtype or not _is_plain(z, shape):
            return super().gradient(z, shape, rows, slope, out)
        function = getattr(self._library, f"gradient_{_TYPES[z.dtype]}")
        inverse, width = _contiguous(rows.inverse), z.shape[1]
        columns = [_contiguous(part) for part in (inverse, slope.top, slope.level, slope.steep)]

        def gradient_rows(first: int, count: int) -> None:
            each = (_address(column, first) for column in columns)
            function(_address(z, first * width), count, width, *each, _address(out, first * width))

        _in_threads(gradient_rows, len(z))
        here = rows.here(width)
        out[here, rows.place[here]] = slope.own[here].to(out.dtype)


def _is_plain(z: Tensor, shape: Shape) -> bool:
    return shape.bias is None and shape.softcap is None and z.is_contiguous()


def _contiguous(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.contiguous()


def _address(values: Tensor | None, offset: int) -> int | None:
    return None if values is None else values.data_ptr() + offset * values.element_size()


def _in_threads(part: Callable[[int, int], None], num_rows: int) -> None:
    """Rows are independent, so the split changes no bit; a call into C releases the interpreter's lock."""
    num_threads = min(torch.get_num_threads(), num_rows)
    if num_threads < 2:
        return part(0, num_rows)
    chunk = -(-num_rows // num_threads)
    firsts = range(0, num_rows, chunk)
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(lambda first: part(first, min(chunk, num_rows - first)), firsts))


def compiled_library() -> ctypes.CDLL | None:
    """The epilogue as machine code for this machine; None where there is none."""
    folder = None if os.environ.get("COVENT_COMPILE") == "0" else _cache_folder()
    return None if folder is None else _built(os.environ.get("CC") or "cc", folder)


@cache
def _built(compiler: str, folder: Path) -> ctypes.CDLL | None:
    name, path = f"epilogue-{_identity()}", shutil.which(compiler)
    try:
        for file in sorted(folder.glob(f"{name}-*.so")):
            # To map a file that was cut short would kill the process.
            if file.name == _file_name(name, file) and (library := _loaded(file)):
                return library
        made = _build(path, folder, name) if path else None
        return made and _loaded(made)
    except (OSError, subprocess.SubprocessError):
        return None


def _loaded(file: Path) -> ctypes.CDLL | None:
    """The library of a whole file; None if it is none, or lacks a function."""
    try:
        library = ctypes.CDLL(str(file))
        for name, arguments in _ARGUMENTS.items():
            for dtype in _TYPES.values():
                function = getattr(library, f"{name}_{dtype}")
                function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError):
        return None
    return library


def _file_name(name: str, file: Path) -> str:
    """The name that a file of this content has."""
    return f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.so"


def _build(compiler: str, folder: Path, name: str) -> Path | None:
    """Compile with the best flags that this compiler takes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / "epilogue.so"
        for faster in _FASTER_FLAGS:
            command = [compiler, *_FLAGS, *faster, str(_SOURCE), "-o", str(made), "-lm"]
            if subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False).returncode == 0:
                with made.open("rb+") as written:
                    os.fsync(written.fileno())
                # Whole or not at all, for processes that start together.
                return made.replace(folder / _file_name(name, made))
    return None


def _identity() -> str:
    """Of the source and of the machine: a home folder may be shared by machines with other instructions."""
    cpu = Path("/proc/cpuinfo")
    flags = (
        next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "") if cpu.exists() else ""
    )
    text = "\n".join([_SOURCE.read_text(encoding="utf-8"), *_FLAGS, platform.platform(), platform.node(), flags])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cache_folder() -> Path | None:
    """None for a user without a home folder."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "covent"
    except RuntimeError:
        return None
