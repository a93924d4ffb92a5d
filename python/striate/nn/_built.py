"""Convolutions whose dense kernel is built from other parameters in every forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _ntuple

from .. import ops
from ..ops import _fft
from . import conv

Ints = int | Sequence[int]
_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
_LAYERS: dict[int, type] = {1: conv.Conv1d, 2: conv.Conv2d, 3: conv.Conv3d}


def sizes(value: Ints, rank: int) -> tuple[int, ...]:
    """One integer for every axis."""
    made: tuple[int, ...] = _ntuple(rank)(value)
    if len(made) != rank:
        raise ValueError(f"expected one integer or {rank}, got {value!r}")
    return made


def pair(value: Ints) -> tuple[int, int]:
    """One integer for both axes of a map."""
    rows, columns = sizes(value, 2)
    return rows, columns


def wide(value: Tensor) -> Tensor:
    """A parameter as builders compute with it: half types have too few digits for positions, angles and frequencies."""
    return value.to(_fft.wide(value.dtype))


class BuiltConv(torch.nn.Module):
    """The base of every layer that builds its kernel: subclasses own parameters and say :meth:`kernel`.

    A builder returns a dense kernel ``[O, I/g, *K]`` made by differentiable operators, so any engine can run it and
    every gradient reaches the parameters; ``striate.nn.merge`` replaces the layer by a plain convolution. Kernels of
    half parameters are built in float32 and rounded once.
    """

    rank: int
    bias: torch.nn.Parameter | None

    def __init__(
        self, channels: tuple[int, int], kernel_size: Ints, *, bias: bool = True, **options: Any
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = channels
        self.kernel_size = sizes(kernel_size, self.rank)
        self.stride = sizes(options.pop("stride", 1), self.rank)
        padding = options.pop("padding", 0)
        self.padding = padding if isinstance(padding, str) else sizes(padding, self.rank)
        self.groups = int(options.pop("groups", 1))
        self.padding_mode = str(options.pop("padding_mode", "zeros"))
        self.factory = {name: options.pop(name, None) for name in ("device", "dtype")}
        if options:
            raise TypeError(f"{type(self).__name__}: unexpected arguments {', '.join(options)}")
        if min(self.in_channels, self.out_channels, self.groups) < 1:
            raise ValueError(
                f"channels and groups: expected positive integers, got {channels} and {self.groups}"
            )
        for name, count in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if count % self.groups:
                raise ValueError(f"{name}: expected a multiple of groups {self.groups}, got {count}")
        if self.padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                f"padding_mode: expected zeros, reflect, replicate or circular, got {self.padding_mode!r}"
            )
        self._has_bias = bias

    def _register_bias(self) -> None:
        """To be called by subclasses where the bias belongs among their parameters."""
        self.register_parameter("bias", self._empty(self.out_channels) if self._has_bias else None)

    def _empty(self, *shape: int) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.empty(*shape, **self.factory))

    def _uniform_bias(self, fan_in: int) -> None:
        if self.bias is not None:
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            torch.nn.init.uniform_(self.bias, -bound, bound)

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, *K]``."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``[N, C, ...]`` or ``[C, ...]`` with the kernel as it is now."""
        convolve = _CONVOLUTIONS[self.rank]
        if self.padding_mode == "zeros":
            kernel, padding = self._met(input)
            return convolve(input, kernel, self.bias, self.stride, padding, 1, self.groups)
        padded = F.pad(input, self._pads(), mode=self.padding_mode)
        return convolve(padded, self._built_exactly(), self.bias, self.stride, 0, 1, self.groups)

    def _built_exactly(self) -> Tensor:
        """The kernel without autocast, whose half types builders cannot use; the convolution casts what was built."""
        where = next(self.parameters()).device.type
        if not (torch.amp.is_autocast_available(where) and torch.is_autocast_enabled(where)):
            return self.kernel()
        with torch.autocast(where, enabled=False):
            return self.kernel()

    def _met(self, input: Tensor) -> tuple[Tensor, tuple[int, ...] | str]:
        """The kernel and the padding that goes with it; builders may leave out what meets padding alone."""
        return self._built_exactly(), self.padding

    def _pads(self) -> list[int]:
        """For F.pad: (low, high) of the last axis first."""
        if isinstance(self.padding, str):
            totals = [k - 1 if self.padding == "same" else 0 for k in reversed(self.kernel_size)]
            return [side for total in totals for side in (total // 2, total - total // 2)]
        return [pad for pad in reversed(self.padding) for _ in range(2)]

    def merged(self) -> torch.nn.Module:
        """A plain convolution with the kernel as it is now."""
        kernel = self.kernel().detach()
        layer = _LAYERS[self.rank](
            self.in_channels,
            self.out_channels,
            tuple(kernel.shape[2:]),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            device=kernel.device,
            dtype=kernel.dtype,
        )
        return filled(layer, kernel, self.bias)

    def extra_repr(self) -> str:
        """As the convolutions of torch.nn print themselves."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        text += f", padding={self.padding!r}" if self.padding not in ((0,) * self.rank, "valid") else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode!r}" if self.padding_mode != "zeros" else "")


def filled(layer: Any, weight: Tensor, bias: Tensor | None) -> torch.nn.Module:
    """``layer`` with these values in its weight and bias."""
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    made: torch.nn.Module = layer
    return made
