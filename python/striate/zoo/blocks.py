"""Residual, dense, aggregating and separable blocks, and the filters that may stand inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as layers
from . import kit
from .kit import cna, conv

Stride = int | tuple[int, ...]


def factored(i: int, o: int, stride: Stride = 1, *, middle: int) -> nn.Module:
    """(2+1)-D filter: space, norm, activation, then time (Tran et al., arXiv 1711.11248)."""
    t, *space = kit.sizes(stride)
    return nn.Sequential(
        *cna(i, middle, (1, 3, 3), (1, *space)), conv(middle, o, (3, 1, 1), (t, 1, 1), bias=False)
    )


def plain_filter(
    i: int, o: int, stride: Stride = 1, *, kernel: int | tuple[int, ...] = 3, **options: Any
) -> nn.Module:
    """An ordinary convolution without bias."""
    return conv(i, o, kernel, stride, bias=False, **options)


def space_to_depth(i: int, o: int, stride: Stride = 1, **options: Any) -> nn.Module:
    """A convolution that strides by moving pixels into channels first (SPD-Conv, arXiv 2208.03641)."""
    if stride == 1:
        return plain_filter(i, o, **options)
    return nn.Sequential(layers.SpaceToDepth(2), plain_filter(4 * i, o, **options))


def involution(i: int, o: int, stride: Stride = 1, *, kernel: int = 7) -> nn.Module:
    """Involution in place of a convolution (RedNet, arXiv 2103.06255)."""
    return layers.Involution2d(i, kernel, stride)  # type: ignore[arg-type]


def dcls(i: int, o: int, stride: Stride = 1, *, kernel: int = 7, count: int = 3) -> nn.Module:
    """Elements whose positions are learned; three of them have the parameters of a 3x3 kernel (arXiv 2112.03740)."""
    padding = kernel // 2
    return layers.Dcls2d(i, o, count, stride, padding, dilated_kernel_size=kernel, version="v1", bias=False)


FILTERS: dict[str, Callable[..., nn.Module]] = {
    "conv": plain_filter,
    "factored": factored,
    "space_to_depth": space_to_depth,
    "involution": involution,
    "dcls": dcls,
}


def summed(body: nn.Module, skip: nn.Module) -> nn.Module:
    """relu(body(x) + skip(x))."""
    return nn.Sequential(kit.Sum([body, skip]), kit.act("relu"))


def shortcut(i: int, o: int, stride: Stride, avg_down: bool) -> nn.Module:
    """Identity where shapes agree; a strided pointwise layer, or a mean and a pointwise layer (ResNet-D), elsewhere."""
    if stride == 1 and i == o:
        return nn.Identity()
    if not avg_down:
        return cna(i, o, 1, stride, act="none")
    pool = [] if stride == 1 else [nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)]  # type: ignore[arg-type]
    return nn.Sequential(*pool, *cna(i, o, act="none"))


def basic(
    i: int, width: int, stride: Stride, *, filter: kit.Spec = "conv", avg_down: bool = False
) -> tuple[nn.Module, int]:
    """Two filters (He et al., arXiv 1512.03385)."""
    middle = {"middle": i * width * 27 // (i * 9 + 3 * width)} if filter == "factored" else {}
    first = kit.build(FILTERS, filter, i, width, stride, **middle)
    second = kit.build(FILTERS, filter, width, width, **middle)
    body = nn.Sequential(first, kit.norm("bn", width), kit.act("relu"), second, kit.norm("bn", width))
    return summed(body, shortcut(i, width, stride, avg_down)), width


def bottleneck(
    i: int, width: int, stride: Stride, *, filter: kit.Spec = "conv", avg_down: bool = False, **more: Any
) -> tuple[nn.Module, int]:
    """Pointwise, filter, pointwise; ``groups`` and ``base`` as in ResNeXt, ``squeeze`` gates the output."""
    o, groups = 4 * width, more.get("groups", 1)
    mid = width * more.get("base", 64) // 64 * groups
    grouped = {key: more[key] for key in ("groups", "dilation") if more.get(key, 1) > 1}
    parts = [
        *cna(i, mid),
        kit.build(FILTERS, filter, mid, mid, stride, **grouped),
        kit.norm("bn", mid),
        kit.act("relu"),
    ]
    parts += [*cna(mid, o, act="none"), *([kit.squeeze_excite(o, o // 4)] if more.get("squeeze") else [])]
    return summed(nn.Sequential(*parts), shortcut(i, o, stride, avg_down)), o


def dense(i: int, growth: int) -> nn.Module:
    """x followed by what a bottleneck adds to it (DenseNet, arXiv 1608.06993)."""
    first = [kit.norm("bn", i), kit.act("relu"), *cna(i, 4 * growth)]
    return kit.Concat([nn.Identity(), nn.Sequential(*first, conv(4 * growth, growth, 3, bias=False))])


class OneShot(nn.Module):
    """A chain of layers, all of whose outputs are joined at the end, behind the input if ``whole``."""

    def __init__(self, chain: Iterable[nn.Module], join: nn.Module, whole: bool = False) -> None:
        super().__init__()
        self.chain, self.join, self.start = nn.ModuleList(chain), join, 0 if whole else 1

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for link in self.chain:
            maps.append(link(maps[-1]))
        return self.join(torch.cat(maps[self.start :], 1))


def one_shot(i: int, mid: int, o: int, layers: int = 5) -> nn.Module:
    """One-shot aggregation of 3x3 layers (VoVNet, arXiv 1904.09730)."""
    chain = [cna(mid if n else i, mid, 3) for n in range(layers)]
    return OneShot(chain, cna(i + layers * mid, o), whole=True)


def separables(
    i: int, widths: Sequence[int], stride: int, *, aligned: bool, lead: bool = True, skip: bool = True
) -> nn.Module:
    """Separable convolutions under one residual (Xception, arXiv 1610.02357).

    In the first design (``aligned=False``) a max pool strides and one norm follows each pair; in the aligned one
    (arXiv 1802.02611) the last filter strides and norms follow both halves.
    """
    norm = ("bn", {"eps": 1e-3}) if aligned else "bn"
    parts: list[nn.Module] = []
    for n, (a, b) in enumerate(zip([i, *widths], widths, strict=False)):
        s = stride if aligned and n == len(widths) - 1 else 1
        inner: list[nn.Module] = [kit.norm(norm, a)] if aligned else []
        inner += [kit.act("relu")] if aligned and not skip else []
        parts += [kit.act("relu")] if skip and (lead or n) else []
        parts += [conv(a, a, 3, s, groups="depthwise", bias=False), *inner]
        parts += cna(a, b, norm=norm, act="none" if skip else "relu")
    parts += [] if aligned or stride == 1 else [nn.MaxPool2d(3, stride, 1)]
    body, o = nn.Sequential(*parts), widths[-1]
    if not skip:
        return body
    same = i == o and stride == 1
    return kit.Sum([body, nn.Identity() if same else cna(i, o, 1, stride, norm=norm, act="none")])


def pseudo_3d(
    i: int, width: int, letter: str, *, flat: bool = False, stride: int = 1
) -> tuple[nn.Module, int]:
    """Space and time apart: one after the other (A), side by side (B) or time on top of space (C); arXiv 1711.10305.

    ``flat`` leaves out time. The first pointwise layer strides, in space only.
    """
    o = 4 * width
    space, time = cna(width, width, (1, 3, 3)), [] if flat else [cna(width, width, (3, 1, 1))]
    ways = {
        "A": lambda: nn.Sequential(space, *time),
        "B": lambda: kit.Sum([space, *time]),
        "C": lambda: nn.Sequential(space, kit.Residual(*time)),
    }
    middle = space if flat else ways[letter]()
    body = nn.Sequential(cna(i, width, 1, (1, stride, stride)), middle, cna(width, o, act="none"))
    return summed(body, shortcut(i, o, (1, stride, stride) if stride > 1 else 1, False)), o
