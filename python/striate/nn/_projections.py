"""Projections between ``[N, L, features]`` and ``[N, channels, L]`` that no copy follows.

A matrix product writes either order as easily as the other, and torch's own 1x1 convolution is slower than one. A
projection that is more than its layer (another class, hooks) is called as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def untouched(layer: nn.Module) -> bool:
    """Whether calling ``layer`` does no more than its class says."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return not any(hooks)


def into_rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x).transpose(1, 2)`` for x ``[N, L, features]``, contiguous."""
    if type(layer) is not nn.Linear or not untouched(layer):
        return layer(x).transpose(1, 2)
    return _projected(x, layer, True)


def from_rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x.transpose(1, 2))`` for x ``[N, channels, L]``."""
    if type(layer) is not nn.Linear or not untouched(layer):
        return layer(x.transpose(1, 2))
    return _projected(x, layer, False)


def _projected(x: Tensor, layer: nn.Linear, into: bool) -> Tensor:
    if _differentiated(x):
        result: Tensor = _Projection.apply(x, layer.weight, layer.bias, into)
        return result
    return _either(x, layer.weight, layer.bias, into)


def _either(x: Tensor, weight: Tensor, bias: Tensor | None, into: bool) -> Tensor:
    each = (weight if into else weight.t()).expand(x.shape[0], -1, -1)
    turned = x.transpose(1, 2)
    return _product(each, turned, bias, 1) if into else _product(turned, each, bias, 2)


def _differentiated(x: Tensor) -> bool:
    """Whether reverse mode alone looks on: transforms, tracing and autocast take the products apart themselves."""
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


class _Projection(torch.autograd.Function):
    """The product with a gradient of x in the order of x, where torch's would be one of ``x.transpose(1, 2)``.

    In that order everything before it in the backward pass runs across memory, or is copied.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, into: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.into = into
        return _either(x, weight, bias, into)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        rows, across = (grad, x) if ctx.into else (grad.transpose(1, 2), x.transpose(1, 2))
        each = (weight if ctx.into else weight.t()).expand(x.shape[0], -1, -1)
        order = (rows.transpose(1, 2), each) if ctx.into else (each, rows)
        return (
            torch.bmm(*order) if wants_x else None,
            torch.bmm(rows, across).sum(0) if wants_weight else None,
            rows.sum((0, 2)) if wants_bias else None,
            None,
        )


def pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)`` for a convolution of one tap on ``[N, channels, L]``."""
    if type(layer) is not nn.Conv1d or not untouched(layer) or x.device.type != "cpu":
        return layer(x)
    return _product(layer.weight.squeeze(-1).expand(x.shape[0], -1, -1), x, layer.bias, 1)


def _product(a: Tensor, b: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    if bias is None:
        return torch.bmm(a, b)
    # The bias last, as layers use it: weights are taken over from other models in the order of their first use.
    return torch.baddbmm(batch1=a, batch2=b, input=bias.unsqueeze(1) if axis == 1 else bias)
