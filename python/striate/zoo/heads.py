"""Necks and heads of dense prediction, over the maps of any backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as layers
from . import kit
from .kit import cna, conv, conv_transpose


class FPN(nn.Module):
    """Feature pyramid: lateral pointwise layers, nearest upsampling, 3x3 smoothing (arXiv 1612.03144).

    ``extra`` further levels of stride two follow the coarsest one.
    """

    def __init__(self, widths: Sequence[int], channels: int = 256, extra: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv(w, channels, 1) for w in widths)
        self.smooth = nn.ModuleList(conv(channels, channels, 3) for _ in widths)
        self.extra = nn.ModuleList(conv(channels, channels, 3, 2) for _ in range(extra))
        self.widths = [channels] * (len(widths) + extra)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        top: Tensor | None = None
        levels: list[Tensor] = []
        for x, lateral, smooth in reversed(list(zip(maps, self.lateral, self.smooth, strict=True))):
            y = lateral(x)
            top = y if top is None else y + F.interpolate(top, y.shape[2:])
            levels.insert(0, smooth(top))
        for n, layer in enumerate(self.extra):
            levels.append(layer(F.relu(levels[-1]) if n else levels[-1]))
        return levels


class Upward(nn.Module):
    """Levels of few channels, each added to the one below, then all at the finest extents (FFNet, arXiv 2206.08236)."""

    def __init__(self, widths: Sequence[int], inner: Sequence[int], outs: Sequence[int]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(cna(w, c) for w, c in zip(widths, inner, strict=True))
        self.smooth = nn.ModuleList(cna(c, o, 3) for c, o in zip(inner, outs, strict=True))
        self.up = nn.ModuleList(cna(b, a) for a, b in pairwise(inner))
        self.widths = [sum(outs)]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        levels: list[Tensor] = []
        for n in range(len(maps) - 1, -1, -1):
            levels.insert(0, self.smooth[n](maps[n]))
            if n:
                maps[n - 1] = maps[n - 1] + kit.resized(self.up[n - 1](maps[n]), maps[n - 1], align=True)
        return [torch.cat([levels[0], *(kit.resized(y, levels[0], align=True) for y in levels[1:])], 1)]


class Extras(nn.Module):
    """Further levels by separable layers of stride two (SSDLite, arXiv 1801.04381)."""

    def __init__(self, widths: Sequence[int], channels: Sequence[int] = (512, 256, 256, 128)) -> None:
        super().__init__()
        style: dict[str, Any] = {"norm": ("bn", {"eps": 1e-3}), "act": "relu6"}
        layers: list[nn.Module] = []
        for i, o in pairwise([widths[-1], *channels]):
            filter = cna(o // 2, o // 2, 3, 2, groups="depthwise", **style)
            layers.append(nn.Sequential(cna(i, o // 2, **style), filter, cna(o // 2, o, **style)))
        self.layers = nn.ModuleList(layers)
        self.widths = [*widths, *channels]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = list(maps)
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return maps


class Retina(nn.Module):
    """Two towers of four 3x3 layers that all levels share: class logits and box offsets (arXiv 1708.02002)."""

    def __init__(self, widths: Sequence[int], classes: int, anchors: int = 9) -> None:
        super().__init__()
        c = widths[0]

        def tower(outputs: int) -> nn.Module:
            layers = [cna(c, c, 3, norm="none") for _ in range(4)]
            return nn.Sequential(*layers, conv(c, outputs, 3))

        self.logits, self.boxes = tower(anchors * classes), tower(anchors * 4)

    def forward(self, levels: list[Tensor], size: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [(self.logits(x), self.boxes(x)) for x in levels]


class SSDLite(nn.Module):
    """On each level a depthwise and a pointwise layer for logits, and two more for boxes (arXiv 1801.04381)."""

    def __init__(self, widths: Sequence[int], classes: int, anchors: int = 6) -> None:
        super().__init__()

        def predict(c: int, outputs: int) -> nn.Module:
            first = cna(c, c, 3, groups="depthwise", norm=("bn", {"eps": 1e-3}), act="relu6")
            return nn.Sequential(first, conv(c, outputs, 1))

        self.logits = nn.ModuleList(predict(c, anchors * classes) for c in widths)
        self.boxes = nn.ModuleList(predict(c, anchors * 4) for c in widths)

    def forward(self, levels: list[Tensor], size: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [(a(x), b(x)) for a, b, x in zip(self.logits, self.boxes, levels, strict=True)]


class Upsampled(nn.Module):
    """Logits from the coarsest map, enlarged to the input unless ``enlarge=False``."""

    def __init__(self, *layers: nn.Module, enlarge: bool = True) -> None:
        super().__init__()
        self.layers, self.enlarge = nn.Sequential(*layers), enlarge

    def forward(self, levels: list[Tensor], size: Sequence[int]) -> Tensor:
        y = self.layers(levels[-1])
        return F.interpolate(y, tuple(size), mode="bilinear", align_corners=False) if self.enlarge else y


def ffnet(widths: Sequence[int], classes: int, width: int = 512, last: int = 1) -> nn.Module:
    """A 3x3 layer and a classifier of kernel ``last``."""
    return Upsampled(cna(widths[-1], width, 3, bias=True), conv(width, classes, last), enlarge=False)


def fcn(widths: Sequence[int], classes: int) -> nn.Module:
    """A 3x3 layer and a classifier (arXiv 1411.4038, in torchvision's form)."""
    c = widths[-1]
    return Upsampled(cna(c, c // 4, 3), nn.Dropout(0.1), conv(c // 4, classes, 1))


class Skips(nn.Module):
    """Scores of the coarsest map, each time doubled and added to those of a finer one (FCN, arXiv 1411.4038).

    ``crops`` are where finer scores and, at last, the input begin in maps that the padding made larger.
    """

    def __init__(self, widths: Sequence[int], classes: int, crops: Sequence[int], hidden: int = 4096) -> None:
        super().__init__()
        *fine, deep = widths
        parts = [conv(deep, hidden, 7, padding=0), conv(hidden, hidden, 1)]
        before = [layer for part in parts for layer in (part, nn.ReLU(), nn.Dropout2d())]
        self.deep = nn.Sequential(*before, conv(hidden, classes, 1))
        self.up = nn.ModuleList(conv_transpose(classes, classes, 4, 2, bias=False) for _ in fine)
        self.score = nn.ModuleList(conv(w, classes, 1) for w in reversed(fine))
        factor = 32 >> len(fine)
        self.last = conv_transpose(classes, classes, 2 * factor, factor, bias=False)
        self.crops = crops

    def forward(self, levels: list[Tensor], size: Sequence[int]) -> Tensor:
        *fine, x = levels
        y = self.deep(x)
        for up, score, start, x in zip(self.up, self.score, self.crops, reversed(fine), strict=False):
            y = up(y)
            y = y + _crop(score(x), start, y.shape[2:])
        return _crop(self.last(y), self.crops[-1], size)


def _crop(x: Tensor, start: int, size: Sequence[int]) -> Tensor:
    return x[:, :, start : start + size[0], start : start + size[1]]


def deeplab_v1(widths: Sequence[int], classes: int) -> nn.Module:
    """A 3x3 layer that sees far (DeepLab-LargeFOV, arXiv 1412.7062)."""
    far, near = cna(widths[-1], 1024, 3, dilation=12, norm="none"), cna(1024, 1024, norm="none")
    return Upsampled(far, nn.Dropout(), near, nn.Dropout(), conv(1024, classes, 1))


def deeplab_v2(widths: Sequence[int], classes: int, rates: Sequence[int] = (6, 12, 18, 24)) -> nn.Module:
    """The sum of classifiers that see ever further (arXiv 1606.00915)."""
    return Upsampled(kit.Sum(conv(widths[-1], classes, 3, dilation=rate) for rate in rates))


def deeplab(widths: Sequence[int], classes: int) -> nn.Module:
    """DeepLab v3."""
    return Upsampled(
        layers.ASPP2d(widths[-1], conv=conv), nn.Dropout(0.5), cna(256, 256, 3), conv(256, classes, 1)
    )


def scnn(widths: Sequence[int], classes: int) -> nn.Module:
    """Large-field features, messages from slice to slice, a classifier (SCNN, arXiv 1712.06080)."""
    parts = [cna(widths[-1], 1024, 3, dilation=4), cna(1024, 128), layers.SliceRecurrent2d(128)]
    return Upsampled(*parts, nn.Dropout2d(0.1), conv(128, classes, 1))


NECKS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda widths: Extras(widths, ()),
    "fpn": FPN,
    "extras": Extras,
    "upward": Upward,
}
HEADS: dict[str, Callable[..., nn.Module]] = {
    "fcn": fcn,
    "deeplab": deeplab,
    "deeplab_v1": deeplab_v1,
    "deeplab_v2": deeplab_v2,
    "skips": Skips,
    "scnn": scnn,
    "ffnet": ffnet,
    "retina": Retina,
    "ssdlite": SSDLite,
}
