"""Layers with kernels as long as their input: LongConv, SGConv1d and MultiresConv1d."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import conv1d, fft_conv1d
from ._projections import pointwise


class LongConv(nn.Module):
    """A causal or two-sided depthwise convolution whose kernel is a parameter of full length, with a skip term.

    The kernel is ``k = sign(w) relu(|w| - squash)`` with dropout (Fu et al. 2023, arXiv 2302.06646, section 3.2), and
    y = k * x + skip x, in the order of FIR filters: ``weight[:, 0]`` meets the current sample.

    Args:
        channels: channels of input and output.
        length: taps of the kernel; inputs may be shorter or longer.
        bidirectional: a second kernel that looks ahead, ``weight_reversed``.
        squash: the threshold below which taps are zero.
        dropout: of the kernel, in training.
        activation: None, "gelu", "silu" or "relu".

    Shape: ``[N, channels, L]`` to the same.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        *,
        bidirectional: bool = False,
        squash: float = 0.0,
        dropout: float = 0.0,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.length, self.squash, self.activation = channels, length, squash, activation
        self.weight = nn.Parameter(torch.empty(channels, length))
        self.weight_reversed = nn.Parameter(torch.empty(channels, length)) if bidirectional else None
        self.skip = nn.Parameter(torch.empty(channels))
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Taps of variance 1 / length under an exponential window, a skip term of variance 1."""
        window = torch.exp(-4.0 * torch.arange(self.length) / self.length)
        with torch.no_grad():
            for weight in (self.weight, self.weight_reversed):
                if weight is not None:
                    weight.copy_(torch.randn_like(weight) * window / math.sqrt(self.length))
            nn.init.normal_(self.skip)

    def _kernel(self, weight: Tensor, length: int) -> Tensor:
        taps = weight[:, :length]
        if self.squash:
            taps = torch.sign(taps) * F.relu(taps.abs() - self.squash)
        return self.dropout(taps)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, L]`` to the same."""
        length, ahead = input.shape[-1], self.weight_reversed
        return fft_conv1d(
            input,
            self._kernel(self.weight, length),
            order="convolution",
            skip=self.skip,
            kernel_reversed=None if ahead is None else self._kernel(ahead, length),
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, {self.length}, bidirectional={self.weight_reversed is not None}"


class SGConv1d(nn.Module):
    """Structured global convolution: a kernel of sub-kernels that double in length and decay in size.

    Sub-kernel i is stretched linearly to ``kernel_dim 2^max(0, i - 1)`` taps and weighted by ``decay^(S - 1 - i)``;
    their concatenation is divided by its norm at construction (Li et al. 2022, arXiv 2210.09298, section 3.2). Then
    y = k * x + skip x, the activation, and a pointwise convolution.

    Args:
        channels: channels of input and output.
        length: the longest input; there are 1 + ceil(log2(length / kernel_dim)) sub-kernels.
        kernel_dim: taps of a sub-kernel.
        decay: smallest and largest decay, spread over the channels.
        bidirectional: a second kernel that looks ahead, from one tap on.
        activation: None, "gelu", "silu" or "relu".
        pointwise: whether a 1x1 convolution follows.

    Shape: ``[N, channels, L]`` to the same, L <= length.
    """

    kernel_norm: Tensor
    multiplier: Tensor

    def __init__(
        self,
        channels: int,
        length: int,
        kernel_dim: int = 64,
        *,
        decay: tuple[float, float] = (2.0, 2.0),
        bidirectional: bool = False,
        activation: str | None = "gelu",
        pointwise: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.length, self.kernel_dim = channels, length, kernel_dim
        self.activation, self.sides = activation, 2 if bidirectional else 1
        scales = 1 + max(0, math.ceil(math.log2(length / kernel_dim)))
        self.kernel_list = nn.ParameterList(
            nn.Parameter(torch.randn(self.sides, channels, kernel_dim)) for _ in range(scales)
        )
        self.D = nn.Parameter(torch.randn(channels))
        self.register_buffer("multiplier", torch.linspace(*decay, channels).view(1, -1, 1))
        self.register_buffer("kernel_norm", torch.ones(()))
        with torch.no_grad():
            self.kernel_norm = torch.stack([side.norm(dim=-1, keepdim=True) for side in self._sides()])
        self.output_linear = nn.Conv1d(channels, channels, 1) if pointwise else nn.Identity()

    def _sides(self) -> Tensor:
        """``[sides, channels, taps]``, not normalised."""
        scales = len(self.kernel_list)
        parts = []
        for i, taps in enumerate(self.kernel_list):
            size = self.kernel_dim * 2 ** max(0, i - 1)
            stretched = F.interpolate(taps, size=size, mode="linear") if size != self.kernel_dim else taps
            parts.append(stretched * self.multiplier ** (scales - 1 - i))
        return torch.cat(parts, -1)

    def kernels(self, length: int) -> Tensor:
        """``[sides, channels, at most length]``."""
        return (self._sides() / self.kernel_norm)[..., :length]

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, L]`` to the same."""
        if input.shape[-1] > self.length:
            raise ValueError(f"input: expected at most {self.length} positions, got {input.shape[-1]}")
        behind, *ahead = self.kernels(input.shape[-1])
        y = fft_conv1d(
            input,
            behind,
            order="convolution",
            skip=self.D,
            kernel_reversed=F.pad(ahead[0], (1, 0)) if ahead else None,
            activation=self.activation,
        )
        return pointwise(self.output_linear, y)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, {self.length}, kernel_dim={self.kernel_dim}, scales={len(self.kernel_list)}"


class MultiresConv1d(nn.Module):
    """A tree of dilated causal convolutions with two filters shared by all levels ("fading" tree).

    a_0 = x; level j = 1..J with dilation 2^(j - 1): d_j = h1 * a_{j-1}, a_j = h0 * a_{j-1};
    y = sum_j w[:, J - j + 1] d_j + w[:, 0] a_J + w[:, -1] x (Shi et al. 2023, arXiv 2305.01638, equation 9), which is
    one causal convolution of (2^J - 1)(kernel_size - 1) + 1 taps.

    Args:
        channels: channels of input and output.
        kernel_size: taps of the two filters.
        length: input length that the tree spans, if ``depth`` is not given.
        depth: J; by default ceil(log2((length - 1) / (kernel_size - 1) + 1)).
        wavelet: "haar" to begin with Haar's filters (kernel_size 2), None for uniform ones.
        activation: None, "gelu", "silu" or "relu".

    Shape: ``[N, channels, L]`` to the same.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 2,
        length: int = 1024,
        *,
        depth: int | None = None,
        wavelet: str | None = None,
        activation: str | None = "gelu",
    ) -> None:
        super().__init__()
        if kernel_size < 2:
            raise ValueError(f"kernel_size: expected at least 2, got {kernel_size}")
        if wavelet not in (None, "haar") or (wavelet == "haar" and kernel_size != 2):
            raise ValueError(f'wavelet: expected None, or "haar" with kernel_size 2, got {wavelet!r}')
        if depth is None:
            depth = math.ceil(math.log2((length - 1) / (kernel_size - 1) + 1))
        self.channels, self.kernel_size, self.depth, self.activation = (
            channels,
            kernel_size,
            depth,
            activation,
        )
        self.function: Callable[..., Tensor] = (
            conv1d  # or another with the signature of torch.nn.functional.conv1d
        )
        bound = math.sqrt(2.0 / (2 * kernel_size))
        self.h0 = nn.Parameter((torch.rand(channels, 1, kernel_size) * 2 - 1) * bound)
        self.h1 = nn.Parameter((torch.rand(channels, 1, kernel_size) * 2 - 1) * bound)
        if wavelet == "haar":
            with torch.no_grad():
                self.h0.copy_(torch.tensor([1.0, 1.0]) / math.sqrt(2))
                self.h1.copy_(torch.tensor([-1.0, 1.0]) / math.sqrt(2))
        self.w = nn.Parameter((torch.rand(channels, depth + 2) * 2 - 1) * math.sqrt(2.0 / (2 * depth + 4)))

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, L]`` to the same."""
        low, y = input, torch.zeros_like(input)
        for level in range(self.depth, 0, -1):
            dilation = 2 ** (self.depth - level)
            padded = F.pad(low, (dilation * (self.kernel_size - 1), 0))
            where = (None, 1, 0, dilation, self.channels)
            high, low = self.function(padded, self.h1, *where), self.function(padded, self.h0, *where)
            y = y + self.w[:, level : level + 1] * high
        y = y + self.w[:, :1] * low + self.w[:, -1:] * input
        return y if self.activation is None else getattr(F, self.activation)(y)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, kernel_size={self.kernel_size}, depth={self.depth}"
