"""Where transforms beat sums for 1-D depthwise convolutions, and how such a call becomes one of :mod:`._fft`.

The rule was measured on one and two threads for 64 to 1024 taps over 128 to 16384 positions (docs/adr/0009). It never
looks at the batch: a sample's bits do not depend on what it is batched with. ``STRIATE_KERNELS=-^fft_conv`` switches it
off, as does every filter that leaves no fast row of ``fft_conv``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _core
from .._problem import read_config
from ._fft import constant, fft_conv

TAPS = 128
"""fewer taps are always summed"""
# Multiply-adds in a sample, from which on the gain outweighs the longer way through Python.
_ENOUGH = 1 << 20
_DTYPES = (torch.float32, torch.float64)


def refusal(
    kind: str,
    axes: tuple[Sequence[int], Sequence[int], Sequence[int]],
    pads: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    sizes: tuple[Sequence[int], int],
) -> str:
    """Why a depthwise convolution is summed directly, or an empty string.

    ``axes`` are kernel, stride and dilation, ``sizes`` the input's spatial ones and the output channels.
    """
    (taps, *more), stride, dilation = axes
    (size, *_), channels = sizes
    if kind == "transpose" or more:
        return "only convolutions along one axis are transformed"
    if type(taps) is not int or taps < TAPS:
        return f"{taps} taps: transforms pay from {TAPS} on"
    if dtype not in _DTYPES:
        return f"{dtype} is not transformed"
    if stride[0] != 1 or dilation[0] != 1:
        return "a stride or dilation"
    low, high = pads[0]
    if not (0 <= low < taps and 0 <= high < taps):
        return f"padding {low}+{high} of {taps} taps or more"
    if type(size) is int and type(channels) is int:
        met = min(taps, size)
        if met < TAPS or channels * met * (size + low + high - taps + 1) < _ENOUGH:
            return f"{channels} channels of {size} positions are too few"
    return ""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def allowed() -> bool:
    """Whether the filter of kernel rows leaves a fast row of the transforms."""
    return _core.admits("fft_conv")


def unfit(input: Tensor) -> str:
    """Why a call that the rule would transform is summed after all, or an empty string."""
    if input.device.type != "cpu":
        return f"device {input.device.type}"
    if input.stride(-1) != 1:
        return "the input's samples are not neighbours in memory"
    if torch._C._is_any_autocast_enabled():
        return "autocast"
    return "" if allowed() else "forbidden by the filter"


def run(input: Tensor, weight: Tensor, bias: Tensor | None, config: str) -> Tensor:
    """``conv(input, weight, bias, config)`` by transforms: ``[N, C, L]`` under ``[C m, 1, K]`` or ``[C m, K]``."""
    ((low, high),) = read_config(config).padding
    kernel = weight.flatten(1)
    channels, taps = kernel.shape
    if channels != input.shape[1]:
        samples, groups, length = input.shape
        input = input.unsqueeze(2).expand(samples, groups, channels // groups, length)
        input = input.reshape(samples, channels, length)
    y = fft_conv(input, kernel, (taps - 1 - low,), (low + high + 1 - taps,), True, False, constant(kernel))
    return y if bias is None else y + bias.unsqueeze(1)
