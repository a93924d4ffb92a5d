"""Necks and heads of dense prediction, over the maps of any backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kit
from .kit import cna, conv


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


class Extras(nn.Module):
    """Further levels by separable layers of stride two (SSDLite, arXiv 1801.04381)."""

    def __init__(self, widths: Sequence[int], channels: Sequence[int] = (512, 256, 256, 128)) -> None:
        super().__init__()
        style: dict[str, Any] = {"norm": ("bn", {"eps": 1e-3}), "act": "relu6"}
        layers, i = [], widths[-1]
        for o in channels:
            mid = o // 2
            steps = [
                cna(i, mid, **style),
                cna(mid, mid, 3, 2, groups="depthwise", **style),
                cna(mid, o, **style),
            ]
            layers.append(nn.Sequential(*steps))
            i = o
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
    """Logits from the coarsest map, enlarged to the input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, levels: list[Tensor], size: Sequence[int]) -> Tensor:
        return F.interpolate(self.layers(levels[-1]), tuple(size), mode="bilinear", align_corners=False)


class Broadcast(nn.Module):
    """The mean of the map through a pointwise layer, at every pixel."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(kit.Mean(keepdim=True), cna(i, o))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLab v3, arXiv 1706.05587)."""

    def __init__(self, i: int, o: int = 256, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        dilated = [cna(i, o, 3, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList([cna(i, o), *dilated, Broadcast(i, o)])
        self.join = nn.Sequential(cna(len(self.branches) * o, o), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([branch(x) for branch in self.branches], 1))


def fcn(widths: Sequence[int], classes: int) -> nn.Module:
    """A 3x3 layer and a classifier (arXiv 1411.4038, in torchvision's form)."""
    c = widths[-1]
    return Upsampled(cna(c, c // 4, 3), nn.Dropout(0.1), conv(c // 4, classes, 1))


def deeplab(widths: Sequence[int], classes: int) -> nn.Module:
    """DeepLab v3."""
    return Upsampled(ASPP(widths[-1]), cna(256, 256, 3), conv(256, classes, 1))


def scnn(widths: Sequence[int], classes: int) -> nn.Module:
    """Large-field features, messages from slice to slice, a classifier (SCNN, arXiv 1712.06080)."""
    from ..nn.dynamic import SliceRecurrent2d

    layers = [cna(widths[-1], 1024, 3, dilation=4), cna(1024, 128), SliceRecurrent2d(128)]
    return Upsampled(*layers, nn.Dropout2d(0.1), conv(128, classes, 1))


NECKS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda widths: Extras(widths, ()),
    "fpn": FPN,
    "extras": Extras,
}
HEADS: dict[str, Callable[..., nn.Module]] = {
    "fcn": fcn,
    "deeplab": deeplab,
    "scnn": scnn,
    "retina": Retina,
    "ssdlite": SSDLite,
}
