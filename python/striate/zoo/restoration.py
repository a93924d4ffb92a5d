"""Layers of restoration networks that text cannot say."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kit import conv


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


class Collected(nn.Module):
    """A chain of blocks, all of whose outputs are joined and added to the input."""

    def __init__(self, channels: int, depth: int = 4) -> None:
        super().__init__()
        self.chain = nn.ModuleList(DistillationBlock(channels) for _ in range(depth))
        self.join = nn.Sequential(
            conv(depth * channels, channels, 1), nn.LeakyReLU(0.05), conv(channels, channels, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for block in self.chain:
            maps.append(block(maps[-1]))
        return x + self.join(torch.cat(maps[1:], 1))


LAYERS: dict[str, Callable[..., nn.Module]] = {"collected": Collected}
