"""What a U-shaped network has on each level, between levels, and where it merges them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as layers
from . import kit
from .kit import cna, conv, conv_transpose


def convs(i: int, o: int, *, depth: int = 2, stride: int = 1, **style: Any) -> nn.Module:
    """``depth`` 3x3 layers; ``mid`` channels between them if given."""
    mid = style.pop("mid", o)
    widths = [i, *[mid] * (depth - 1), o]
    parts = (cna(a, b, 3, 1 if n else stride, **style) for n, (a, b) in enumerate(pairwise(widths)))
    return nn.Sequential(*parts)


def residuals(i: int, o: int, *, depth: int = 1, stride: int = 1, **style: Any) -> nn.Module:
    """``depth`` times two layers around an identity, a pointwise one at first (STU-Net, arXiv 2304.06716)."""
    parts: list[nn.Module] = []
    for n in range(depth):
        first = cna(o if n else i, o, 3, 1 if n else stride, **style)
        body = nn.Sequential(first, cna(o, o, 3, **{**style, "act": "none"}))
        parts += [kit.Sum([body, nn.Identity() if n else conv(i, o, 1, stride)]), kit.act(style["act"])]
    return nn.Sequential(*parts)


class RSU(nn.Module):
    """A small U-Net under a residual (U2-Net, arXiv 2005.09007); without pools and with dilations where ``flat``."""

    def __init__(self, i: int, o: int, *, height: int, mid: int, flat: bool = False, stride: int = 1) -> None:
        super().__init__()
        style = {"bias": True}
        dilations = [1 << n for n in range(height)] if flat else [1] * (height - 1) + [2]
        self.enter = cna(i, o, 3, stride, **style)
        self.down = nn.ModuleList(
            cna(mid if n else o, mid, 3, dilation=d, **style) for n, d in enumerate(dilations)
        )
        backs = list(zip(dilations[:-1], [o] + [mid] * (height - 2), strict=True))
        self.up = nn.ModuleList(
            cna(2 * mid, w, 3, dilation=d if flat else 1, **style) for d, w in reversed(backs)
        )
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        y = keep = self.enter(x)
        maps: list[Tensor] = []
        for n, layer in enumerate(self.down):
            pooled = 0 < n < len(self.down) - 1 and not self.flat
            y = layer(F.max_pool2d(y, 2, 2, ceil_mode=True) if pooled else y)
            maps.append(y)
        y = maps.pop()
        for layer, skip in zip(self.up, reversed(maps), strict=True):
            y = layer(torch.cat([y if y.shape == skip.shape else kit.resized(y, skip), skip], 1))
        return y + keep


def frames(i: int, o: int) -> nn.Module:
    """Three frames, each with the noise map, filtered apart and then joined (FastDVDnet, arXiv 1907.01361)."""
    return nn.Sequential(cna(12, 90, 3, groups=3), cna(90, o, 3))


class Resize(nn.Module):
    """Bilinear or nearest enlargement to the extents of the map that it will meet."""

    def __init__(self, mode: str, before: nn.Module | None = None) -> None:
        super().__init__()
        self.mode, self.before = mode, before or nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y = self.before(x)
        return F.interpolate(y, skip.shape[2:]) if self.mode == "nearest" else kit.resized(y, skip)


class Enlarge(nn.Module):
    """A layer that doubles the extents, cropped or padded to those of the map that it will meet."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y = self.layers(x)
        gaps = [a - b for a, b in zip(skip.shape[2:], y.shape[2:], strict=True)]
        return F.pad(y, [side for g in reversed(gaps) for side in (g // 2, g - g // 2)]) if any(gaps) else y


LEVELS: dict[str, Callable[..., nn.Module]] = {
    "convs": convs,
    "residuals": residuals,
    "rsu": RSU,
    "frames": frames,
    "naf": lambda i, o, depth=1: nn.Sequential(*(layers.NAFBlock2d(o, conv=conv) for _ in range(depth))),
    "none": lambda i, o: nn.Identity(),
}
# Each goes from (fine channels, coarse channels); None means that the level itself strides.
DOWNS: dict[str, Callable[[int, int], nn.Module]] = {
    "max": lambda i, o: kit.layer("MaxPool", 2),
    "max_ceil": lambda i, o: kit.layer("MaxPool", 2, ceil_mode=True),
    "avg": lambda i, o: kit.layer("AvgPool", 2),
    "conv2": lambda i, o: conv(i, o, 2, 2),
    "conv3": lambda i, o: cna(i, o, 3, 2),
}
# From (coarse channels, fine channels).
UPS: dict[str, Callable[[int, int], nn.Module]] = {
    "transpose": lambda i, o: Enlarge(conv_transpose(i, o, 2, 2)),
    "aligned": lambda i, o: Enlarge(nn.Upsample(None, 2, kit.LINEAR[kit.rank()], align_corners=True)),
    "bilinear": lambda i, o: Resize("bilinear"),
    "nearest": lambda i, o: Resize("nearest", conv(i, o, 1)),
    "shuffle": lambda i, o: Enlarge(conv(i, 4 * o, 1, bias=False), nn.PixelShuffle(2)),
    "shuffle3": lambda i, o: Enlarge(conv(i, 4 * o, 3, bias=False), nn.PixelShuffle(2)),
}


def merge(how: str, up: Tensor, skip: Tensor) -> Tensor:
    """Add, or concatenate in the order that ``how`` names."""
    if how == "add":
        return up + skip
    return torch.cat([skip, up] if how == "skip_up" else [up, skip], 1)
