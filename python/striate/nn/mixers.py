"""Published mixers of pixels, each from [N, channels, H, W] to the same shape.

``conv`` is what makes their convolutions, with the signature of torch.nn.Conv2d; striate's own by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._parts import ChannelNorm
from .conv import Conv2d
from .dynamic import spatially_varying_conv2d
from .shiftwise import ShiftwiseConv2d
from .spectral import GlobalFilter2d, SpectralPoolingFilter2d

Factory = Callable[..., nn.Module]


class FocalModulation2d(nn.Module):
    """Each pixel times a context of growing depthwise filters, gated per level (arXiv 2203.11926, Eq. 3-6).

    Args:
        channels: channels of input and output.
        levels: depthwise filters, of sizes ``window``, ``window + 2``, ...; the mean of the last is one level more.
        window: size of the first filter, odd.
        norm: layer between the product and the last projection.
        conv: makes the convolutions.
    """

    def __init__(
        self,
        channels: int,
        levels: int = 2,
        window: int = 3,
        norm: nn.Module | None = None,
        conv: Factory = Conv2d,
    ) -> None:
        super().__init__()
        if levels < 1 or window % 2 == 0:
            raise ValueError(f"levels, window: expected at least 1 and odd, got {levels} and {window}")
        self.cuts = [channels, channels, levels + 1]
        self.split = conv(channels, sum(self.cuts), 1)
        sizes = range(window, window + 2 * levels, 2)
        self.filters = nn.ModuleList(
            conv(channels, channels, k, padding=k // 2, groups=channels, bias=False) for k in sizes
        )
        self.modulator = conv(channels, channels, 1)
        self.norm = norm or nn.Identity()
        self.out = conv(channels, channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        query, context, gates = self.split(input).split(self.cuts, 1)
        levels = []
        for layer in self.filters:
            context = F.gelu(layer(context))
            levels.append(context)
        levels.append(F.gelu(context.mean((2, 3), keepdim=True)))
        modulator = sum(level * gates[:, i : i + 1] for i, level in enumerate(levels))
        return self.out(self.norm(query * self.modulator(modulator)))


class RecursiveGatedConv2d(nn.Module):
    """Recursive gated convolution (HorNet, arXiv 2207.14284, Eq. 3.5).

    Args:
        channels: channels of input and output, a multiple of 2^(order - 1).
        order: number of gates; their widths double up to ``channels``.
        filter: makes the filter of all gates from their number of channels; 7x7 depthwise by default.
        scale: factor of the gates.
        conv: makes the projections.
    """

    def __init__(
        self,
        channels: int,
        order: int = 5,
        filter: Factory | None = None,
        scale: float = 1 / 3,
        conv: Factory = Conv2d,
    ) -> None:
        super().__init__()
        if order < 1 or channels % (1 << (order - 1)):
            raise ValueError(f"channels: expected a multiple of 2^(order - 1), got {channels}, order {order}")
        self.widths = [channels >> (order - 1 - i) for i in range(order)]
        self.scale = scale
        self.split = conv(channels, 2 * channels, 1)
        gates = sum(self.widths)
        self.filter = filter(gates) if filter else Conv2d(gates, gates, 7, padding=3, groups=gates)
        steps = zip(self.widths, self.widths[1:], strict=False)
        self.widen = nn.ModuleList(conv(a, b, 1) for a, b in steps)
        self.out = conv(channels, channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        x, gates = self.split(input).split([self.widths[0], sum(self.widths)], 1)
        first, *others = (self.filter(gates) * self.scale).split(self.widths, 1)
        x = x * first
        for widen, gate in zip(self.widen, others, strict=True):
            x = widen(x) * gate
        return self.out(x)


class GlobalLocalFilter2d(nn.Module):
    """A 3x3 depthwise filter on half of the channels, a filter in the spectrum on the others, interleaved (HorNet-GF).

    Args:
        channels: channels of input and output, even.
        size: rows and columns for which the spectral filter is written; it is resized for others.
        norm: makes the norms before and after from the number of channels; none by default.
        conv: makes the local filter.
    """

    def __init__(
        self, channels: int, size: int, norm: Factory = lambda channels: nn.Identity(), conv: Factory = Conv2d
    ) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.leave = norm(channels), norm(channels)
        self.local = conv(half, half, 3, padding=1, groups=half, bias=False)
        self.spectral = GlobalFilter2d(half, size, size)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        a, b = self.enter(input).chunk(2, 1)
        return self.leave(torch.stack([self.local(a), self.spectral(b)], 2).flatten(1, 2))


class LSConv2d(nn.Module):
    """A large view writes the small kernel with which each pixel is gathered (LSNet, arXiv 2503.23135, Eq. 4-7).

    Channel c has the kernel number c mod (channels / share).

    Args:
        channels: channels of input and output, a multiple of 2 and of ``share``.
        large, small: odd sizes of the depthwise filter that sees, and of the kernels.
        share: channels that share a kernel.
        conv: makes the convolutions.
    """

    def __init__(
        self, channels: int, large: int = 7, small: int = 3, share: int = 8, conv: Factory = Conv2d
    ) -> None:
        super().__init__()
        if channels % share or channels % 2:
            raise ValueError(f"channels: expected a multiple of 2 and of {share}, got {channels}")
        c, kernels = channels // 2, channels // share

        def normed(i: int, size: int = 1, groups: int = 1) -> list[nn.Module]:
            return [conv(i, c, size, padding=size // 2, groups=groups, bias=False), nn.BatchNorm2d(c)]

        wide, last = normed(c, large, c), conv(c, small**2 * kernels, 1)
        norm = nn.GroupNorm(kernels, small**2 * kernels)
        self.see = nn.Sequential(*normed(channels), nn.ReLU(), *wide, *normed(c), nn.ReLU(), last, norm)
        self.small = small

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        kernel = self.see(input).unflatten(1, (-1, self.small, self.small))
        return spatially_varying_conv2d(input, kernel, grouping="interleaved")


class SpectralContext2d(nn.Module):
    """Strips, times what low and high frequencies hold in several mixtures (SPANet, arXiv 2308.11568, Eq. 6-9).

    Args:
        channels: channels of input and output.
        radius: of the low frequencies, in cycles per plane.
        low: weight of the low frequencies in each mixture.
        strip: length of the strips, odd.
        conv: makes the convolutions.
    """

    def __init__(
        self,
        channels: int,
        radius: float,
        low: Sequence[float] = (0.7, 0.8, 0.9),
        strip: int = 7,
        conv: Factory = Conv2d,
    ) -> None:
        super().__init__()
        pads = ((1, strip), (0, strip // 2)), ((strip, 1), (strip // 2, 0))
        strips = (conv(channels, channels, k, padding=p, groups=channels) for k, p in pads)
        self.enter, self.leave = (
            nn.Sequential(conv(channels, channels, 1), *strips),
            conv(channels, channels, 1),
        )
        self.filter = SpectralPoolingFilter2d(radius, low)
        self.cuts = [len(part) for part in torch.arange(channels).chunk(len(low))]
        self.context = nn.ModuleList(conv(c, channels, 1) for c in self.cuts)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        x = self.enter(input)
        parts = self.filter(x).split(self.cuts, 1)
        return self.leave(x * sum(layer(part) for layer, part in zip(self.context, parts, strict=True)))


class PartialShiftwiseConv2d(nn.Module):
    """A shift-wise convolution of most channels; the others stand behind them, untouched (arXiv 2401.12736).

    Which channels are left out follows from their number, as in the published networks.

    Args:
        channels: channels of input and output.
        big_kernel, small_kernel: as of :class:`ShiftwiseConv2d`.
        share: part of the channels that is left out.
    """

    moved: Tensor
    left: Tensor

    def __init__(self, channels: int, big_kernel: int, small_kernel: int = 3, share: float = 0.23) -> None:
        super().__init__()
        count = channels - int(channels * (1 - share)) // 2 * 2
        left = set(np.random.RandomState(123).choice(channels, count, replace=False).tolist())
        for name, chosen in (("moved", set(range(channels)) - left), ("left", left)):
            self.register_buffer(name, torch.tensor(sorted(chosen)), persistent=False)
        self.filter = ShiftwiseConv2d(channels - count, big_kernel, small_kernel)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        return torch.cat([self.filter(input[:, self.moved]), input[:, self.left]], 1)


class NAFBlock2d(nn.Module):
    """A depthwise filter and a wider layer, gated by products in place of activations (NAFNet, arXiv 2204.04676).

    The factors of both branches start at zero: a fresh block is the identity.

    Args:
        channels: channels of input and output.
        conv: makes the convolutions.
    """

    def __init__(self, channels: int, conv: Factory = Conv2d) -> None:
        super().__init__()
        c = channels
        filter = conv(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.enter = nn.Sequential(ChannelNorm(c), conv(c, 2 * c, 1), filter)
        self.attend, self.leave = conv(c, c, 1), conv(c, c, 1)
        self.widen, self.narrow = nn.Sequential(ChannelNorm(c), conv(c, 2 * c, 1)), conv(c, c, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(c, 1, 1)) for _ in range(2))

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        a, b = self.enter(input).chunk(2, 1)
        y = a * b
        y = input + self.beta * self.leave(y * self.attend(y.mean((2, 3), keepdim=True)))
        a, b = self.widen(y).chunk(2, 1)
        return y + self.gamma * self.narrow(a * b)


class ASPP2d(nn.Module):
    """Atrous spatial pyramid pooling: dilated filters side by side, and the mean (DeepLab v3, arXiv 1706.05587, 3.3).

    Args:
        in_channels, out_channels: of the input, and of each branch and the output.
        rates: dilations of the 3x3 filters.
        conv: makes the convolutions.

    Shape: ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        conv: Factory = Conv2d,
    ) -> None:
        super().__init__()

        def normed(i: int, size: int = 1, rate: int = 1) -> nn.Module:
            made = conv(i, out_channels, size, padding=rate * (size // 2), dilation=rate, bias=False)
            return nn.Sequential(made, nn.BatchNorm2d(out_channels), nn.ReLU())

        filters = [normed(in_channels), *(normed(in_channels, 3, rate) for rate in rates)]
        self.filters, self.mean = nn.ModuleList(filters), normed(in_channels)
        self.join = normed((len(rates) + 2) * out_channels)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        branches = [branch(input) for branch in self.filters]
        mean = self.mean(input.mean((2, 3), keepdim=True)).expand_as(branches[0])
        return self.join(torch.cat([*branches, mean], 1))
