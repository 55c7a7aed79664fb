"""The epilogue as two Triton kernels: a row of a tile to its sums, and a tile to its gradient.

The same numbers as `epilogue.py`, with the same merge as `sums.merged`, inside the kernel. The products stay
torch's. This file imports Triton; `gpu.py` imports it where there is a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl

# exp of it is 0, and 0 times it is 0, where minus infinity would be NaN.
_FAR = tl.constexpr(-1e4)


@triton.jit
def logits_of(z, columns, inside, bias, softcap, HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr):
    """Float32 logits of a block, with bias and cap; minus infinity outside of the tile."""
    x = z.to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias + columns, mask=inside, other=0.0)
    if HAS_CAP:
        # tanh(y) = 1 - 2 / (exp(2y) + 1), with an entry that is switched off left off.
        capped = softcap * (1.0 - 2.0 / (tl.exp(2.0 * x / softcap) + 1.0))
        x = tl.where(x == -float("inf"), x, capped)
    return tl.where(inside, x, -float("inf"))


@triton.jit
def block_sums(x, high, scale):
    """s, u, q and r of a block whose maximum is `high`."""
    is_top = x == high
    d = tl.where(x == -float("inf"), _FAR, tl.maximum((x - high) * scale, _FAR))
    e = tl.where(is_top | (d == _FAR), 0.0, tl.exp(d))
    # One maximum is left out; others of the same value count. A block of -inf alone adds nothing.
    more = tl.maximum(tl.sum(is_top.to(tl.float32), axis=0) - 1.0, 0.0)
    return tl.sum(e, axis=0) + more, tl.sum(e * d, axis=0), tl.sum(e * e, axis=0) + more, tl.sum(e * e * d, axis=0)


@triton.jit
def merged(top1, s1, u1, q1, r1, top2, s2, u2, q2, r2, scale):
    """The sums of two parts of a row together, as `sums.merged`."""
    is_first = top1 >= top2
    low, high = tl.where(is_first, top2, top1), tl.where(is_first, top1, top2)
    gone = low == -float("inf")
    x = tl.where(gone, 0.0, (low - high) * scale)
    c = tl.where(gone, 0.0, tl.exp(x))
    s_low, q_low = 1.0 + tl.where(is_first, s2, s1), 1.0 + tl.where(is_first, q2, q1)
    s = tl.where(is_first, s1, s2) + c * s_low
    u = tl.where(is_first, u1, u2) + c * (tl.where(is_first, u2, u1) + x * s_low)
    q = tl.where(is_first, q1, q2) + c * c * q_low
    r = tl.where(is_first, r1, r2) + c * c * (tl.where(is_first, r2, r1) + x * q_low)
    return high, s, u, q, r


@triton.jit
def keep_row(
    z, keep, bias, row, top, scale, softcap, width, HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, BLOCK: tl.constexpr
):
    """d of a row in float16, taken from its own maximum."""
    high = tl.where(top == -float("inf"), 0.0, top)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < width
        raw = tl.load(z + row * width + columns, mask=inside, other=0.0)
        x = logits_of(raw, columns, inside, bias, softcap, HAS_BIAS, HAS_CAP)
        tl.store(keep + row * width + columns, ((x - high) * scale).to(tl.float16), mask=inside)


@triton.jit
def fold_rows(
    z,
    bias,
    place,
    inverse,
    sums,
    keep,
    tops,
    softcap,
    width,
    sums_stride,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_INVERSE: tl.constexpr,
    EXTRA: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a row: its sums are merged into `sums` [4 or 6, N]; with KEEP, d of the row goes to `keep`."""
    row = tl.program_id(0).to(tl.int64)
    scale = 1.0
    if HAS_INVERSE:
        scale = tl.load(inverse + row)
    offsets = tl.arange(0, BLOCK)
    own = tl.load(place + row)
    top = tl.load(sums + row)
    s, u = tl.load(sums + sums_stride + row), tl.load(sums + 2 * sums_stride + row)
    token = tl.load(sums + 3 * sums_stride + row)
    q, r = 0.0, 0.0
    if EXTRA:
        q, r = tl.load(sums + 4 * sums_stride + row), tl.load(sums + 5 * sums_stride + row)
    highest = -float("inf")
    for first in range(0, width, BLOCK):
        columns = first + offsets
        inside = columns < width
        raw = tl.load(z + row * width + columns, mask=inside, other=0.0)
        x = logits_of(raw, columns, inside, bias, softcap, HAS_BIAS, HAS_CAP)
        token = tl.maximum(token, tl.max(tl.where(columns == own, x, -float("inf")), axis=0))
        # A NaN is kept by hand: a maximum may drop it.
        broken = tl.max((x != x).to(tl.int32), axis=0) > 0
        high = tl.where(broken, float("nan"), tl.max(x, axis=0))
        highest = tl.where(broken | (highest != highest), float("nan"), tl.maximum(highest, high))
        s_new, u_new, q_new, r_new = block_sums(x, high, scale)
        best, s, u, q, r = merged(top, s, u, q, r, high, s_new, u_new, q_new, r_new, scale)
        top = tl.where(broken | (top != top), float("nan"), tl.where(high > -float("inf"), best, top))
    if KEEP:
        tl.store(tops + row, highest)
        keep_row(z, keep, bias, row, highest, scale, softcap, width, HAS_BIAS, HAS_CAP, BLOCK)
    tl.store(sums + row, top)
    tl.store(sums + sums_stride + row, s)
    tl.store(sums + 2 * sums_stride + row, u)
    tl.store(sums + 3 * sums_stride + row, token)
    if EXTRA:
        tl.store(sums + 4 * sums_stride + row, q)
        tl.store(sums + 5 * sums_stride + row, r)


@triton.jit
def gradient_tile(
    z,
    out,
    bias,
    place,
    inverse,
    top,
    level,
    steep,
    own,
    kept_top,
    softcap,
    width,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_INVERSE: tl.constexpr,
    HAS_STEEP: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a block of a row: out = exp(d) (level + steep d), and the token's own entry; `out` may be `z`."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    scale = 1.0
    if HAS_INVERSE:
        scale = tl.load(inverse + row)
    high = tl.load(top + row)
    raw = tl.load(z + row * width + columns, mask=inside, other=0.0)
    if KEPT:
        d = raw.to(tl.float32) + (tl.load(kept_top + row) - high) * scale
    else:
        d = (logits_of(raw, columns, inside, bias, softcap, HAS_BIAS, HAS_CAP) - high) * scale
    off = d < _FAR
    d = tl.where(off, _FAR, d)
    value = tl.load(level + row)
    if HAS_STEEP:
        value += d * tl.load(steep + row)
    value *= tl.where(off, 0.0, tl.exp(d))
    if HAS_CAP:
        capped = (d / scale + high) / softcap
        value *= 1.0 - capped * capped
    value = tl.where(columns == tl.load(place + row), tl.load(own + row), value)
    tl.store(out + row * width + columns, value.to(out.dtype.element_ty), mask=inside)
