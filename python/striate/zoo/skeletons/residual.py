"""Residual: a stem and stages of residual, dense, aggregating or separable blocks, in any rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .. import blocks, kit
from ..kit import cna, conv
from ..network import Network, make_head


@dataclass(frozen=True)
class Plan:
    """Arguments of a residual network.

    Attributes:
        depths: blocks of each stage.
        stage: which stages, with their arguments (see ``STAGES``).
        stem: which stem, with its arguments (see ``STEMS``).
        final: "norm_act" or "none" after the last stage.
        head: steps of the head.
        options: arguments of every block.
    """

    classes: int
    channels: int
    depths: Sequence[int]
    stage: str = "bottleneck"
    stem: kit.Spec = "chain"
    final: str = "none"
    head: Sequence[kit.Spec] = ("pool",)
    options: dict[str, Any] = field(default_factory=dict)


Stride = int | tuple[int, ...]
Made = tuple[nn.Module, int, Stride]


def chain(
    i: int, layers: Sequence[tuple[Any, ...]] = ((64, 7, 2),), pool: int | tuple[int, ...] = 3, **options: Any
) -> Made:
    """Convolutions of (width, kernel, stride), then a pool of stride two unless its size is 0."""
    parts: list[nn.Module] = []
    total: Stride = 1
    for width, kernel, stride in layers:
        parts.append(cna(i, width, kernel, stride, **options))
        i, total = width, _times(total, stride)
    if pool:
        sizes = kit.sizes(pool)
        parts.append(kit.layer("MaxPool", sizes, 2, tuple((k - 1) // 2 for k in sizes)))
        total = _times(total, 2)
    return nn.Sequential(*parts), i, total


def involuted(i: int) -> Made:
    """RedNet's stem: an involution between two 3x3 layers, and a pool."""
    middle = [blocks.involution(32, 32, kernel=3), kit.norm("bn", 32), kit.act("relu")]
    return nn.Sequential(cna(i, 32, 3, 2), *middle, cna(32, 64, 3), nn.MaxPool2d(3, 2, 1)), 64, 4


STEMS: dict[str, Callable[..., Made]] = {"chain": chain, "involuted": involuted}


def _blocks(make: Callable[..., tuple[nn.Module, int]]) -> Callable[..., Made]:
    """A stage of ``depth`` blocks; a stage that dilates by d starts with a block that still dilates by d / 2."""

    def stage(i: int, index: int, depth: int, **options: Any) -> Made:
        given = {key: kit.at(value, index) for key, value in options.items()}
        stride = given.pop("stride", 2) if index or isinstance(options.get("stride"), list) else 1
        given.pop("stride", None)
        width, dilation, layers = given.pop("width", 64) << index, given.pop("dilation", 1), []
        for n in range(depth):
            d = max(1, dilation // 2) if n == 0 else dilation
            block, i = make(i, width, stride if n == 0 else 1, **given, **({"dilation": d} if d > 1 else {}))
            layers.append(block)
        return nn.Sequential(*layers), i, stride

    return stage


def dense(i: int, index: int, depth: int, *, growth: int) -> Made:
    """A transition that halves channels and extents, except at first, then dense layers."""
    layers: list[nn.Module] = []
    if index:
        layers += [kit.norm("bn", i), kit.act("relu"), conv(i, i // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
        i //= 2
    for _ in range(depth):
        layers.append(blocks.dense(i, growth))
        i += growth
    return nn.Sequential(*layers), i, 2 if index else 1


def one_shot(i: int, index: int, depth: int, *, mids: Sequence[int], widths: Sequence[int]) -> Made:
    """A pool, except at first, then one-shot aggregation blocks."""
    layers: list[nn.Module] = [nn.MaxPool2d(3, 2, ceil_mode=True)] if index else []
    for _ in range(depth):
        layers.append(blocks.one_shot(i, mids[index], widths[index]))
        i = widths[index]
    return nn.Sequential(*layers), i, 2 if index else 1


def separable(
    i: int, index: int, depth: int, *, table: Sequence[Sequence[tuple[Any, ...]]], aligned: bool
) -> Made:
    """Xception blocks written as (widths, stride, flags); ``depth`` repeats the last block of its stage."""
    entries, total, layers = list(table[index]), 1, []
    for widths, stride, *flags in [*entries, *entries[-1:] * (depth - len(entries))]:
        options = {"lead": "nolead" not in flags, "skip": "noskip" not in flags}
        layers.append(blocks.separables(i, widths, stride, aligned=aligned, **options))
        i, total = widths[-1], total * stride
    return nn.Sequential(*layers), i, total


def pseudo_3d(i: int, index: int, depth: int, *, starts: Sequence[int]) -> Made:
    """P3D blocks, whose kinds take turns over the whole network; the last stage sees single frames."""
    layers: list[nn.Module] = [nn.MaxPool3d((2, 1, 1), (2, 1, 1))] if index else []
    for n in range(depth):
        letter, stride = "ABC"[(starts[index] + n) % 3], 2 if index and n == 0 else 1
        block, i = blocks.pseudo_3d(i, 64 << index, letter, flat=index == 3, stride=stride)
        layers.append(block)
    return nn.Sequential(*layers), i, (2, 2, 2) if index else 1


STAGES: dict[str, Callable[..., Made]] = {
    "basic": _blocks(blocks.basic),
    "bottleneck": _blocks(blocks.bottleneck),
    "dense": dense,
    "one_shot": one_shot,
    "separable": separable,
    "pseudo_3d": pseudo_3d,
}


def _times(a: Stride, b: Stride) -> Stride:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return tuple(x * y for x, y in zip(kit.sizes(a), kit.sizes(b), strict=True))


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    name, options = (plan.stem, {}) if isinstance(plan.stem, str) else plan.stem  # type: ignore[misc]
    stem, i, stride = STEMS[name](plan.channels, **options)
    stages, features = [], []
    for index, depth in enumerate(plan.depths):
        stage, i, by = STAGES[plan.stage](i, index, depth, **plan.options)
        stride = _times(stride, by)
        stages.append(stage)
        features.append((i, stride))
    final = nn.Sequential(kit.norm("bn", i), kit.act("relu")) if plan.final == "norm_act" else None
    return Network(stem, stages, features, final=final, head=make_head(i, plan.classes, plan.head))
