"""Long convolutions with what stands around them as one operator: postgate * activation(k * (pregate x) + bias).

On a CUDA device gates, bias and activation meet the numbers on their way in and out of the transform, so that they
cost their own reading and no pass of their own. Elsewhere, and wherever torch transforms the call, they are torch's
operators around ``fft_conv``. The gradients are those operators and the family of ``fft_conv``: the convolution is
computed again, where a gradient needs its values, and never kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from .._call import Request, dense, words
from . import _cuda
from ._convolution import channel_sum
from ._family import Family
from ._fft import _back, _fake_conv, _flops_conv, fft_conv, fft_conv_grad_kernel

Ints = Sequence[int]
Maybe = Tensor | None
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


class How(NamedTuple):
    """What is no tensor in a call, in the order of the schema."""

    shift: Ints
    grow: Ints
    flip: bool
    periodic: bool
    activation: str
    """a name, or "none" """


def fused(x: Tensor, gates: Sequence[Maybe], activation: str | None) -> bool:
    """Whether one operator takes them: on a device with rows of ours, outside transforms and traces."""
    if not x.is_cuda or not _cuda.own_rows() or (activation is None and all(gate is None for gate in gates)):
        return False
    outside = not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    return outside and forward_ad._current_level < 0


def gated(x: Tensor, kernel: Tensor, gates: Sequence[Maybe], how: How) -> Tensor:
    """``gates`` are pregate, postgate and bias ``[C]``; the kernel is of the wide type."""
    if torch.is_grad_enabled() and torch._C._any_requires_grad(x, kernel, *gates):
        made: Tensor = _Gated.apply(how, x, kernel, *gates)
        return made
    return _forward(x, kernel, *gates, *how)


def _slope(name: str, u: Tensor) -> Tensor:
    """The derivative of an activation, in differentiable operators."""
    if name == "relu":
        return (u > 0).to(u.dtype)
    if name == "silu":
        share = torch.sigmoid(u)
        return share * (1 + u * (1 - share))
    density = torch.exp(-0.5 * u * u) * (1 / math.sqrt(2 * math.pi))
    return 0.5 * (1 + torch.erf(u * math.sqrt(0.5))) + u * density


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: How, x: Tensor, kernel: Tensor, *gates: Maybe) -> Tensor:
        ctx.save_for_backward(x, kernel, *gates)
        ctx.how = how
        return _forward(x, kernel, *gates, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, kernel, pre, post, bias = ctx.saved_tensors
        how, wanted = ctx.how, ctx.needs_input_grad[1:]
        grad, v = grads[0], x if pre is None else x * pre
        place = (how.shift, how.grow, how.flip, how.periodic)
        back = (
            _back(kernel.shape[1:], how.shift),
            tuple(-more for more in how.grow),
            not how.flip,
            how.periodic,
        )
        du, dpost = grad if post is None else grad * post, None
        if wanted[3] or how.activation != "none":
            u = fft_conv(v, kernel, *place)
            if bias is not None:
                u = u + bias.to(u.dtype).reshape(-1, *[1] * (u.dim() - 2))
            if wanted[3]:
                dpost = grad * (ACTIVATIONS[how.activation](u) if how.activation != "none" else u)
            if how.activation != "none":
                du = du * _slope(how.activation, u)
        dx = dpre = dk = None
        if wanted[0] and not wanted[2] and not torch.is_grad_enabled() and how.activation == "none":
            dx = _forward(grad, kernel, post, pre, None, *back, "none")
        elif wanted[0] or wanted[2]:
            dv = fft_conv(du, kernel, *back)
            dx, dpre = dv if pre is None else dv * pre, dv * x if wanted[2] else None
        if wanted[1]:
            shared = kernel.shape[0] != x.shape[1]
            dk = fft_conv_grad_kernel(
                du, v, tuple(kernel.shape[1:]), shared, how.shift, how.flip, how.periodic
            )
        return None, dx, dk, dpre, dpost, channel_sum(du, bias.dtype != du.dtype) if wanted[4] else None


def _fake(x: Tensor, kernel: Tensor, pre: Maybe, post: Maybe, bias: Maybe, *how: Any) -> Tensor:
    return _fake_conv(x, kernel, *how[:4])


def composed(x: Tensor, kernel: Tensor, pre: Maybe, post: Maybe, bias: Maybe, *given: Any) -> Tensor:
    """The same in torch's operators around ``fft_conv``."""
    how = How(*given)
    y = torch.ops.striate.fft_conv.default(x if pre is None else x * pre, kernel, *given[:4])
    if bias is not None:
        y = y + bias.to(y.dtype).reshape(-1, *[1] * (y.dim() - 2))
    if how.activation != "none":
        y = ACTIVATIONS[how.activation](y)
    return y if post is None else y * post


def _request(x: Tensor, kernel: Tensor, pre: Maybe, post: Maybe, bias: Maybe, *given: Any) -> Request:
    how = How(*given)
    if pre is not None and pre.stride() != x.stride():
        x, pre = dense(x), dense(pre)
    result = _fake_conv(x, kernel, how.shift, how.grow, how.flip, how.periodic)
    shared = _cuda.shared_bytes(result.device)
    settings = words(
        shift=how.shift, flip=how.flip, periodic=how.periodic, shared=shared, activation=how.activation
    )
    gates = (
        pre,
        None if post is None else dense(post),
        None if bias is None else dense(bias.to(kernel.dtype)),
    )
    return "fft_conv", settings, (x, kernel, *gates), result


_family = Family("striate")
_family.define(
    "fft_conv_gated",
    "(Tensor input, Tensor kernel, Tensor? pregate, Tensor? postgate, Tensor? bias, SymInt[] shift, SymInt[] grow, "
    "bool flip, bool periodic, str activation) -> Tensor",
    _fake,
    {"CPU": composed, "CUDA": _cuda.row_or(_request, composed)},
    _flops_conv,
)
_forward = torch.ops.striate.fft_conv_gated.default
