"""The kernel row named ``torch``: torch's own convolution is the right answer, with its own autograd.

Three of its faults are repaired here: half-precision results that oneDNN gets wrong or never returns on AMX
machines, the slow native path that torch takes for single fp32 samples, and the lost channels of an empty input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _core

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_HALVES = (torch.bfloat16, torch.float16)
_FAULTY_FEATURES = {"amxtile", "avx512fp16"}  # every AMX machine so far has AVX512-FP16 as well
_NATIVE_LIMIT = 20480  # torch sends N=1 fp32 inputs up to this many channel x row elements past oneDNN
_ONEDNN_GAIN = 2_000_000  # FLOPs above which oneDNN's fixed cost of about 40 us is repaid (measured)


class Shape(NamedTuple):
    """A call of the row, as the equivalent convolution: ``size`` is its input, ``out`` its output."""

    kind: str
    rank: int
    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    channels: tuple[int, int]
    """per group, as (input, output) of the equivalent convolution"""


def run(shape: Shape, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
    """Call torch, repaired where needed. ``options`` are torch's own trailing arguments, in torch's order."""
    if input.device.type == "cpu":
        if shape.kind != "transpose" and weight.shape[1] == 0:
            return _without_channels(shape, input, weight, bias, options)
        half = _half_dtype(input, weight)
        if half is not None and (weight.dtype != input.dtype or not trusts_half(shape, half)):
            return _widened(shape, half, input, weight, bias, options)
        if half is None and input.dtype == torch.float32 and _native_is_slow(shape, input, weight):
            return _through_onednn(shape, input, weight, bias, options)
    return _function(shape)(input, weight, bias, *options)


def _function(shape: Shape) -> Callable[..., Tensor]:
    return (_TRANSPOSE if shape.kind == "transpose" else _CONV)[shape.rank]


def _half_dtype(input: Tensor, weight: Tensor) -> torch.dtype | None:
    """The half dtype torch would compute in, or None."""
    if input.dtype in _HALVES or input.dtype == torch.float32:
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu")
        return input.dtype if input.dtype in _HALVES else None
    return None


@functools.cache
def _features() -> frozenset[str]:
    return frozenset(name.replace("_", "").replace("-", "") for name in _core.cpu_features())


def _faulty_machine() -> bool:
    return not _FAULTY_FEATURES.isdisjoint(_features())


def _sums_float16() -> bool:
    """Whether oneDNN sums float16 in float32 here."""
    return "avx512fp16" in _features()


def trusts_half(shape: Shape, half: torch.dtype) -> bool:
    """Whether torch's own half-precision convolution is known to be right and to return, on this machine.

    Without AVX512-FP16, torch rounds the partial sums of float16 to float16: of 36 calls up to 18 % of the elements
    were wrong by more than their last bit.

    Fuzzing in child processes against float64 on an AMX machine (torch 2.15, oneDNN 3.13) found garbage, crashes
    and endless loops only outside this region: outputs one wide with a stride, thin inputs, dilation, padding
    beyond half the kernel, depthwise groups, kernels wider than 11, strides above 2 (kernel width 4 = stride 4 on
    16 or 24 channels is wrong in every element). Whatever is outside is computed in float32.
    """
    if half == torch.float16 and not _sums_float16():
        return False
    if not _faulty_machine():
        return True
    if 1 in shape.channels:
        return False
    for size, out, kernel, stride, (lo, hi), dilation in zip(
        shape.size, shape.out, shape.kernel, shape.stride, shape.padding, shape.dilation, strict=True
    ):
        if kernel == 1 and stride == 1 and lo == 0 == hi:
            continue
        if dilation != 1 or kernel > 11 or stride > min(kernel, 2) or lo != hi or lo > kernel // 2:
            return False
        if size < max(4, kernel) or out < 2:
            return False
    return True


def _widened(
    shape: Shape,
    half: torch.dtype,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    options: tuple[Any, ...],
) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        wide_bias = None if bias is None else bias.float()
        return run(shape, input.float(), weight.float(), wide_bias, options).to(half)


def _without_channels(
    shape: Shape, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
) -> Tensor:
    """torch forgets the output channels here; one channel of zeros gives the shape the weight says."""
    one = (0, 0) * shape.rank + (0, 1)
    return _function(shape)(F.pad(input, one), F.pad(weight, one), bias, *options[:-1], 1)


def _native_is_slow(shape: Shape, input: Tensor, weight: Tensor) -> bool:
    """fp32 calls with one sample that torch computes with im2col although oneDNN is several times faster.

    Measured on one AVX-512 core: 3-D 2.4 to 7.7 times, dilated 2-D 2.4 times; undilated 1-D and 2-D lose.
    """
    if shape.kind == "transpose" or shape.rank == 1 or (shape.rank == 2 and max(shape.dilation) == 1):
        return False
    if input.dim() != shape.rank + 2 or input.shape[0] != 1 or input.shape[1] != weight.shape[1]:
        return False
    if max(shape.kernel) == 1 or min(shape.kernel[-2:]) > 3 or not input.is_contiguous():
        return False
    if input.shape[1] * shape.size[0] * shape.size[1] > _NATIVE_LIMIT or not torch._C._get_mkldnn_enabled():
        return False
    if not torch.backends.mkldnn.is_available() or any(lo != hi for lo, hi in shape.padding):
        return False
    return 2 * math.prod(shape.out) * math.prod(weight.shape) >= _ONEDNN_GAIN


class _OneDNN(torch.autograd.Function):
    """oneDNN forward, torch's own backward: ``mkldnn_convolution`` has no derivative of its own."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Sequence[Sequence[int]]
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        ctx.bias_size = None if bias is None else [bias.shape[0]]
        stride, padding, dilation = geometry
        return torch.mkldnn_convolution(input, weight, bias, padding, stride, dilation, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        input, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        none = [0] * len(stride)
        found = torch.ops.aten.convolution_backward(
            grads[0],
            input,
            weight,
            ctx.bias_size,
            stride,
            padding,
            dilation,
            False,
            none,
            1,
            ctx.needs_input_grad[:3],
        )
        return (*found, None)


def _through_onednn(
    shape: Shape, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
) -> Tensor:
    transformed = torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    if transformed or torch.compiler.is_compiling():
        return _function(shape)(input, weight, bias, *options)
    padding = [lo for lo, _ in shape.padding]
    geometry = (list(shape.stride), padding, list(shape.dilation))
    result: Tensor = _OneDNN.apply(input, weight.contiguous(), bias, geometry)
    return result
