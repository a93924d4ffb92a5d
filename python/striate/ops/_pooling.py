"""The pooling family: pool, its transpose where it is a sum, the positions of extremes, gather and scatter.

A sum over windows and its transpose are each other's derivatives. An extreme is differentiated by the positions at
which it was found: its gradient is scattered to them, and the gradient of that is gathered from them. A position
lies in the window that it belongs to, which is how devices scatter without atomics; one of no position is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._call import Request, dense, on_host, words
from .._problem import is_channels_last, pad_pairs
from . import _composed, _cuda
from ._convolution import _empty_like_layout, _front, family
from ._family import Member, Statics

Ints = Sequence[int]
Maybe = Tensor | None
_WINDOWS = "int[] kernel, int[] stride, SymInt[] pad, int[] dilation"
_POOLED = f"str mode, {_WINDOWS}, int[] ring, int divisor"


def _ordered(tensor: Tensor, last: bool | None = None) -> Tensor:
    """The tensor in a memory order that the kernels take; ``last`` asks for one."""
    if last:
        return dense(tensor.movedim(1, -1)).movedim(-1, 1)
    return tensor if last is None and is_channels_last(tensor) else dense(tensor)


def _settings(pass_: str, size: Ints, statics: Statics) -> str:
    mode, kernel, stride, pad, dilation, ring, divisor = statics
    return words(
        mode=mode,
        **{"pass": pass_},  # a word of Python's own
        size=size,
        kernel=kernel,
        stride=stride,
        pad=pad,
        dilation=dilation,
        ring=ring,
        divisor=divisor,
    )


def _result_size(input: Tensor, kernel: Ints, stride: Ints, pad: Ints, dilation: Ints) -> tuple[int, ...]:
    sizes = zip(input.shape[2:], kernel, stride, pad_pairs(pad, len(kernel)), dilation, strict=True)
    spatial = [(i + lo + hi - d * (k - 1) - 1) // s + 1 for i, k, s, (lo, hi), d in sizes]
    for size in spatial:
        if not (isinstance(size, int) and size > 0):
            torch._check(size > 0, lambda: "striate::pool: the window is larger than the padded input")
    return (*input.shape[:2], *spatial)


def _empty_pool(input: Tensor, *statics: Any) -> Tensor:
    return _empty_like_layout(input, _result_size(input, *statics[1:5]))


def _pool_request(input: Tensor, *statics: Any) -> Request:
    x = _ordered(input)
    return "pool", _settings("fwd", x.shape[2:], statics), (x,), _empty_pool(x, *statics)


def _empty_transpose(grad: Tensor, size: Ints, *_: Any) -> Tensor:
    return _empty_like_layout(grad, (*grad.shape[:2], *size))


def _transpose_request(grad: Tensor, size: Ints, *statics: Any) -> Request:
    g = _ordered(grad)
    return "pool", _settings("dx", size, statics), (g,), _empty_transpose(g, size)


def _empty_argmax(input: Tensor, wide: bool, *statics: Any) -> Tensor:
    dtype = torch.int64 if wide else torch.int32
    return _empty_like_layout(input, _result_size(input, *statics[1:5]), dtype)


def _argmax_request(input: Tensor, wide: bool, *statics: Any) -> Request:
    x = _ordered(input)
    return "pool_argmax", _settings("fwd", x.shape[2:], statics), (x,), _empty_argmax(x, wide, *statics)


def _alike(numbers: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    last = is_channels_last(numbers) or is_channels_last(indices)
    return _ordered(numbers, last), _ordered(indices, last)


def _empty_gather(numbers: Tensor, indices: Tensor, *_: Any) -> Tensor:
    last = is_channels_last(numbers) or is_channels_last(indices)
    return _empty_like_layout(numbers, tuple(indices.shape), last=last)


def _gather_request(numbers: Tensor, indices: Tensor, *_: Any) -> Request:
    return "pool_gather", "", _alike(numbers, indices), _empty_gather(numbers, indices)


def _empty_scatter(numbers: Tensor, indices: Tensor, size: Ints, *_: Any) -> Tensor:
    last = is_channels_last(numbers) or is_channels_last(indices)
    return _empty_like_layout(numbers, (*indices.shape[:2], *size), last=last)


def _scatter_request(numbers: Tensor, indices: Tensor, size: Ints, *windows: Any) -> Request:
    # A device looks up the windows of every number.
    settings = _settings("dx", size, ("sum", *windows, (0,) * len(size), 1))
    return "pool_scatter", settings, _alike(numbers, indices), _empty_scatter(numbers, indices, size)


def _places(input: Tensor, statics: Statics) -> Tensor:
    return argmax(input.detach(), math.prod(input.shape[2:]) >= 2**31, *statics)


def _pool_gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Maybe]:
    (x,) = tensors
    assert x is not None
    if statics[0] in ("max", "min"):
        return (scatter(grad, _places(x, statics), tuple(x.shape[2:]), *statics[1:5]),)
    return (transpose(grad, tuple(x.shape[2:]), *statics),)


def _pool_tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Tensor:
    (x,), (tangent,) = tensors, tangents
    assert x is not None and tangent is not None
    if statics[0] in ("max", "min"):
        return gather(tangent, _places(x, statics), *statics[1:5])
    return pool(tangent, *statics)


def _fold(member: Callable[[], Callable[..., Tensor]]) -> Any:
    """vmap: its batch joins the samples."""

    def fold(
        size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
    ) -> tuple[Tensor, int]:
        pairs = zip(tensors, axes, strict=True)
        folded = [_front(t, axis, size).flatten(0, 1) for t, axis in pairs if t is not None]
        return member()(*folded, *statics).unflatten(0, (size, -1)), 0

    return fold


def _nothing(tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]) -> tuple[None]:
    return (None,)


def _no_tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Any:
    return None


pool: Callable[..., Tensor] = family.add(
    Member(
        name="pool",
        schema=f"(Tensor input, {_POOLED}) -> Tensor",
        tensors=1,
        fake=_empty_pool,
        flops=None,
        gradient=_pool_gradient,
        tangent=_pool_tangent,
        fold=_fold(lambda: pool),
        cpu=on_host(_pool_request),
        cuda=_cuda.row_or(_pool_request, _composed.pool),
    )
)

transpose: Callable[..., Tensor] = family.add(
    Member(
        name="pool_transpose",
        schema=f"(Tensor grad, SymInt[] size, {_POOLED}) -> Tensor",
        tensors=1,
        fake=_empty_transpose,
        flops=None,
        gradient=lambda tensors, statics, grad, wanted: (pool(grad, *statics[1:]),),
        tangent=lambda tensors, statics, tangents: transpose(tangents[0], *statics),
        fold=_fold(lambda: transpose),
        cpu=on_host(_transpose_request),
        cuda=_cuda.row_or(_transpose_request, _composed.pool_transpose),
    )
)

argmax: Callable[..., Tensor] = family.add(
    Member(
        name="pool_argmax",
        schema=f"(Tensor input, bool wide, {_POOLED}) -> Tensor",
        tensors=1,
        fake=_empty_argmax,
        flops=None,
        gradient=_nothing,
        tangent=_no_tangent,
        fold=_fold(lambda: argmax),
        cpu=on_host(_argmax_request),
        cuda=_cuda.row_or(_argmax_request, _composed.pool_argmax),
    )
)

gather: Callable[..., Tensor] = family.add(
    Member(
        name="pool_gather",
        schema=f"(Tensor numbers, Tensor indices, {_WINDOWS}) -> Tensor",
        tensors=2,
        fake=_empty_gather,
        flops=None,
        gradient=lambda tensors, statics, grad, wanted: (
            scatter(grad, tensors[1], tuple(tensors[0].shape[2:]), *statics),  # type: ignore[union-attr]
            None,
        ),
        tangent=lambda tensors, statics, tangents: gather(tangents[0], tensors[1], *statics),
        fold=_fold(lambda: gather),
        cpu=on_host(_gather_request),
        cuda=_cuda.row_or(_gather_request, _composed.pool_gather),
    )
)

scatter: Callable[..., Tensor] = family.add(
    Member(
        name="pool_scatter",
        schema=f"(Tensor numbers, Tensor indices, SymInt[] size, {_WINDOWS}) -> Tensor",
        tensors=2,
        fake=_empty_scatter,
        flops=None,
        gradient=lambda tensors, statics, grad, wanted: (gather(grad, tensors[1], *statics[1:]), None),
        tangent=lambda tensors, statics, tangents: scatter(tangents[0], tensors[1], *statics),
        fold=_fold(lambda: scatter),
        cpu=on_host(_scatter_request),
        cuda=_cuda.row_or(_scatter_request, _composed.pool_scatter),
    )
)
