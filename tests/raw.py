"""The raw operators with lists instead of the one string that they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from striate._problem import config

Ints = Sequence[int]
_ops = torch.ops.striate


def settings(stride: Ints, padding: Ints, dilation: Ints, groups: int | None, **more: Any) -> str:
    """A configuration as the operators read it; ``more`` are further fields of ``Config``."""
    return str(config(stride, padding, dilation, groups)._replace(**more))


def conv(x: Tensor, w: Tensor, b: Tensor | None, *lists: Any) -> Tensor:
    """``lists`` are stride, padding, dilation and groups."""
    return _ops.conv(x, w, b, settings(*lists))


def conv_grad_input(g: Tensor, w: Tensor, b: Tensor | None, *lists: Any) -> Tensor:
    """``lists`` are stride, padding, output_padding, dilation and groups."""
    stride, padding, extra, dilation, groups = lists
    return _ops.conv_grad_input(g, w, b, settings(stride, padding, dilation, groups, output_padding=extra))


def conv_grad_weight(g: Tensor, x: Tensor, kernel: Ints, *lists: Any) -> Tensor:
    """``lists`` are stride, padding, dilation, groups and wide."""
    *lists, wide = lists
    return _ops.conv_grad_weight(g, x, settings(*lists, kernel=kernel, wide=wide))
