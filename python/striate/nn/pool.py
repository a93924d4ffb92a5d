"""torch.nn's pooling layers, computed by striate: same constructor, repr and attributes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops


def _max_forward(rank: int) -> Any:
    function = getattr(ops, f"max_pool{rank}d")

    def forward(self: Any, input: Tensor) -> Any:
        settings = (self.kernel_size, self.stride, self.padding, self.dilation)
        return function(input, *settings, self.ceil_mode, self.return_indices)

    return forward


def _avg_forward(rank: int) -> Any:
    function = getattr(ops, f"avg_pool{rank}d")

    def forward(self: Any, input: Tensor) -> Tensor:
        override = (self.divisor_override,) if rank > 1 else ()
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return function(input, *settings, *override)

    return forward


class MaxPool1d(torch.nn.MaxPool1d):
    """:class:`torch.nn.MaxPool1d` computed by :func:`striate.max_pool1d`."""

    forward = _max_forward(1)


class MaxPool2d(torch.nn.MaxPool2d):
    """:class:`torch.nn.MaxPool2d` computed by :func:`striate.max_pool2d`."""

    forward = _max_forward(2)


class MaxPool3d(torch.nn.MaxPool3d):
    """:class:`torch.nn.MaxPool3d` computed by :func:`striate.max_pool3d`."""

    forward = _max_forward(3)


class AvgPool1d(torch.nn.AvgPool1d):
    """:class:`torch.nn.AvgPool1d` computed by :func:`striate.avg_pool1d`."""

    forward = _avg_forward(1)


class AvgPool2d(torch.nn.AvgPool2d):
    """:class:`torch.nn.AvgPool2d` computed by :func:`striate.avg_pool2d`."""

    forward = _avg_forward(2)


class AvgPool3d(torch.nn.AvgPool3d):
    """:class:`torch.nn.AvgPool3d` computed by :func:`striate.avg_pool3d`."""

    forward = _avg_forward(3)
