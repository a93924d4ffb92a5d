"""Small parts of published networks: norms, activations, and how they pad, blur and drop."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import conv2d


class SameUpper(nn.Module):
    """Zero padding after which ceil(n / stride) outputs remain; the odd element goes to the far side."""

    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = tuple(zip(kernel, stride, dilation, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        pad: list[int] = []
        for n, (k, s, d) in zip(reversed(x.shape), reversed(self.axes), strict=False):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pad += [total // 2, total - total // 2]
        return F.pad(x, pad)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [N, C, ...]."""

    def __init__(self, channels: int, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        y = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


class OneGroupNorm(ChannelNorm):
    """Group norm with a single group, the norm of PoolFormer."""

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


class StarReLU(nn.Module):
    """scale * relu(x)^2 + bias with two learned numbers (MetaFormer baselines, Eq. 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        return self.scale * F.relu(x).square() + self.bias


class SquaredReLU(nn.Module):
    """relu(x)^2."""

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        return F.relu(x).square()


class DropPath(nn.Module):
    """Drop the whole branch of a sample with probability ``rate`` while training (stochastic depth)."""

    rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv 2301.00808, Alg. 1).

    ``form`` says whether there is a bias, and which of the two is used first: that is the order of foreign weights.
    """

    def __init__(self, channels: int, form: str = "bias first", eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = None if form == "unbiased" else nn.Parameter(torch.zeros(channels, 1, 1))
        self.form, self.eps = form, eps

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        energy = x.norm(p=2, dim=(2, 3), keepdim=True)
        response = energy / (energy.mean(1, keepdim=True) + self.eps)
        if self.bias is not None and self.form == "bias first":
            return x + torch.addcmul(self.bias, self.weight, x * response)
        y = x + self.weight * x * response
        return y if self.bias is None else y + self.bias


class BlurPool2d(nn.Module):
    """A binomial 3x3 filter of stride two (arXiv 1904.11486)."""

    def __init__(self, channels: int, function: Callable[..., Tensor] = conv2d) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(row, row).repeat(channels, 1, 1, 1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Same channels as the input."""
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return self.function(padded, self.kernel, None, 2, 0, 1, x.shape[1])
