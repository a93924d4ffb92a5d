"""Where sliding windows beat torch's matrix products for convolutions with several channels per group.

torch fills vectors with output channels, so its speed grows with their number; striate's sliding kernels fill them with
columns, so theirs grows with the taps that one loaded vector serves. The rule was measured against the row named
``torch``, on one thread, for 1 to 64 channels and 1 to 257 taps in one to three dimensions (docs/adr/0008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# Share of the peak: of torch for each output channel, less under dilation, more with dot products of bfloat16 (float16
# is widened); of striate t taps reach t / (t + _HALF).
_PER_CHANNEL, _DILATED, _BFLOAT16, _HALF = 0.068, 0.05, 0.085, 14
# Groups of so many channels, in and out, are blocks of a kernel that oneDNN has for them.
_BLOCK = 4
# Vectors of columns need columns, and a call needs enough of them to be worth its set-up.
_COLUMNS, _POSITIONS = 16, 128


def refusal(
    channels: tuple[int, int],
    groups: int,
    kernel: Sequence[int],
    steps: tuple[Sequence[int], Sequence[int]],
    dtype: torch.dtype,
    out: Sequence[int] | None = None,
) -> str:
    """Why groups of so many input and output ``channels`` are torch's to compute, or an empty string.

    ``steps`` are stride and dilation, ``out`` is the spatial size of the result where it is known.
    """
    taps, (stride, dilation) = math.prod(kernel), steps
    each = _BFLOAT16 if dtype == torch.bfloat16 else _PER_CHANNEL if max(dilation) == 1 else _DILATED
    if stride[-1] != 1:
        return "more than one channel and a stride"
    if each * channels[1] > taps / (taps + _HALF):
        return f"{channels[1]} output channels under {taps} taps are a matrix product"
    if groups > 1 and dtype != torch.float64 and channels[0] % _BLOCK == 0 == channels[1] % _BLOCK:
        return f"groups of {channels[0]} channels to {channels[1]} are whole blocks of {_BLOCK}"
    known = out is not None and all(type(size) is int for size in out)
    if out is not None and known and (out[-1] < _COLUMNS or math.prod(out) < _POSITIONS):
        return f"more than one channel on a small result of {list(out)}"
    return ""
