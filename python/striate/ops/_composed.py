"""Operators written in torch's own, for devices that have no kernel row of ours: the row named ``torch``.

They are what the dispatcher calls for CUDA tensors. The causal convolution is also differentiated as it stands here;
the others are differentiated by their families. Sums are carried in float32 (float64 for float64) and rounded once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._problem import is_channels_last, pad_pairs

Ints = Sequence[int]
Maybe = Tensor | None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _last(tensor: Tensor) -> Tensor:
    """The same numbers, dense with channels innermost."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


# ---------------------------------------------------------------- causal convolution


def causal(x: Tensor, weight: Tensor, bias: Maybe, states: Maybe, marks: Maybe, silu: bool) -> Tensor:
    """The sum over taps; ``marks`` are the starts of sequences (one axis) or the number of each position's (two)."""
    kind, history = _wide(x.dtype), weight.shape[1] - 1
    seen = _seen(x, states, marks, history)
    z = None if bias is None else bias[:, None].to(kind)
    for tap in range(history + 1):
        term = seen(history - tap).to(kind) * weight[:, tap, None].to(kind)
        z = term if z is None else z + term
    assert z is not None
    y = F.silu(z) if silu else z
    if marks is not None and marks.dim() == 2:
        y = torch.where((marks < 0)[:, None], 0, y)
    y = y.to(x.dtype)
    return _last(y) if x.stride(1) == 1 and x.stride(2) != 1 else y.contiguous()


def _seen(x: Tensor, states: Maybe, marks: Maybe, history: int) -> Callable[[int], Tensor]:
    """x so many steps before every position: from the states before a sequence, else zero."""
    length = x.shape[2]
    if marks is None or marks.dim() == 2:
        past = x.new_zeros(*x.shape[:2], history) if states is None else states
        long = torch.cat([past, x], -1)

        def shifted(back: int) -> Tensor:
            found = long[..., history - back : history - back + length]
            if marks is None:
                return found
            there = F.pad(marks, (back, 0))[:, :length] == marks
            there = there & (torch.arange(length, device=x.device) >= back)
            return torch.where(there[:, None], found, 0)

        return shifted
    starts, here = marks.to(torch.int64), torch.arange(length, device=x.device)
    run = torch.searchsorted(starts, here, right=True) - 1
    since = here - starts[run]

    def within(back: int) -> Tensor:
        fresh = x.index_select(2, (here - back).clamp(min=0))
        if states is None or back == 0:
            return torch.where(since >= back, fresh, 0)
        older = states[run, :, (since - back + history).clamp(0, history - 1)]
        return torch.where(since >= back, fresh, older.t()[None])

    return within


def causal_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Maybe, at: Maybe, rows: Maybe, silu: bool
) -> Tensor:
    """Steps after what ``state`` remembers, which is updated in place; rows of -1 have no state and give 0."""
    (batch, _, length), size, history = x.shape, state.shape[2], weight.shape[1] - 1
    row = torch.arange(batch, device=x.device) if rows is None else rows.to(torch.int64)
    known = state[row.clamp(min=0)]
    if at is None:
        past = known[..., size - history :]
        later = torch.cat([known, x], -1)[..., length:]
    else:
        first = at.to(torch.int64)[:, None]
        ring = (first + torch.arange(-history, 0, device=x.device)) % max(size, 1)
        past = known.gather(2, ring[:, None].expand(*known.shape[:2], history))
        kept = min(length, size)
        slots = (first + torch.arange(length - kept, length, device=x.device)) % max(size, 1)
        later = known.scatter(2, slots[:, None].expand(*known.shape[:2], kept), x[..., length - kept :])
    y = causal(x, weight, bias, past, None, silu).contiguous()
    if rows is None:
        state.copy_(later)
        return y
    real = row >= 0
    state.index_copy_(0, row[real], later[real])
    return torch.where(real[:, None, None], y, 0)


# ---------------------------------------------------------------- convolution by transforms


def _circle(size: Ints, out: Ints, taps: Ints, shift: Ints) -> list[int]:
    """Lengths of transforms in which nothing that is asked for meets its own end: small multiples of powers of two."""
    sizes = []
    for n, o, k, s in zip(size, out, taps, shift, strict=True):
        least = max(n, o + max(s, 0), n + max(k - 1 - s, 0), o)
        sizes.append(min(f << (-(-least // f) - 1).bit_length() for f in (1, 3, 5, 7, 9, 15)))
    return sizes


def _folded(taps: Tensor, sizes: Ints) -> Tensor:
    """Taps beyond the end of a circle are added at its beginning."""
    for axis, size in enumerate(sizes, 1):
        if taps.shape[axis] > size:
            at = torch.arange(taps.shape[axis], device=taps.device) % size
            shape = (*taps.shape[:axis], size, *taps.shape[axis + 1 :])
            taps = taps.new_zeros(shape).index_add(axis, at, taps)
    return taps


def _turned(circle: Tensor, counts: Ints, first: Ints) -> Tensor:
    """So many numbers of every circle, from ``first`` on."""
    rank = len(counts)
    for axis, (count, at) in enumerate(zip(counts, first, strict=True), circle.dim() - rank):
        places = (torch.arange(count, device=circle.device) + at) % circle.shape[axis]
        circle = circle.index_select(axis, places)
    return circle


def fft_conv(
    input: Tensor, kernel: Tensor, shift: Ints, grow: Ints, flip: bool, periodic: bool, keep: bool = False
) -> Tensor:
    """y[t] = sum_j k[j] x[t + shift - j]."""
    size, taps = input.shape[2:], kernel.shape[1:]
    out = [n + more for n, more in zip(size, grow, strict=True)]
    if not input.numel() or 0 in out:
        return input.new_empty((*input.shape[:2], *out))
    axes = tuple(range(-len(taps), 0))
    sizes = list(size) if periodic else _circle(size, out, taps, shift)
    spectrum = torch.fft.rfftn(_folded(kernel.flip(axes) if flip else kernel, sizes), sizes, axes)
    product = torch.fft.rfftn(input.to(kernel.dtype), sizes, axes) * spectrum
    return _turned(torch.fft.irfftn(product, sizes, axes), out, shift).to(input.dtype).contiguous()


def fft_conv_grad_kernel(
    grad: Tensor, input: Tensor, kernel_size: Ints, shared: bool, shift: Ints, flip: bool, periodic: bool
) -> Tensor:
    """dk[j] = sum_t g[t] x[t + shift - j], over all samples and, for a shared kernel, channels."""
    kind = _wide(input.dtype)
    if not input.numel():
        return input.new_zeros((1 if shared else input.shape[1], *kernel_size), dtype=kind)
    axes = tuple(range(-len(kernel_size), 0))
    size = input.shape[2:]
    sizes = list(size) if periodic else _circle(size, grad.shape[2:], kernel_size, shift)
    by_grad = torch.fft.rfftn(grad.to(kind), sizes, axes)
    by_input = torch.conj_physical(torch.fft.rfftn(input.to(kind), sizes, axes))
    product = (by_grad * by_input).sum(0)
    if shared:
        product = product.sum(0, keepdim=True)
    found = _turned(torch.fft.irfftn(product, sizes, axes), kernel_size, [-at for at in shift])
    return (found.flip(axes) if flip else found).contiguous()


# ---------------------------------------------------------------- pooling

Windows = tuple[Ints, Ints, Ints, Ints]
"""kernel, stride, pad (low and high of every axis) and dilation"""


def _outs(size: Ints, windows: Windows) -> list[int]:
    kernel, stride, pad, dilation = windows
    sizes = zip(size, kernel, stride, pad_pairs(pad, len(kernel)), dilation, strict=True)
    return [(n + lo + hi - d * (k - 1) - 1) // s + 1 for n, k, s, (lo, hi), d in sizes]


def _padding(pad: Ints, rank: int) -> list[int]:
    """As torch wants it: the last axis first."""
    return [part for pair in reversed(pad_pairs(pad, rank)) for part in pair]


def _taps(size: Ints, windows: Windows) -> Iterator[tuple[Any, ...]]:
    """Where the taps of all windows lie in a padded plane, one tap after another, as an index."""
    kernel, stride, _, dilation = windows
    for tap in itertools.product(*map(range, kernel)):
        places = zip(tap, stride, dilation, _outs(size, windows), strict=True)
        yield (..., *(slice(t * d, t * d + (o - 1) * s + 1, s) for t, s, d, o in places))


def _divisors(like: Tensor, size: Ints, windows: Windows, ring: Ints, divisor: int) -> Tensor | int:
    """By what an average divides the sum of every window: the taps in the plane and a ring of padding around it."""
    if divisor:
        return divisor
    found = like.new_ones(())
    spans = zip(size, *windows[:2], pad_pairs(windows[2], len(size)), windows[3], ring, strict=True)
    for (n, k, s, (lo, _), d, around), o in zip(spans, _outs(size, windows), strict=True):
        first = torch.arange(o, device=like.device)[:, None] * s - lo
        at = first + torch.arange(k, device=like.device) * d
        count = ((at >= -around) & (at < n + around)).sum(1).clamp(min=1)
        found = found[..., None] * count
    return found


def pool(
    input: Tensor, mode: str, kernel: Ints, stride: Ints, pad: Ints, dilation: Ints, ring: Ints, divisor: int
) -> Tensor:
    """Extremes, sums or averages of windows."""
    windows, size = (kernel, stride, pad, dilation), input.shape[2:]
    extreme = {"max": -math.inf, "min": math.inf}.get(mode)
    padded = F.pad(input, _padding(pad, len(size)), value=extreme or 0.0)
    taps = [padded[tap] for tap in _taps(size, windows)]
    if extreme is not None:
        best = taps[0]
        for value in taps[1:]:
            best = torch.maximum(best, value) if mode == "max" else torch.minimum(best, value)
        return _like(best, input)
    total = sum((value.to(_wide(input.dtype)) for value in taps[1:]), taps[0].to(_wide(input.dtype)))
    if mode == "avg":
        total = total / _divisors(total, size, windows, ring, divisor)
    return _like(total.to(input.dtype), input)


def pool_transpose(
    grad: Tensor,
    size: Ints,
    mode: str,
    kernel: Ints,
    stride: Ints,
    pad: Ints,
    dilation: Ints,
    ring: Ints,
    divisor: int,
) -> Tensor:
    """The transpose of sums and averages of windows."""
    windows, kind = (kernel, stride, pad, dilation), _wide(grad.dtype)
    share = grad.to(kind)
    if mode == "avg":
        share = share / _divisors(share, size, windows, ring, divisor)
    spans = list(zip(size, pad_pairs(pad, len(size)), strict=True))
    # Room for padding on both sides, and for what negative padding has cut off.
    room = [n + max(lo, 0) + max(hi, 0) for n, (lo, hi) in spans]
    total = share.new_zeros((*grad.shape[:2], *room))
    padded: tuple[Any, ...] = (
        ...,
        *(slice(max(-lo, 0), r - max(-hi, 0)) for r, (_, (lo, hi)) in zip(room, spans, strict=True)),
    )
    plane: tuple[Any, ...] = (..., *(slice(max(lo, 0), max(lo, 0) + n) for n, (lo, _) in spans))
    inner = total[padded]
    for tap in _taps(size, windows):
        inner[tap] += share
    return _like(total[plane].to(grad.dtype), grad)


def pool_argmax(
    input: Tensor,
    wide: bool,
    mode: str,
    kernel: Ints,
    stride: Ints,
    pad: Ints,
    dilation: Ints,
    ring: Ints,
    divisor: int,
) -> Tensor:
    """Where in its plane every window's extreme stands: the first of equals, the last NaN."""
    windows, size = (kernel, stride, pad, dilation), input.shape[2:]
    padding = _padding(pad, len(size))
    values = F.pad(-input if mode == "min" else input, padding, value=-math.inf)
    number = torch.arange(math.prod(size), device=input.device).view(size)
    places = F.pad(number, padding, value=-1)
    best = index = None
    for tap in _taps(size, windows):
        value, place = values[tap], places[tap]
        if best is None or index is None:
            best, index = value, place.expand(value.shape)
            continue
        better = (place >= 0) & ((value > best) | value.isnan() | (index < 0))
        best, index = torch.where(better, value, best), torch.where(better, place, index)
    assert index is not None
    return _like(index.to(torch.int64 if wide else torch.int32), input)


def pool_gather(numbers: Tensor, indices: Tensor, *_: Any) -> Tensor:
    """The numbers of every plane at its indices; 0 for an index of no position."""
    at, plane = indices.flatten(2).to(torch.int64), numbers.flatten(2)
    real = (at >= 0) & (at < plane.shape[2])
    found = torch.where(real, plane.gather(2, torch.where(real, at, 0)), 0)
    return _like(found.view(indices.shape), numbers, indices)


def pool_scatter(numbers: Tensor, indices: Tensor, size: Ints, *_: Any) -> Tensor:
    """The transpose of :func:`pool_gather`, for planes of ``size``."""
    at = indices.flatten(2).to(torch.int64)
    real = (at >= 0) & (at < math.prod(size))
    given = torch.where(real, numbers.flatten(2).to(_wide(numbers.dtype)), 0)
    plane = given.new_zeros((*numbers.shape[:2], math.prod(size)))
    plane = plane.scatter_add(2, torch.where(real, at, 0), given).to(numbers.dtype)
    return _like(plane.view(*numbers.shape[:2], *size), numbers, indices)


def _like(made: Tensor, *given: Tensor) -> Tensor:
    """Dense in the memory order of what was given."""
    return _last(made) if any(is_channels_last(tensor) for tensor in given) else made.contiguous()
