"""Passes of the fused window over whole tensors in Triton, for CUDA: each reads and writes once.

Activations lie channels last ([B, H, W, C] in memory), what has the shape of weights one output
after the other, so that an index divided by the fan-in is the output. Numbers of the recipe are
constants of the program: as arguments they would be float32 in a float64 window too.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = [
    "correlation", "decay_add", "dot", "fire", "fire_all", "learn", "mean", "over_batch", "pool",
    "steer", "unfire", "unfire_all",
]  # fmt: skip

jit: Any = triton.jit


@jit
def fire(
    current, bias, membrane, fired, near, activity, count, channels,
    decay: tl.constexpr, threshold: tl.constexpr, half_width: tl.constexpr, biased: tl.constexpr,
    first: tl.constexpr, last: tl.constexpr, active: tl.constexpr, clipped: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """I_t (+ bias) and V_{t−1} in; V_t (or U_T), S_t, [|U_t − V_th| < a/2] and g out."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < count
    u = tl.load(current + index, mask=inside, other=0.0).to(membrane.dtype.element_ty)
    if biased:
        u = u + tl.load(bias + index % channels, mask=inside, other=0.0)
    if not first:
        u = tl.load(membrane + index, mask=inside, other=0.0) * decay + u
    spike = u >= threshold
    tl.store(fired + index, spike, mask=inside)
    tl.store(near + index, tl.abs(u - threshold) < half_width, mask=inside)
    if active:
        g = 1 - 2 / (tl.exp(2 * (u / threshold)) + 1)
        if clipped:
            g = tl.maximum(g, 0.0)
        tl.store(activity + index, g.to(activity.dtype.element_ty), mask=inside)
    if not last:
        u = tl.where(spike, u - threshold, u)
    tl.store(membrane + index, u, mask=inside)


@jit
def fire_all(
    current, bias, spikes, near, membrane, count, channels,
    decay: tl.constexpr, threshold: tl.constexpr, half_width: tl.constexpr, steps: tl.constexpr,
    constant: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """`fire` for T steps of currents that are known, or of one."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < count
    own = tl.load(bias + index % channels, mask=inside, other=0.0)
    v = tl.zeros((block,), membrane.dtype.element_ty)
    u = v
    for step in tl.static_range(steps):
        at = index if constant else index + step * count
        drive = tl.load(current + at, mask=inside, other=0.0).to(membrane.dtype.element_ty) + own
        u = v * decay + drive if step > 0 else drive
        spike = u >= threshold
        tl.store(spikes + index + step * count, spike.to(spikes.dtype.element_ty), mask=inside)
        tl.store(near + index + step * count, tl.abs(u - threshold) < half_width, mask=inside)
        v = tl.where(spike, u - threshold, u)
    tl.store(membrane + index, u, mask=inside)


@jit
def unfire_all(
    of_spikes, of_membrane, near, out, sums, places, channels,
    decay: tl.constexpr, threshold: tl.constexpr, width: tl.constexpr, steps: tl.constexpr,
    constant: tl.constexpr, turns: tl.constexpr, high: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """`unfire` for T steps: e of each, or their sum where one current was for all; and e's sums
    over the places of each program and all steps."""
    channel = tl.program_id(1) * wide + tl.arange(0, wide)
    known = channel < channels
    total = tl.zeros((wide,), of_membrane.dtype.element_ty)
    for turn in tl.static_range(turns):
        place = (tl.program_id(0).to(tl.int64) * turns + turn) * high + tl.arange(0, high)
        inside = (place < places)[:, None] & known[None, :]
        index = place[:, None] * channels + channel[None, :]
        count = tl.cast(places, tl.int64) * channels
        e = tl.load(of_membrane + index, mask=inside, other=0.0)
        whole = tl.zeros((high, wide), of_membrane.dtype.element_ty)
        for back in tl.static_range(steps):
            at = index + (steps - 1 - back) * count
            g = tl.load(of_spikes + at, mask=inside, other=0.0).to(of_membrane.dtype.element_ty)
            kept = tl.load(near + at, mask=inside, other=0) != 0
            if back == 0:
                e = e + tl.where(kept, g, 0.0) / width
            else:
                carried = e * decay
                e = carried + tl.where(kept, g - carried * threshold, 0.0) / width
            whole += e
            if not constant:
                tl.store(out + at, e.to(out.dtype.element_ty), mask=inside)
        if constant:
            tl.store(out + index, whole.to(out.dtype.element_ty), mask=inside)
        total += tl.sum(whole, axis=0)
    tl.store(sums + tl.program_id(0) * channels + channel, total, mask=known)


@jit
def pool(
    fired, out, count, channels, rows, columns, out_rows, out_columns,
    size: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Means of size x size booleans."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < count
    channel = index % channels
    place = index // channels
    column = place % out_columns
    row = place // out_columns % out_rows
    sample = place // (out_columns * out_rows)
    start = ((sample * rows + row * size) * columns + column * size) * channels + channel
    total = tl.zeros((block,), tl.float32)
    for i in tl.static_range(size):
        for j in tl.static_range(size):
            at = start + (i * columns + j) * channels
            total += tl.load(fired + at, mask=inside, other=0).to(tl.float32)
    tl.store(out + index, (total / (size * size)).to(out.dtype.element_ty), mask=inside)


@jit
def unfire(
    gradient, near, later, out, low, sums, places, channels, rows, columns,
    of_sample, of_channel, of_row, of_column,
    decay: tl.constexpr, threshold: tl.constexpr, width: tl.constexpr, size: tl.constexpr,
    follows: tl.constexpr, lowers: tl.constexpr, turns: tl.constexpr, high: tl.constexpr,
    wide: tl.constexpr,
):  # fmt: skip
    """e_t from ∂L/∂S_t, which is averaged over size x size and has any strides, and from e_{t+1};
    also in the precision of the products, if that is another; and its sums over the places of each
    program, `turns` times `high`, one row a program."""
    channel = tl.program_id(1) * wide + tl.arange(0, wide)
    known = channel < channels
    total = tl.zeros((wide,), out.dtype.element_ty)
    for turn in tl.static_range(turns):
        place = (tl.program_id(0).to(tl.int64) * turns + turn) * high + tl.arange(0, high)
        column = place % columns // size
        row = place // columns % rows // size
        sample = place // (columns * rows)
        inside = (place < places)[:, None] & known[None, :]
        pooled = inside & ((column < columns // size) & (row < rows // size))[:, None]
        at = (sample * of_sample + row * of_row + column * of_column)[:, None]
        at = at + (channel * of_channel)[None, :]
        index = place[:, None] * channels + channel[None, :]
        g = tl.load(gradient + at, mask=pooled, other=0.0).to(out.dtype.element_ty)
        g = g / (size * size)
        kept = tl.load(near + index, mask=inside, other=0) != 0
        if follows:
            carried = tl.load(later + index, mask=inside, other=0.0) * decay
            e = carried + tl.where(kept, g - carried * threshold, 0.0) / width
        else:
            e = tl.where(kept, g, 0.0) / width
        tl.store(out + index, e, mask=inside)
        if lowers:
            tl.store(low + index, e.to(low.dtype.element_ty), mask=inside)
        total += tl.sum(e, axis=0)
    tl.store(sums + tl.program_id(0) * channels + channel, total, mask=known)


@jit
def over_batch(x, out, count, batch: tl.constexpr, high: tl.constexpr, wide: tl.constexpr):
    """Σ over the samples, each of `count` values."""
    index = tl.program_id(0) * wide + tl.arange(0, wide)
    total = tl.zeros((wide,), out.dtype.element_ty)
    for start in tl.static_range(0, batch, high):
        sample = start + tl.arange(0, high)
        inside = (sample < batch)[:, None] & (index < count)[None, :]
        at = sample[:, None] * count + index[None, :]
        total += tl.sum(tl.load(x + at, mask=inside, other=0.0).to(out.dtype.element_ty), axis=0)
    tl.store(out + index, total, mask=index < count)


@jit
def mean(
    total, out, batch, channels, rows, columns, out_columns, taps_across, down, across, top, left,
    places: tl.constexpr, block: tl.constexpr, positions: tl.constexpr,
):  # fmt: skip
    """P of Eq. 8 for one tap and `block` channels, from Σ s over the batch, [H, W, C].

    Lengths of loops are constants: numpy 2.4 and Triton's interpreter do not agree on others.
    """
    tap = tl.program_id(0)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    first_row, first_column = tap // taps_across - top, tap % taps_across - left
    found = tl.zeros((block,), total.dtype.element_ty)
    for start in range(0, places, positions):
        place = start + tl.arange(0, positions)
        row = place // out_columns * down + first_row
        column = place % out_columns * across + first_column
        known = (place < places) & (row >= 0) & (row < rows)
        known = known & (column >= 0) & (column < columns)
        at = (row * columns + column)[:, None] * channels + channel[None, :]
        known = known[:, None] & (channel < channels)[None, :]
        found += tl.sum(tl.load(total + at, mask=known, other=0.0), axis=0)
    found = found / (batch * places)
    tl.store(out + tap * channels + channel, found, mask=channel < channels)


@jit
def correlation(raw, mean, beta, out, count, fan_in, divisor, block: tl.constexpr):
    """D = C + β·P, where C is a sum over `divisor` samples and positions."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < count
    c = tl.load(raw + index, mask=inside, other=0.0).to(out.dtype.element_ty) / divisor
    b = tl.load(beta + index // fan_in, mask=inside, other=0.0)
    p = tl.load(mean + index % fan_in, mask=inside, other=0.0)
    tl.store(out + index, c + b * p, mask=inside)


@jit
def steer(
    received, eta, fraction, steering, out, channels,
    how: tl.constexpr, least: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """c = λ_f·(1 + λ_p·δ), in one program: `how` is 0 for l1, 1 for split, 2 for literal."""
    index = tl.arange(0, block)
    inside = index < channels
    r = tl.load(received + index, mask=inside, other=0.0) * tl.load(eta)
    if how == 0:
        delta = r / (tl.sum(tl.abs(r), axis=0) + least)
    elif how == 1:
        gain, loss = tl.maximum(r, 0.0), tl.minimum(r, 0.0)
        delta = gain / (tl.sum(gain, axis=0) + least) + loss / (least - tl.sum(loss, axis=0))
    else:
        delta = r / tl.sum(r, axis=0)
    c = tl.load(fraction) * (1 + tl.load(steering) * delta)
    tl.store(out + index, c, mask=inside)


@jit
def learn(
    change, eta, factor, first, second, base, merged, low, outer_first, outer_second, count, fan_in,
    decay: tl.constexpr, by_row: tl.constexpr, outer_by_row: tl.constexpr, banks: tl.constexpr,
    merges: tl.constexpr, lowers: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """W2 = d·W2 + η·D, W3 = d·W3 + c·η·D, and (base + λ2·W2) + λ3·W3."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < count
    row = index // fan_in
    step = tl.load(change + index, mask=inside, other=0.0) * tl.load(eta)
    bank = tl.load(first + index, mask=inside, other=0.0) * decay + step
    tl.store(first + index, bank, mask=inside)
    if merges:
        outer = tl.load(outer_first + row * outer_by_row, mask=inside, other=0.0)
        weight = tl.load(base + index, mask=inside, other=0.0) + bank * outer
    if banks == 2:
        step = step * tl.load(factor + row * by_row, mask=inside, other=0.0)
        bank = tl.load(second + index, mask=inside, other=0.0) * decay + step
        tl.store(second + index, bank, mask=inside)
        if merges:
            outer = tl.load(outer_second + row * outer_by_row, mask=inside, other=0.0)
            weight = weight + bank * outer
    if merges:
        tl.store(merged + index, weight, mask=inside)
    if lowers:
        tl.store(low + index, weight.to(low.dtype.element_ty), mask=inside)


@jit
def decay_add(trace, gradient, total, count, decay: tl.constexpr, block: tl.constexpr):
    """E = d·E + G and Σ = Σ + G."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < count
    g = tl.load(gradient + index, mask=inside, other=0.0).to(trace.dtype.element_ty)
    tl.store(trace + index, tl.load(trace + index, mask=inside, other=0.0) * decay + g, mask=inside)
    tl.store(total + index, tl.load(total + index, mask=inside, other=0.0) + g, mask=inside)


@jit
def dot(first, second, out, of_row, fan_in: tl.constexpr, block: tl.constexpr):
    """⟨a, b⟩ of one output; b may be one row for all."""
    row = tl.program_id(0).to(tl.int64)
    found = tl.zeros((block,), out.dtype.element_ty)
    for start in range(0, fan_in, block):
        index = start + tl.arange(0, block)
        inside = index < fan_in
        a = tl.load(first + row * fan_in + index, mask=inside, other=0.0)
        b = tl.load(second + row * of_row + index, mask=inside, other=0.0)
        found += a * b
    tl.store(out + row, tl.sum(found, axis=0))
