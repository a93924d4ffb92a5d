"""Projections between ``[N, L, features]`` and ``[N, channels, L]`` that no copy follows.

A matrix product writes either order as easily as the other, and torch's own 1x1 convolution is slower than one. A
projection that is more than its layer (another class, hooks) is called as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def untouched(layer: nn.Module) -> bool:
    """Whether calling ``layer`` does no more than its class says."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return not any(hooks)


def into_rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x).transpose(1, 2)`` for x ``[N, L, features]``, contiguous."""
    if type(layer) is not nn.Linear or not untouched(layer):
        return layer(x).transpose(1, 2)
    return _product(layer.weight.expand(x.shape[0], -1, -1), x.transpose(1, 2), layer.bias, 1)


def from_rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x.transpose(1, 2))`` for x ``[N, channels, L]``."""
    if type(layer) is not nn.Linear or not untouched(layer):
        return layer(x.transpose(1, 2))
    return _product(x.transpose(1, 2), layer.weight.t().expand(x.shape[0], -1, -1), layer.bias, 2)


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
