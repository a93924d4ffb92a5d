"""The convolution family: conv, conv_grad_input (= transposed convolution) and conv_grad_weight.

With y = conv(x, w) + b, for one axis y[o] = sum_k w[k] x[o s + k d - lo] + b, the derivatives are
dx = conv_grad_input(dy, w), dw = conv_grad_weight(dy, x), db = sum(dy); each of the three is linear in both of its
tensors, and its own derivatives are the other two. The sum over all but the channels is an operator of its own,
channel_sum, whose bits do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._call import call, dense
from .._problem import Config, is_channels_last, read_config
from .._rows import by_torch
from ._family import Family, Member, Statics

Ints = Sequence[int]
Maybe = Tensor | None


def _empty_like_layout(
    reference: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None, last: bool | None = None
) -> Tensor:
    if not (is_channels_last(reference) if last is None else last):
        return reference.new_empty(shape, dtype=dtype)
    channels, spatial = shape[1], shape[2:]
    strides = [1] * len(shape)
    step = channels
    for axis in range(len(shape) - 1, 1, -1):
        strides[axis] = step
        step = step * spatial[axis - 2]
    strides[0] = step
    return reference.new_empty_strided(shape, strides, dtype=dtype)


def _same_device(first: Tensor, *others: Maybe) -> None:
    for other in others:
        if other is not None and other.device != first.device:
            raise RuntimeError(f"striate: expected tensors on {first.device}, got one on {other.device}")


def _fake_conv(input: Tensor, weight: Tensor, bias: Maybe, config: str) -> Tensor:
    _same_device(input, weight, bias)
    settings = read_config(config)
    rank = len(settings.stride)
    kernel, spatial = weight.shape[-rank:], []
    for axis, (lo, hi) in enumerate(settings.padding):
        reach = settings.dilation[axis] * (kernel[axis] - 1) + 1
        out = (input.shape[2 + axis] + lo + hi - reach) // settings.stride[axis] + 1
        torch._check(out > 0, lambda: "striate::conv: the kernel is larger than the padded input")
        spatial.append(out)
    return _empty_like_layout(input, (input.shape[0], weight.shape[0], *spatial))


def _fake_grad_input(grad: Tensor, weight: Tensor, bias: Maybe, config: str) -> Tensor:
    _same_device(grad, weight, bias)
    settings = read_config(config)
    rank = len(settings.stride)
    kernel, spatial = weight.shape[-rank:], []
    extra = settings.output_padding or (0,) * rank
    for axis, (lo, hi) in enumerate(settings.padding):
        reach = settings.dilation[axis] * (kernel[axis] - 1) + 1
        size = (grad.shape[2 + axis] - 1) * settings.stride[axis] - lo - hi + reach + extra[axis]
        torch._check(size > 0, lambda: "striate::conv_grad_input: the result would be empty")
        spatial.append(size)
    each = 1 if weight.dim() == rank + 1 else weight.shape[1]
    return _empty_like_layout(grad, (grad.shape[0], each * _groups(settings), *spatial))


def _fake_grad_weight(grad: Tensor, input: Tensor, config: str) -> Tensor:
    _same_device(grad, input)
    settings = read_config(config)
    assert settings.kernel is not None
    dtype = torch.float32 if settings.wide and input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    shape = (grad.shape[1], input.shape[1] // _groups(settings), *settings.kernel)
    return input.new_empty(shape, dtype=dtype)


def _groups(settings: Config) -> int:
    if settings.groups is None:
        raise RuntimeError("striate: a gradient's configuration must say its groups")
    return settings.groups


def _fake_channel_sum(input: Tensor, wide: bool) -> Tensor:
    return input.new_empty((input.shape[1],), dtype=_sum_dtype(input, wide))


def _channel_sum(input: Tensor, wide: bool) -> Tensor:
    total = input.new_empty((input.shape[1],), dtype=_sum_dtype(input, wide))
    call("channel_sum", "", (input if is_channels_last(input) else dense(input),), (total,))
    return total


@by_torch("channel_sum", "Tensor.sum over all axes but the channels, in float32 or wider")
def _torch_channel_sum(input: Tensor, wide: bool) -> Tensor:
    axes = [axis for axis in range(input.dim()) if axis != 1]
    return input.sum(axes, dtype=torch.promote_types(input.dtype, torch.float32)).to(_sum_dtype(input, wide))


def _sum_dtype(input: Tensor, wide: bool) -> torch.dtype:
    return torch.float32 if wide and input.dtype.itemsize == 2 else input.dtype


def _flops(result: Ints, weight: Ints, batch: int, spatial_out: Ints) -> int:
    """One multiplication and one addition per tap: 2 N C_out (C_in / groups) prod(k) prod(o)."""
    return 2 * batch * math.prod(weight) * math.prod(spatial_out)


def _flops_conv(x: Ints, w: Ints, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(out_shape, w, out_shape[0], out_shape[2:])


def _flops_grad_input(g: Ints, w: Ints, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(out_shape, w, g[0], g[2:])


def _flops_grad_weight(g: Ints, x: Ints, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(out_shape, out_shape, g[0], g[2:])


def leftover(size: Ints, kernel: Ints, settings: Config) -> tuple[int, ...]:
    """Input positions past the last window, per axis: the output_padding that restores the input size."""
    stride, dilation, pads = settings.stride, settings.dilation, settings.padding
    return tuple(
        0 if s == 1 else int((i + lo + hi - d * (k - 1) - 1) % s)
        for i, k, s, d, (lo, hi) in zip(size, kernel, stride, dilation, pads, strict=True)
    )


def _back(config: str, size: Ints, kernel: Ints, channels: int, wide: bool) -> tuple[str, str]:
    """Configurations of the input and the weight gradient of a convolution of so many input positions."""
    settings = read_config(config)
    plain = settings._replace(groups=channels if settings.groups is None else settings.groups)
    return (
        str(plain._replace(output_padding=leftover(size, kernel, settings))),
        str(plain._replace(kernel=tuple(kernel), wide=wide)),
    )


def _ahead(config: str, kernel: Ints, wide: bool) -> tuple[str, str]:
    """Configurations of the convolution that an input gradient belongs to, and of its weight gradient."""
    plain = read_config(config)._replace(output_padding=None)
    return str(plain), str(plain._replace(kernel=tuple(kernel), wide=wide))


def _plain(config: str) -> str:
    """The configuration of the convolution that a weight gradient belongs to."""
    return str(read_config(config)._replace(kernel=None, wide=False))


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` behind a memo, which symbolic sizes and traces go around."""
    recall = functools.lru_cache(maxsize=4096)(function)

    def call(*args: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return function(*args)
        try:
            return recall(*args)
        except TypeError:
            return function(*args)

    return call


_back, _ahead, _plain = _remembered(_back), _remembered(_ahead), _remembered(_plain)


def _bias_gradient(grad: Tensor, bias: Maybe) -> Maybe:
    return None if bias is None else channel_sum(grad, bias.dtype != grad.dtype)


def _weight_gradient(grad: Tensor, input: Tensor, weight: Tensor, config: str) -> Tensor:
    dw = conv_grad_weight(grad, input, config)
    return dw if dw.dim() == weight.dim() else dw.squeeze(1)


def _kernel_of(config: str, weight: Tensor) -> torch.Size:
    return weight.shape[-len(read_config(config).stride) :]


def _conv_gradient(tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]) -> Any:
    x, w, b = tensors
    assert x is not None and w is not None
    (config,) = statics
    kernel, wide = _kernel_of(config, w), w.dtype != x.dtype
    to_input, to_weight = _back(config, x.shape[2:], kernel, x.shape[1], wide)
    dx = conv_grad_input(grad, w, None, to_input) if wanted[0] else None
    dw = _weight_gradient(grad, x, w, to_weight) if wanted[1] else None
    return dx, dw, _bias_gradient(grad, b) if wanted[2] else None


def _grad_input_gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> Any:
    g, w, b = tensors
    assert g is not None and w is not None
    (config,) = statics
    forward, to_weight = _ahead(config, _kernel_of(config, w), w.dtype != g.dtype)
    dg = conv(grad, w, None, forward) if wanted[0] else None
    dw = _weight_gradient(g, grad, w, to_weight) if wanted[1] else None
    return dg, dw, _bias_gradient(grad, b) if wanted[2] else None


def _grad_weight_gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> Any:
    g, x = tensors
    assert g is not None and x is not None
    forward = _plain(statics[0])
    dg = conv(x, grad, None, forward) if wanted[0] else None
    dx = None
    if wanted[1]:
        to_input, _ = _back(forward, x.shape[2:], _kernel_of(forward, grad), x.shape[1], False)
        dx = conv_grad_input(g, grad, None, to_input)
    return dg, dx


def _sum(terms: Sequence[Maybe]) -> Maybe:
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def _per_channel(bias: Tensor, like: Tensor, channel_axis: int = 1) -> Tensor:
    shape = [1] * like.dim()
    shape[channel_axis] = -1
    return bias.reshape(shape).to(like.dtype)


def _affine_tangent(member: Any) -> Any:
    def tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Tensor:
        a, w, _ = tensors
        ta, tw, tb = tangents
        by_a = None if ta is None else member()(ta, w, None, *statics)
        by_w = None if tw is None else member()(a, tw, None, *statics)
        total = _sum((by_a, by_w))
        if tb is None:
            assert total is not None
            return total
        if total is None:
            total = torch.zeros_like(member()(a.detach(), w.detach(), None, *statics))  # type: ignore[union-attr]
        return total + _per_channel(tb, total)

    return tangent


def bilinear_tangent(member: Any) -> Any:
    """The tangent of an operator that is linear in both of its tensors."""

    def tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Tensor:
        (a, b), (ta, tb) = tensors, tangents
        by_a = None if ta is None else member()(ta, b, *statics)
        by_b = None if tb is None else member()(a, tb, *statics)
        total = _sum((by_a, by_b))
        assert total is not None
        return total

    return tangent


def _front(tensor: Tensor, axis: int | None, size: int) -> Tensor:
    """The batch axis of vmap first; a tensor without one is repeated by stride 0."""
    return tensor.unsqueeze(0).expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


def _into_channels(tensor: Tensor, axis: int | None, size: int) -> Tensor:
    """[B, N, C, ...] -> [N, B * C, ...]: every batch entry becomes its own set of groups."""
    return _front(tensor, axis, size).movedim(0, 1).flatten(1, 2)


def _repeated(config: str, times: int) -> str:
    """The configuration with all groups several times over."""
    settings = read_config(config)
    return config if settings.groups is None else str(settings._replace(groups=times * settings.groups))


def _affine_fold(member: Any) -> Any:
    def fold(
        size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
    ) -> tuple[Tensor, int]:
        a, w, bias = tensors
        assert a is not None and w is not None
        together = bias if axes[2] is None and axes[1] is None else None
        if axes[1] is None:
            if axes[0] is None:
                y = member()(a, w, together, *statics).unsqueeze(0)
            else:
                y = member()(_front(a, axes[0], size).flatten(0, 1), w, together, *statics)
                y = y.unflatten(0, (size, a.shape[0 if axes[0] != 0 else 1]))
        else:
            y = member()(
                _into_channels(a, axes[0], size),
                _front(w, axes[1], size).flatten(0, 1),
                together,
                _repeated(statics[0], size),
            )
            y = y.unflatten(1, (size, y.shape[1] // size)).movedim(1, 0)
        if bias is not None and together is None:
            b = _front(bias, axes[2], size)
            y = y + b.reshape(size, 1, -1, *([1] * (y.dim() - 3))).to(y.dtype)
        return y, 0

    return fold


def _grad_weight_fold(
    size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
) -> tuple[Tensor, int]:
    g, x = tensors
    assert g is not None and x is not None
    folded = [_into_channels(t, axis, size) for t, axis in ((g, axes[0]), (x, axes[1]))]
    dw = conv_grad_weight(*folded, _repeated(statics[0], size))
    return dw.unflatten(0, (size, dw.shape[0] // size)), 0


def _channel_sum_gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Maybe]:
    (x,) = tensors
    assert x is not None
    return (_per_channel(grad, x).expand(x.shape),)


def _channel_sum_tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Tensor:
    return channel_sum(tangents[0], *statics)


def _channel_sum_fold(
    size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
) -> tuple[Tensor, int]:
    (x,) = tensors
    assert x is not None
    return channel_sum(_into_channels(x, axes[0], size), *statics).unflatten(0, (size, -1)), 0


family = Family("striate")

conv: Callable[..., Tensor] = family.add(
    Member(
        name="conv",
        schema="(Tensor input, Tensor weight, Tensor? bias, str config) -> Tensor",
        tensors=3,
        fake=_fake_conv,
        flops=_flops_conv,
        gradient=_conv_gradient,
        tangent=_affine_tangent(lambda: conv),
        fold=_affine_fold(lambda: conv),
    )
)

conv_grad_input: Callable[..., Tensor] = family.add(
    Member(
        name="conv_grad_input",
        schema="(Tensor grad, Tensor weight, Tensor? bias, str config) -> Tensor",
        tensors=3,
        fake=_fake_grad_input,
        flops=_flops_grad_input,
        gradient=_grad_input_gradient,
        tangent=_affine_tangent(lambda: conv_grad_input),
        fold=_affine_fold(lambda: conv_grad_input),
    )
)

conv_grad_weight: Callable[..., Tensor] = family.add(
    Member(
        name="conv_grad_weight",
        schema="(Tensor grad, Tensor input, str config) -> Tensor",
        tensors=2,
        fake=_fake_grad_weight,
        flops=_flops_grad_weight,
        gradient=_grad_weight_gradient,
        tangent=bilinear_tangent(lambda: conv_grad_weight),
        fold=_grad_weight_fold,
    )
)

channel_sum: Callable[..., Tensor] = family.add(
    Member(
        name="channel_sum",
        schema="(Tensor input, bool wide) -> Tensor",
        tensors=1,
        fake=_fake_channel_sum,
        flops=None,
        gradient=_channel_sum_gradient,
        tangent=_channel_sum_tangent,
        fold=_channel_sum_fold,
        cpu=_channel_sum,
        cuda=_torch_channel_sum,
    )
)
