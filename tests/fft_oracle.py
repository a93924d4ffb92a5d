"""Long convolutions from their definition in float64, and how far transforms may be from it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oracle import SUBNORMAL, UNIT, accumulator

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# Measured: random signals stay below a third of the limit; constant ones, whose values are all in one place, reach
# two thirds of it.
MULTIPLE = 3.0


def direct(x: Tensor, k: Tensor, padding: str, order: str) -> Tensor:
    """The table of striate.fft_conv1d, by torch's direct convolution of a padded copy."""
    rank, channels = x.dim() - 2, x.shape[1]
    x, w = x.double(), k.double().expand(channels, *k.shape[1:])
    if order == "convolution":
        w = w.flip(tuple(range(1, rank + 1)))
    for axis, taps in enumerate(k.shape[1:], 2):
        reach, size = taps - 1, x.shape[axis]
        correlation = order == "correlation"
        low = {
            "causal": reach,
            "full": reach,
            "same": reach // 2 if correlation else reach - reach // 2,
            "circular": 0 if correlation else reach,
        }[padding]
        high = reach if padding == "full" else reach - low
        at = torch.arange(-low, size + high)
        inside = torch.ones_like(at, dtype=torch.bool) if padding == "circular" else (at >= 0) & (at < size)
        x = x.index_select(axis, at % size)
        x = x * inside.reshape(-1, *([1] * (rank + 1 - axis)))
    return CONV[rank](x, w.unsqueeze(1), groups=channels)


def limit(x: Tensor, k: Tensor, dtype: torch.dtype, n: int | None = None) -> float:
    """The error that is allowed, MULTIPLE sqrt(log2 n) eps max|x| sum|k| and one rounding for storage.

    ``n`` is the length of the linear convolution, where the shapes do not say it.
    """
    n = n or math.prod(a + b for a, b in zip(x.shape[2:], k.shape[1:], strict=True))
    size = float(x.detach().double().abs().max() * k.detach().double().abs().flatten(1).sum(1).max())
    unit = MULTIPLE * math.sqrt(math.log2(n) + 1) * 2 * UNIT[accumulator(dtype)]
    return size * (unit + (UNIT[dtype] if dtype != accumulator(dtype) else 0.0)) + SUBNORMAL[dtype]
