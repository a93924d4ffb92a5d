"""The family of long convolutions: fft_conv and fft_conv_grad_kernel.

Per axis y[t] = sum_j k[j] x[t + shift - j] for t in 0 .. n + grow, where x is zero outside or, when periodic, repeats.
``flip`` says that k is stored in reverse. With both, input gradients are the same operation: dx is fft_conv(dy, k) with
shift K - 1 - shift, -grow and the other flip; dk is fft_conv_grad_kernel(dy, x), whose own derivatives are fft_conv.
``keep`` says that the transform of k is worth keeping for later calls with an equal kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._call import Request, call, dense, words
from . import _composed, _cuda
from ._convolution import _front, _into_channels, bilinear_tangent
from ._family import Family, Member, Statics

Ints = Sequence[int]
Maybe = Tensor | None


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type kernels are given in: what sums of ``dtype`` are carried in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows(tensor: Tensor) -> Tensor:
    """The tensor with neighbouring numbers along its last axis."""
    return tensor if tensor.shape[-1] <= 1 or tensor.stride(-1) == 1 else dense(tensor)


def _fake_conv(
    input: Tensor, kernel: Tensor, shift: Ints, grow: Ints, flip: bool, periodic: bool, keep: bool = False
) -> Tensor:
    spatial = [size + more for size, more in zip(input.shape[2:], grow, strict=True)]
    return input.new_empty((*input.shape[:2], *spatial))


def _conv(
    input: Tensor, kernel: Tensor, shift: Ints, grow: Ints, flip: bool, periodic: bool, keep: bool = False
) -> Tensor:
    result = _fake_conv(input, kernel, shift, grow, flip, periodic)
    if result.numel():
        settings = words(shift=shift, flip=flip, periodic=periodic, keep=keep)
        call("fft_conv", settings, (_rows(input), dense(kernel)), (result,))
    return result


def _fake_grad_kernel(
    grad: Tensor, input: Tensor, kernel_size: Ints, shared: bool, shift: Ints, flip: bool, periodic: bool
) -> Tensor:
    channels = 1 if shared else input.shape[1]
    return input.new_empty((channels, *kernel_size), dtype=wide(input.dtype))


def _grad_kernel(
    grad: Tensor, input: Tensor, kernel_size: Ints, shared: bool, shift: Ints, flip: bool, periodic: bool
) -> Tensor:
    result = _fake_grad_kernel(grad, input, kernel_size, shared, shift, flip, periodic)
    if not input.numel():
        return result.zero_()
    settings = words(shift=shift, flip=flip, periodic=periodic)
    call("fft_conv_grad_kernel", settings, (_rows(grad), _rows(input)), (result,))
    return result


def _request(input: Tensor, kernel: Tensor, shift: Ints, grow: Ints, *how: bool) -> Request:
    flip, periodic = how[:2]
    result = _fake_conv(input, kernel, shift, grow, flip, periodic)
    shared = _cuda.shared_bytes(result.device)
    settings = words(shift=shift, flip=flip, periodic=periodic, shared=shared)
    return "fft_conv", settings, (input, kernel), result


def _grad_kernel_request(
    grad: Tensor, input: Tensor, kernel_size: Ints, one: bool, shift: Ints, flip: bool, periodic: bool
) -> Request:
    result = _fake_grad_kernel(grad, input, kernel_size, one, shift, flip, periodic)
    shared = _cuda.shared_bytes(result.device)
    settings = words(shift=shift, flip=flip, periodic=periodic, shared=shared)
    return "fft_conv_grad_kernel", settings, (grad, input), result


def constant(kernel: Tensor) -> bool:
    """Whether later calls are likely to bring the same kernel, so that its values are worth keeping (``keep``)."""
    return not (torch.is_grad_enabled() and kernel.requires_grad)


def _back(kernel_size: Ints, shift: Ints) -> tuple[int, ...]:
    """The shift of the adjoint."""
    return tuple(size - 1 - at for size, at in zip(kernel_size, shift, strict=True))


def _conv_gradient(tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]) -> Any:
    x, k = tensors
    assert x is not None and k is not None
    shift, grow, flip, periodic = statics[:4]
    dx = dk = None
    if wanted[0]:
        dx = fft_conv(grad, k, _back(k.shape[1:], shift), tuple(-g for g in grow), not flip, periodic)
    if wanted[1]:
        shared = k.shape[0] != x.shape[1]
        dk = fft_conv_grad_kernel(grad, x, tuple(k.shape[1:]), shared, shift, flip, periodic)
    return dx, dk


def _grad_kernel_gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> Any:
    g, x = tensors
    assert g is not None and x is not None
    kernel_size, _, shift, flip, periodic = statics
    grow = tuple(o - i for o, i in zip(g.shape[2:], x.shape[2:], strict=True))
    dg = fft_conv(x, grad, shift, grow, flip, periodic) if wanted[0] else None
    dx = None
    if wanted[1]:
        back = _back(kernel_size, shift)
        dx = fft_conv(g, grad, back, tuple(-more for more in grow), not flip, periodic)
    return dg, dx


def filtered_fold(member: Any) -> Any:
    """vmap of an operator of maps and one filter for each channel: as samples, or as channels with their filters."""

    def fold(
        size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
    ) -> tuple[Tensor, int]:
        x, k = tensors
        assert x is not None and k is not None
        if axes[1] is None:
            batched = _front(x, axes[0], size)
            return member()(batched.flatten(0, 1), k, *statics).unflatten(0, batched.shape[:2]), 0
        folded, kernels = _into_channels(x, axes[0], size), _front(k, axes[1], size)
        channels = folded.shape[1] // size
        kernels = kernels.expand(size, channels, *kernels.shape[2:]).flatten(0, 1)
        return member()(folded, kernels, *statics).unflatten(1, (size, channels)).movedim(1, 0), 0

    return fold


def _grad_kernel_fold(
    size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
) -> tuple[Tensor, int]:
    g, x = tensors
    assert g is not None and x is not None
    kernel_size, shared, *rest = statics
    folded = [_into_channels(t, axis, size) for t, axis in ((g, axes[0]), (x, axes[1]))]
    dk = fft_conv_grad_kernel(*folded, kernel_size, False, *rest).unflatten(0, (size, -1))
    return dk.sum(1, keepdim=True) if shared else dk, 0


def _flops(input: Ints, kernel: Ints, output: Ints) -> int:
    """Transforms of n real numbers are counted as 2.5 n log2 n: two per channel and sample, one per kernel."""
    n = math.prod(max(i + k - 1, o) for i, k, o in zip(input[2:], kernel[1:], output[2:], strict=True))
    transforms = 2 * input[0] * input[1] + kernel[0]
    return int(transforms * 2.5 * n * math.log2(max(n, 2))) + 3 * n * input[0] * input[1]


def _flops_conv(x: Ints, k: Ints, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(x, k, out_shape)


def _flops_grad_kernel(g: Ints, x: Ints, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(x, out_shape, g)


family = Family("striate")

fft_conv: Callable[..., Tensor] = family.add(
    Member(
        name="fft_conv",
        schema="(Tensor input, Tensor kernel, SymInt[] shift, SymInt[] grow, bool flip, bool periodic, "
        "bool keep=False) -> Tensor",
        tensors=2,
        fake=_fake_conv,
        flops=_flops_conv,
        gradient=_conv_gradient,
        tangent=bilinear_tangent(lambda: fft_conv),
        fold=filtered_fold(lambda: fft_conv),
        cpu=_conv,
        cuda=_cuda.row_or(_request, _composed.fft_conv),
    )
)

fft_conv_grad_kernel: Callable[..., Tensor] = family.add(
    Member(
        name="fft_conv_grad_kernel",
        schema="(Tensor grad, Tensor input, SymInt[] kernel_size, bool shared, SymInt[] shift, bool flip, "
        "bool periodic) -> Tensor",
        tensors=2,
        fake=_fake_grad_kernel,
        flops=_flops_grad_kernel,
        gradient=_grad_kernel_gradient,
        tangent=bilinear_tangent(lambda: fft_conv_grad_kernel),
        fold=_grad_kernel_fold,
        cpu=_grad_kernel,
        cuda=_cuda.row_or(_grad_kernel_request, _composed.fft_conv_grad_kernel),
    )
)
