"""Token mixers: callables of a number of channels that return a layer from [N, C, H, W] to the same shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as layers
from ..nn import _parts as parts
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
        parts.StarReLU(),
        conv(wide, wide, kernel, groups="depthwise", bias=False),
        conv(wide, channels, 1, bias=False),
    )


def focal(channels: int, post: kit.Spec = "none", **options: Any) -> nn.Module:
    """Focal modulation (FocalNet)."""
    return layers.FocalModulation2d(channels, norm=kit.norm(post, channels), conv=conv, **options)


def recursive_gated(channels: int, order: int, size: int = 0) -> nn.Module:
    """Recursive gated convolution over 7x7 filters, or over global ones written for maps of ``size`` (HorNet)."""

    def filter(c: int) -> nn.Module:
        if not size:
            return conv(c, c, 7, groups="depthwise")
        return layers.GlobalLocalFilter2d(c, size, norm=parts.ChannelNorm, conv=conv)

    return layers.RecursiveGatedConv2d(channels, order, filter, conv=conv)


def partial(channels: int, divisor: int = 4, kernel: int = 3) -> nn.Module:
    """A dense convolution of the first channels, the rest untouched (FasterNet, arXiv 2303.03667)."""
    return layers.PartialChannelConv2d(channels, divisor, kernel, function=kit.function())


class RandomMixing(nn.Module):
    """A frozen random matrix over the positions of a fixed grid (RandFormer, arXiv 2210.13452)."""

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        mix = torch.softmax(torch.rand(positions, positions), -1)
        self.mix = nn.Parameter(mix, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(2) @ self.mix.t()).reshape(x.shape)


def strips(channels: int, long: int, short: int = 5) -> nn.Module:
    """Two long depthwise strips and a small square, each with its norm, summed (SLaK, arXiv 2207.03620)."""
    kernels = ((long, short), (short, long), (short, short))
    return kit.Sum(kit.cna(channels, channels, k, groups="depthwise", act="none") for k in kernels)


def squeezed(channels: int, kernel: int) -> nn.Module:
    """A large depthwise filter with its branches and norm merged, then squeeze-and-excitation (UniRepLKNet)."""
    filter = conv(channels, channels, kernel, groups="depthwise")
    return nn.Sequential(filter, kit.squeeze_excite(channels, channels // 4))


def dcls(channels: int, kernel: int = 17, count: int = 34) -> nn.Module:
    """A depthwise filter of ``count`` elements whose positions are learned (arXiv 2112.03740)."""
    shape = {"padding": kernel // 2, "dilated_kernel_size": kernel}
    return layers.Dcls2d(channels, channels, count, groups=channels, version="v1", **shape)  # type: ignore[arg-type]


def shiftwise(channels: int, kernel: int) -> nn.Module:
    """A shift-wise convolution of most channels, a norm, squeeze-and-excitation (arXiv 2401.12736)."""
    filter = layers.PartialShiftwiseConv2d(channels, kernel)
    return nn.Sequential(filter, kit.norm("bn", channels), kit.squeeze_excite(channels, channels // 4))


def rep(i: int, o: int, kernel: int = 7, stride: int = 1) -> kit.Sum:
    """A depthwise filter and one of half its size, each with its norm, summed (RepVGG, arXiv 2101.03697)."""
    return kit.Sum(kit.cna(i, o, k, stride, groups=i, act="none") for k in (kernel, kernel // 2))


class Attention(nn.Module):
    """Multi-head attention between all pixels; with ``reach`` as in LeViT and LSNet.

    There a norm follows each projection, a 3x3 filter the queries, and a bias for each distance, the same from
    ``reach`` on, joins the products.
    """

    def __init__(self, channels: int, heads: int = 0, key: int = 32, reach: int = 0) -> None:
        super().__init__()
        self.heads = heads or channels // key
        c = self.heads * key
        style: dict[str, Any] = {"norm": "bn" if reach else "none", "act": "none", "bias": False}
        self.cuts = [c, c, channels]
        self.split = kit.cna(channels, sum(self.cuts), **style)
        self.near = kit.cna(c, c, 3, groups="depthwise", act="none") if reach else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(self.heads, reach, reach)) if reach else None
        self.out = nn.Sequential(kit.act("relu" if reach else "none"), *kit.cna(channels, channels, **style))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x).split(self.cuts, 1)
        heads = [y.unflatten(1, (self.heads, -1)).flatten(3).mT for y in (self.near(q), k, v)]
        bias = None
        if self.bias is not None:
            places = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in x.shape[2:]))
            far = (places.unsqueeze(1) - places).abs().clamp(max=self.bias.shape[-1] - 1)
            bias = self.bias[:, far[..., 0], far[..., 1]]
        y = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=bias)
        return self.out(y.mT.reshape(x.shape))


def large_small(channels: int, attention: bool = False) -> nn.Module:
    """LSNet's second mixer, under a residual."""
    if attention:
        return kit.Residual(Attention(channels, heads=4, key=16, reach=4))
    return kit.Residual(layers.LSConv2d(channels, conv=conv), kit.norm("bn", channels))


def small(channels: int) -> nn.Module:
    """LSNet's first mixer: a 3x3 filter, a factor and an identity, then squeeze-and-excitation."""
    filters = kit.Sum([*rep(channels, channels, 3), nn.Identity()])
    return nn.Sequential(filters, kit.squeeze_excite(channels, channels // 4))


def query_key(channels: int, kernel: int = 3) -> nn.Module:
    """Depthwise filters in the places of the two products of attention (MetaMixer, arXiv 2406.02021)."""
    first, second = (
        rep(channels, channels) if kernel == 7 else conv(channels, channels, kernel, groups="depthwise")
        for _ in range(2)
    )
    return nn.Sequential(kit.cna(channels, channels, act="none"), first, nn.GELU(), second)


class Reinforced(nn.Module):
    """A 3x3 and a dilated branch, each gated by channel, after a push from the mean (SpaRTAN, arXiv 2507.10999)."""

    def __init__(self, channels: int, groups: int | str = 1) -> None:
        super().__init__()
        c = channels // 2
        style: dict[str, Any] = {"groups": groups, "norm": ("bn", {"eps": 1e-6}), "act": "gelu"}
        near = nn.Sequential(kit.cna(c, c, 3, **style), kit.squeeze_excite(c, c // 4))
        first = conv(c, c, 3, dilation=2, groups=groups, bias=False)
        far = nn.Sequential(first, kit.cna(c, c, 3, dilation=2, **style), kit.squeeze_excite(c, c // 4))
        self.enter, self.push = conv(channels, c, 1), kit.Scale(c, 1e-5)
        self.leave = nn.Sequential(kit.Concat([near, far]), conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + self.push(x - x.mean((2, 3), keepdim=True)))


MIXERS: dict[str, Callable[..., nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "pool": Pool,
    "depthwise": lambda c, kernel=7, bias=True: conv(c, c, kernel, groups="depthwise", bias=bias),
    "separable": separable,
    "inception": lambda c, **options: layers.InceptionDWConv2d(c, conv=conv, **options),
    "focal": focal,
    "partial": partial,
    "attention": Attention,
    "random": RandomMixing,
    "recursive_gated": recursive_gated,
    "strips": strips,
    "squeezed": squeezed,
    "dcls": dcls,
    "shiftwise": shiftwise,
    "large_small": large_small,
    "small": small,
    "spectral_context": lambda c, radius: layers.SpectralContext2d(c, radius, conv=conv),
    "query_key": query_key,
    "reinforced": Reinforced,
}


def mlp(
    channels: int, ratio: float = 4, act: kit.Spec = "gelu", bias: bool = True, **extra: kit.Spec
) -> nn.Module:
    """Two pointwise layers; ``norm`` sits after the first, ``grn`` after the activation (a form of that norm).

    ``last`` is a norm after the second, which then has no bias.
    """
    wide = int(ratio * channels)
    made = [conv(channels, wide, 1, bias=bias)]
    made += [kit.norm(extra["norm"], wide)] if extra.get("norm") else []
    made += [kit.act(act), *([parts.GRN(wide, str(extra["grn"]))] if "grn" in extra else [])]
    made += kit.cna(
        wide, channels, norm=extra.get("last", "none"), act="none", bias=bias and "last" not in extra
    )
    return nn.Sequential(*made)


def filtered(channels: int, kernel: int = 3, ratio: float = 3) -> nn.Module:
    """A depthwise filter, then two pointwise layers (MetaMixer)."""
    plain = kit.cna(channels, channels, kernel, groups="depthwise", act="none")
    first = rep(channels, channels) if kernel == 7 else plain
    return nn.Sequential(first, mlp(channels, ratio))


class Wave(nn.Module):
    """Two projections and those of each pixel's largest channel, turned pairwise by complex numbers (SpaRTAN)."""

    def __init__(self, channels: int, ratio: int = 4, groups: int | str = "depthwise") -> None:
        super().__init__()
        wide = ratio * channels
        self.phase, self.amplitude = conv(channels, wide, 1), conv(channels, wide, 1)
        self.turn = nn.Parameter(torch.randn(wide // 2, 2))
        last = kit.cna(wide, wide, 3, groups=groups, norm=("bn", {"eps": 1e-6}), act="gelu")
        self.leave = nn.Sequential(last, kit.squeeze_excite(wide, channels // 4), conv(wide, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        largest = x.argmax(1, keepdim=True)
        phase, amplitude = F.gelu(self.phase(x)), self.amplitude(x)
        y = amplitude * phase + amplitude.gather(1, largest) * phase.gather(1, largest)
        a, b = y.unflatten(1, (-1, 2)).unbind(2)
        c, d = self.turn.view(1, -1, 2, 1, 1).unbind(2)
        return self.leave(torch.stack([a * c - b * d, a * d + b * c], 2).flatten(1, 2))


MLPS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "filtered": filtered,
    "wave": Wave,
    "none": lambda channels: nn.Identity(),
}
