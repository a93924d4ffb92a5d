"""Convolutions whose kernels depend on the input, on the position, or on which inputs are valid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class CondConv2d(nn.Module):
    """Convolution with one kernel for each sample, mixed from experts (Yang et al., arXiv 1904.04971, Eq. 2).

    ``W[n] = sum_e routing[n, e] * weight[e]``; the batch is folded into the groups of one grouped convolution.
    Input [N, in_channels, H, W] and routing [N, num_experts] give [N, out_channels, H', W'].

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in torch.nn.Conv2d.
        num_experts: number of kernels that are mixed.
        function: the convolution that is called, with the signature of torch.nn.functional.conv2d.

    Raises:
        ValueError: channels that the groups do not divide, or routing of another shape than [N, num_experts].
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Pair, *, num_experts: int = 4, **options: Any):
        super().__init__()
        self.function: Callable[..., Tensor] = options.pop("function", ops.conv2d)
        self.stride, self.padding, self.dilation = (
            _pair(options.pop(key, default)) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        self.groups, bias = options.pop("groups", 1), options.pop("bias", True)
        if options:
            raise TypeError(f"CondConv2d got an unexpected keyword argument {next(iter(options))!r}")
        if in_channels % self.groups or out_channels % self.groups:
            raise ValueError(f"groups={self.groups} must divide {in_channels} input and {out_channels} output channels")
        self.shape = (out_channels, in_channels // self.groups, *_pair(kernel_size))
        self.weight = nn.Parameter(torch.empty(num_experts, math.prod(self.shape)))
        self.bias = nn.Parameter(torch.empty(num_experts, out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each expert starts as an ordinary convolution would."""
        bound = 1 / math.sqrt(math.prod(self.shape[1:]))
        for tensor in (self.weight, self.bias):
            if tensor is not None:
                nn.init.uniform_(tensor, -bound, bound)

    def forward(self, x: Tensor, routing: Tensor) -> Tensor:
        """Convolve sample ``n`` with the kernel that ``routing[n]`` mixes."""
        n = x.shape[0]
        if tuple(routing.shape) != (n, self.weight.shape[0]):
            raise ValueError(f"routing must have shape {(n, self.weight.shape[0])}, but got {tuple(routing.shape)}")
        weight = (routing @ self.weight).reshape(-1, *self.shape[1:])
        bias = None if self.bias is None else (routing @ self.bias).reshape(-1)
        folded = x.reshape(1, -1, *x.shape[2:])
        y = self.function(folded, weight, bias, self.stride, self.padding, self.dilation, n * self.groups)
        return y.reshape(n, self.shape[0], *y.shape[2:])
