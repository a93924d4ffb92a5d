"""torch.nn's convolution layers, computed by striate: same constructor, repr, parameters and state_dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops


def _conv_forward(function: Callable[..., Tensor], rank: int) -> Callable[..., Tensor]:
    zeros = (0,) * rank

    def forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            padded = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            return function(padded, weight, bias, self.stride, zeros, self.dilation, self.groups)
        return function(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    return forward


def _transpose_forward(function: Callable[..., Tensor], rank: int) -> Callable[..., Tensor]:
    def forward(self: Any, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.padding_mode != "zeros":
            raise ValueError(f"Only `zeros` padding mode is supported for ConvTranspose{rank}d")
        extra = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, rank, self.dilation
        )
        return function(
            input, self.weight, self.bias, self.stride, self.padding, tuple(extra), self.groups, self.dilation
        )

    return forward


class Conv1d(torch.nn.Conv1d):
    """:class:`torch.nn.Conv1d` computed by :func:`striate.conv1d`."""

    _conv_forward = _conv_forward(ops.conv1d, 1)


class Conv2d(torch.nn.Conv2d):
    """:class:`torch.nn.Conv2d` computed by :func:`striate.conv2d`."""

    _conv_forward = _conv_forward(ops.conv2d, 2)


class Conv3d(torch.nn.Conv3d):
    """:class:`torch.nn.Conv3d` computed by :func:`striate.conv3d`."""

    _conv_forward = _conv_forward(ops.conv3d, 3)


class ConvTranspose1d(torch.nn.ConvTranspose1d):
    """:class:`torch.nn.ConvTranspose1d` computed by :func:`striate.conv_transpose1d`."""

    forward = _transpose_forward(ops.conv_transpose1d, 1)


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` computed by :func:`striate.conv_transpose2d`."""

    forward = _transpose_forward(ops.conv_transpose2d, 2)


class ConvTranspose3d(torch.nn.ConvTranspose3d):
    """:class:`torch.nn.ConvTranspose3d` computed by :func:`striate.conv_transpose3d`."""

    forward = _transpose_forward(ops.conv_transpose3d, 3)
