"""Layers of restoration networks that text cannot say."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as layers
from ..nn._parts import BlurPool2d
from . import kit
from .blocks import OneShot
from .kit import conv, conv_transpose


class SpatialAttention(nn.Module):
    """Enhanced spatial attention: a gate computed at a third of the resolution (arXiv 2009.11551)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        f = channels // 4
        self.enter, self.keep, self.leave = conv(channels, f, 1), conv(f, f, 1), conv(f, channels, 1)
        self.down = conv(f, f, 3, 2, padding=0)
        self.deep = nn.Sequential(conv(f, f, 3), nn.ReLU(), conv(f, f, 3), nn.ReLU(), conv(f, f, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        wide = self.deep(F.max_pool2d(self.down(y), 7, 3))
        wide = F.interpolate(wide, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.leave(wide + self.keep(y)))


class DistillationBlock(nn.Module):
    """Residual feature distillation: three times half of the features is kept, the rest refined (RFDN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.distil = nn.ModuleList(conv(channels, half, 1) for _ in range(3))
        self.refine = nn.ModuleList(conv(channels, channels, 3) for _ in range(3))
        self.last, self.join = conv(channels, half, 3), conv(4 * half, channels, 1)
        self.attend = SpatialAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for distil, refine in zip(self.distil, self.refine, strict=True):
            kept.append(F.leaky_relu(distil(x), 0.05))
            x = F.leaky_relu(refine(x) + x, 0.05)
        kept.append(F.leaky_relu(self.last(x), 0.05))
        return self.attend(self.join(torch.cat(kept, 1)))


def collected(channels: int, depth: int = 4) -> nn.Module:
    """A chain of blocks, all of whose outputs are joined and added to the input (RFDN)."""
    join = [conv(depth * channels, channels, 1), nn.LeakyReLU(0.05), conv(channels, channels, 3)]
    return kit.Residual(OneShot((DistillationBlock(channels) for _ in range(depth)), nn.Sequential(*join)))


class DualAttention(nn.Module):
    """Two layers whose output is gated in space and, beside it, by channel (MIRNet, arXiv 2003.06792, 3.2)."""

    def __init__(self, c: int, act: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(c, c, 3, bias=False), act, conv(c, c, 3, bias=False))
        self.space = conv(2, 1, 5, bias=False)
        self.channel = kit.squeeze_excite(c, c // 8, bias=False)
        self.join = conv(2 * c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        seen = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)
        return x + self.join(torch.cat([y * self.space(seen).sigmoid(), self.channel(y)], 1))


class Select(nn.Module):
    """Maps weighted against each other, channel by channel, by what all of them hold (section 3.1)."""

    def __init__(self, c: int, count: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(kit.Mean(keepdim=True), conv(c, c // 8, 1, bias=False), nn.PReLU())
        self.weigh = nn.ModuleList(conv(c // 8, c, 1, bias=False) for _ in range(count))

    def forward(self, maps: list[Tensor]) -> Tensor:
        seen = self.squeeze(sum(maps[1:], maps[0]))
        weights = torch.stack([layer(seen) for layer in self.weigh]).softmax(0)
        return (torch.stack(maps) * weights).sum(0)


def resize(c: int, steps: int) -> nn.Module:
    """Halve the extents and double the channels ``steps`` times, or the reverse if negative (section 3.3)."""
    parts: list[nn.Module] = []
    for _ in range(abs(steps)):
        body = [conv(c, c, 1, bias=False), nn.PReLU()]
        if steps > 0:
            body += [conv(c, c, 3, bias=False), nn.PReLU(), BlurPool2d(c, kit.function())]
        else:
            body += [conv_transpose(c, c, 3, 2, padding=1, output_padding=1, bias=False), nn.PReLU()]
        skip = BlurPool2d(c, kit.function()) if steps > 0 else nn.Upsample(scale_factor=2, mode="bilinear")
        o = 2 * c if steps > 0 else c // 2
        paths = ([*body, conv(c, o, 1, bias=False)], [skip, conv(c, o, 1, bias=False)])
        parts.append(kit.Sum(nn.Sequential(*path) for path in paths))
        c = o
    return nn.Sequential(*parts)


class Streams(nn.Module):
    """Resolutions side by side that exchange all they have, twice through the same layers, under a residual."""

    def __init__(self, c: int, act: nn.Module, count: int = 3) -> None:
        super().__init__()
        ends = range(count)
        self.blocks = nn.ModuleList(DualAttention(c << n, act) for n in ends)
        self.paths = nn.ModuleList(nn.ModuleList(resize(c << k, j - k) for j in ends) for k in ends)
        self.select = nn.ModuleList(Select(c << n, count) for n in ends)
        self.last = nn.ModuleList(resize(c << n, -n) for n in ends)
        self.out = conv(c, c, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps, paths = [self.blocks[0](x)], [list(path.children()) for path in self.paths]
        for n, block in enumerate(list(self.blocks)[1:]):
            maps.append(block(paths[n][n + 1](maps[-1])))
        fused = []
        for j, select in enumerate(self.select):
            fused.append(select([path[j](y) for path, y in zip(paths, maps, strict=True)]))
        maps = [block(y) for block, y in zip(self.blocks, fused, strict=True)]
        return x + self.out(self.select[0]([f(y) for f, y in zip(self.last, maps, strict=True)]))


def streams(channels: int, groups: int = 3, blocks: int = 2) -> nn.Module:
    """Residual groups of streams; one learned slope serves the dual attention of all of them (MIRNet)."""
    act = nn.PReLU()
    group = [[Streams(channels, act) for _ in range(blocks)] for _ in range(groups)]
    return nn.Sequential(*(kit.Residual(*parts, conv(channels, channels, 3, bias=False)) for parts in group))


LAYERS: dict[str, Callable[..., nn.Module]] = {
    "collected": collected,
    "streams": streams,
    "refiltered": lambda c, **more: layers.IterativeDynamicFilter2d(c, conv=conv, **more),
}
