"""Token mixers: callables of a number of channels that return a layer from [N, C, H, W] to the same shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kit
from .kit import conv


class Pool(nn.Module):
    """Average over the neighbourhood, minus the pixel itself (PoolFormer, arXiv 2111.11418)."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel, 1, self.kernel // 2, count_include_pad=False) - x


def separable(channels: int, kernel: int = 7, ratio: int = 2) -> nn.Module:
    """Pointwise, depthwise, pointwise (ConvFormer, arXiv 2210.13452)."""
    wide = ratio * channels
    return nn.Sequential(
        conv(channels, wide, 1, bias=False),
        kit.StarReLU(),
        conv(wide, wide, kernel, groups="depthwise", bias=False),
        conv(wide, channels, 1, bias=False),
    )


class Inception(nn.Module):
    """Square, horizontal and vertical depthwise filters on three slices, the rest untouched (arXiv 2303.16900)."""

    def __init__(self, channels: int, square: int = 3, band: int = 11, ratio: float = 0.125) -> None:
        super().__init__()
        c = int(channels * ratio)
        self.slices = [channels - 3 * c, c, c, c]
        self.filters = nn.ModuleList(
            conv(c, c, k, groups="depthwise") for k in (square, (1, band), (band, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        rest, *parts = x.split(self.slices, 1)
        return torch.cat([rest, *(f(part) for f, part in zip(self.filters, parts, strict=True))], 1)


class Focal(nn.Module):
    """Focal modulation: a stack of growing depthwise filters, gated per level (arXiv 2203.11926)."""

    def __init__(self, channels: int, levels: int = 2, window: int = 3, post: kit.Spec = "none") -> None:
        super().__init__()
        self.cuts = [channels, channels, levels + 1]
        self.split = conv(channels, sum(self.cuts), 1)
        windows = range(window, window + 2 * levels, 2)
        self.filters = nn.ModuleList(
            conv(channels, channels, k, groups="depthwise", bias=False) for k in windows
        )
        self.modulator = conv(channels, channels, 1)
        self.post = kit.norm(post, channels)
        self.out = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.split(x).split(self.cuts, 1)
        levels = []
        for f in self.filters:
            context = F.gelu(f(context))
            levels.append(context)
        levels.append(F.gelu(context.mean((2, 3), keepdim=True)))
        modulator = sum(level * gates[:, i : i + 1] for i, level in enumerate(levels))
        return self.out(self.post(query * self.modulator(modulator)))


def partial(channels: int, divisor: int = 4, kernel: int = 3) -> nn.Module:
    """A dense convolution of the first channels, the rest untouched (FasterNet, arXiv 2303.03667)."""
    from ..nn.dynamic import PartialChannelConv2d

    return PartialChannelConv2d(channels, divisor, kernel, function=kit.function())


class Attention(nn.Module):
    """Multi-head attention over all positions, with pointwise projections."""

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads, self.head = channels // head, head
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, _, *space = x.shape
        tokens = self.qkv(x.flatten(2).transpose(1, 2))
        q, k, v = tokens.unflatten(2, (3, self.heads, self.head)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(y).transpose(1, 2).reshape(n, -1, *space)


class RandomMixing(nn.Module):
    """A frozen random matrix over the positions of a fixed grid (RandFormer, arXiv 2210.13452)."""

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        mix = torch.softmax(torch.rand(positions, positions), -1)
        self.mix = nn.Parameter(mix, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(2) @ self.mix.T).reshape(x.shape)


class RecursiveGated(nn.Module):
    """Recursive gated convolution of ``order`` (HorNet, arXiv 2207.14284, Eq. 3.5)."""

    def __init__(
        self, channels: int, order: int, filter: kit.Spec = "depthwise", scale: float = 1 / 3
    ) -> None:
        super().__init__()
        self.widths = [channels >> (order - 1 - i) for i in range(order)]
        self.scale = scale
        self.split = conv(channels, 2 * channels, 1)
        self.filter = kit.build(MIXERS, filter, sum(self.widths))
        steps = zip(self.widths, self.widths[1:], strict=False)
        self.widen = nn.ModuleList(conv(a, b, 1) for a, b in steps)
        self.out = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, gates = self.split(x).split([self.widths[0], sum(self.widths)], 1)
        first, *others = (self.filter(gates) * self.scale).split(self.widths, 1)
        x = x * first
        for widen, gate in zip(self.widen, others, strict=True):
            x = widen(x) * gate
        return self.out(x)


class GlobalLocal(nn.Module):
    """A 3x3 depthwise filter on half of the channels, a filter in the spectrum on the others (HorNet-GF).

    The spectral filter is written for ``size`` frequencies and resized where the map has others.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.leave = kit.norm("ln", channels), kit.norm("ln", channels)
        self.local = conv(half, half, 3, groups="depthwise", bias=False)
        self.spectrum = nn.Parameter(torch.randn(half, *size, 2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.enter(x).chunk(2, 1)
        h, w = x.shape[2:]
        k: Tensor = self.spectrum
        if k.shape[1:3] != (h, w // 2 + 1):
            k = F.interpolate(
                k.permute(3, 0, 1, 2), (h, w // 2 + 1), mode="bilinear", align_corners=True
            ).permute(1, 2, 3, 0)
        spectrum = torch.fft.rfft2(b, norm="ortho") * torch.view_as_complex(k.contiguous())
        b = torch.fft.irfft2(spectrum, s=(h, w), norm="ortho")
        return self.leave(torch.stack([self.local(a), b], 2).flatten(1, 2))


class Strips(nn.Module):
    """Two long depthwise strips and a small square, each with its norm, summed (SLaK, arXiv 2207.03620)."""

    def __init__(self, channels: int, long: int, short: int = 5) -> None:
        super().__init__()
        style: dict[str, Any] = {"groups": "depthwise", "act": "none"}
        kernels = ((long, short), (short, long), (short, short))
        self.filters = nn.ModuleList(kit.cna(channels, channels, k, **style) for k in kernels)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = (f(x) for f in self.filters)
        return a + b + c


def squeezed(channels: int, kernel: int) -> nn.Module:
    """A large depthwise filter with its branches and norm merged, then squeeze-and-excitation (UniRepLKNet)."""
    filter = conv(channels, channels, kernel, groups="depthwise")
    return nn.Sequential(filter, kit.squeeze_excite(channels, channels // 4))


def dcls(channels: int, kernel: int = 17, count: int = 34) -> nn.Module:
    """A depthwise filter of ``count`` elements whose positions are learned (arXiv 2112.03740)."""
    from .. import nn as layers

    return layers.Dcls2d(
        channels,
        channels,
        count,
        padding=kernel // 2,
        dilated_kernel_size=kernel,
        groups=channels,
        version="v1",
    )


MIXERS: dict[str, Callable[..., nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "pool": Pool,
    "depthwise": lambda channels, kernel=7, bias=True: conv(
        channels, channels, kernel, groups="depthwise", bias=bias
    ),
    "separable": separable,
    "inception": Inception,
    "focal": Focal,
    "partial": partial,
    "attention": Attention,
    "random": RandomMixing,
    "recursive_gated": RecursiveGated,
    "global_local": GlobalLocal,
    "strips": Strips,
    "squeezed": squeezed,
    "dcls": dcls,
}


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv 2301.00808, Alg. 1)."""

    def __init__(self, channels: int, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        energy = x.norm(p=2, dim=(2, 3), keepdim=True)
        response = energy / (energy.mean(1, keepdim=True) + self.eps)
        shape = (1, -1, 1, 1)
        if self.bias is None:
            return x + self.weight.view(shape) * x * response
        return x + torch.addcmul(self.bias.view(shape), self.weight.view(shape), x * response)


def mlp(
    channels: int, ratio: float = 4, act: kit.Spec = "gelu", bias: bool = True, **extra: kit.Spec | bool
) -> nn.Module:
    """Two pointwise layers; ``norm`` sits after the first, ``grn`` (True, or "unbiased") after the activation."""
    wide = int(ratio * channels)
    parts = [conv(channels, wide, 1, bias=bias)]
    parts += [kit.norm(extra["norm"], wide)] if extra.get("norm") else []  # type: ignore[arg-type]
    parts += [
        kit.act(act),
        *([GRN(wide, bias=extra["grn"] != "unbiased")] if extra.get("grn") else []),
        conv(wide, channels, 1, bias=bias),
    ]
    return nn.Sequential(*parts)


MLPS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "none": lambda channels: nn.Identity()}
