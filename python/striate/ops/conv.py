"""Convolutions with torch's own signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._listen import leave_to_torch
from . import _long, _torch_row
from ._convolution import conv as _conv
from ._convolution import conv_grad_input as _conv_grad_input
from ._family import autocast_args
from ._resolve import Call, Plan, Tensors, config_of_options, remembered, resolve

Ints = int | Sequence[int]
_compiling = torch.compiler.is_dynamo_compiling
_functorch_active = torch._C._are_functorch_transforms_active
_any_autocast = torch._C._is_any_autocast_enabled

CALLS = {
    f"{kind}{rank}d": Call(f"{kind}{rank}d", rank, word)
    for kind, word in (("conv", "conv"), ("conv_transpose", "transpose"), ("depthwise_conv", "depthwise"))
    for rank in (1, 2, 3)
}
_CONV1D, _CONV2D, _CONV3D = (CALLS[f"conv{r}d"] for r in (1, 2, 3))
_TRANSPOSE1D, _TRANSPOSE2D, _TRANSPOSE3D = (CALLS[f"conv_transpose{r}d"] for r in (1, 2, 3))
_DEPTHWISE1D, _DEPTHWISE2D, _DEPTHWISE3D = (CALLS[f"depthwise_conv{r}d"] for r in (1, 2, 3))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """1-D convolution; the arguments of :func:`torch.nn.functional.conv1d`."""
    return _run(_CONV1D, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """2-D convolution; the arguments of :func:`torch.nn.functional.conv2d`."""
    return _run(_CONV2D, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """3-D convolution; the arguments of :func:`torch.nn.functional.conv3d`."""
    return _run(_CONV3D, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """1-D transposed convolution; the arguments of :func:`torch.nn.functional.conv_transpose1d`."""
    return _run(_TRANSPOSE1D, input, weight, bias, stride, padding, dilation, groups, output_padding)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """2-D transposed convolution; the arguments of :func:`torch.nn.functional.conv_transpose2d`."""
    return _run(_TRANSPOSE2D, input, weight, bias, stride, padding, dilation, groups, output_padding)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """3-D transposed convolution; the arguments of :func:`torch.nn.functional.conv_transpose3d`."""
    return _run(_TRANSPOSE3D, input, weight, bias, stride, padding, dilation, groups, output_padding)


def depthwise_conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
) -> Tensor:
    """1-D convolution of every channel with its own kernels: ``conv1d`` with as many groups as input channels.

    Args:
        input: ``[N, C, L]`` or ``[C, L]``; float32, float64, bfloat16 or float16.
        weight: ``[C * m, 1, k]`` or ``[C * m, k]`` for a channel multiplier m; the dtype of input, or float32 beside
            half input.
        bias: ``[C * m]`` in the dtype of weight, or None.
        stride, padding, dilation: as in torch, 'same' and 'valid' included.

    Returns:
        ``[N, C * m, L_out]`` with y[n, c m + j, o] = b + sum_t w[c m + j, t] x[n, c, o s + t d - p].
    """
    return _run(_DEPTHWISE1D, input, weight, bias, stride, padding, dilation, None)


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
) -> Tensor:
    """2-D form of :func:`depthwise_conv1d`: input ``[N, C, H, W]``, weight ``[C * m, 1, kh, kw]`` or without the 1."""
    return _run(_DEPTHWISE2D, input, weight, bias, stride, padding, dilation, None)


def depthwise_conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
) -> Tensor:
    """3-D form of :func:`depthwise_conv1d`: input ``[N, C, D, H, W]``, weight ``[C * m, 1, kd, kh, kw]``."""
    return _run(_DEPTHWISE3D, input, weight, bias, stride, padding, dilation, None)


def _run(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    output_padding: Any = 0,
) -> Tensor:
    if not _compiling() and type(input) is Tensor and input.is_cpu and input.ndim == call.axes:
        try:
            config = config_of_options(call, stride, padding, dilation, groups)
            fits = groups is None or (len(shape := weight.shape) == call.axes and shape[1] == 1)
            fits = fits and (call.axes != 3 or weight.size(-1) < _long.TAPS)
            if config and fits and weight.is_cpu and not _any_autocast():
                return _conv(input, weight, bias, config)
        except Exception:
            pass  # a mistake in the arguments is explained below; anything else happens there again
    plan = _plan(call, input, weight, bias, (stride, padding, dilation, groups, output_padding))
    return _general(call, plan, input, weight, bias, (stride, padding, dilation, output_padding))


def _plan(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Plan:
    """The plan of a call, from the memo if nothing about it is symbolic."""
    if not _compiling():
        try:
            if input.is_cpu and weight.is_cpu:
                about_bias = None if bias is None else (bias.shape, bias.dtype, bias.device)
                about = (input.shape, input.dtype, weight.shape, weight.dtype, about_bias)
                return remembered(call, *about, *options)
        except (TypeError, AttributeError):
            pass  # unhashable lists and symbolic sizes, and wrong types, which are explained below
    return plan_of(call, input, weight, bias, *options)


def plan_of(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    output_padding: Any = 0,
) -> Plan:
    """The plan of a call, not remembered; explains arguments of a wrong type."""
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (name == "bias" and value is None):
            _not_a_tensor(call, name, value)
    about_bias = None if bias is None else Tensors(bias.shape, bias.dtype, bias.device)
    return resolve(
        call,
        Tensors(input.shape, input.dtype, input.device),
        Tensors(weight.shape, weight.dtype, weight.device),
        about_bias,
        stride,
        padding,
        dilation,
        groups,
        output_padding,
    )


def _not_a_tensor(call: Call, name: str, value: Any) -> NoReturn:
    raise TypeError(f"{call.name}: {name} must be a Tensor, not {type(value).__name__}")


def unfit(plan: Plan, input: Tensor) -> str:
    """Why torch takes a call with several channels per group that sliding kernels could, or an empty string."""
    if plan.dense and not input.is_contiguous():
        return "not depthwise, and input is not contiguous"
    return "not depthwise, under autocast" if plan.dense and _any_autocast() else ""


def _general(
    call: Call, plan: Plan, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
) -> Tensor:
    """Any planned call."""
    transformed = _compiling() and _functorch_active()  # Dynamo traces no custom Function inside a transform
    why = plan.why or unfit(plan, input)
    if why or transformed:
        leave_to_torch(why)
        return _through_torch(call, plan, input, weight, bias, options)
    device = input.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        (input,), (weight, bias) = autocast_args(device, (input,), (weight, bias))  # type: ignore[assignment]
    x = input if plan.batched else input.unsqueeze(0)
    if not plan.direct and not _long.unfit(x):
        y = _long.run(x, weight, bias, plan.config)
        return y if plan.batched else y.squeeze(0)
    y = (_conv_grad_input if call.kind == "transpose" else _conv)(x, weight, bias, plan.config)
    return y if plan.batched else y.squeeze(0)


def _through_torch(
    call: Call, plan: Plan, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
) -> Tensor:
    stride, padding, dilation, output_padding = options
    if plan.lift:
        weight = weight.unsqueeze(1)
    if call.kind == "transpose":
        trailing: tuple[Any, ...] = (stride, padding, output_padding, plan.groups, dilation)
    else:
        trailing = (stride, padding, dilation, plan.groups)
    return _torch_row.run(plan.torch_shape, input, weight, bias, trailing)
