"""Branch: modules whose branches run side by side and are concatenated, written as text.

``64, 48 64k5, avg 32`` is a module of three branches: a pointwise layer; a pointwise and a 5x5 layer; a mean and a
pointwise layer. ``k1x7`` is a rectangle, ``s2`` a stride, ``v`` means unpadded (as strides are unless ``p`` says
otherwise), ``+`` forks the end of a branch. ``max2`` is an unpadded pool of stride two, ``max`` and ``avg`` keep the
extents; ``avg`` leaves the padding out of its mean and ``avgp`` does not. ``ceil`` rounds a pool's extents up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .. import kit
from ..network import Network, make_head

_POOLS = {
    "max2": lambda: nn.MaxPool2d(3, 2),
    "max2ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "pool2ceil": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "max": lambda: nn.MaxPool2d(3, 1, 1, ceil_mode=True),
    "avg": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "avgp": lambda: nn.AvgPool2d(3, 1, 1),
}
_LAYER = re.compile(r"(\d+)(?:k(\d+)(?:x(\d+))?)?(s2)?([vp]?)")


@dataclass(frozen=True)
class Plan:
    """Arguments of a branch network.

    Attributes:
        stem: modules before the first stage.
        stages: for each stage (stride, modules); a module is text, (repeats, text), or (repeats, text, scale, act)
            for a residual module that projects its branches back, multiplies by ``scale`` and adds.
        eps: of the batch norms.
        head: steps of the head.
    """

    classes: int
    channels: int
    stem: Sequence[str]
    stages: Sequence[tuple[int, Sequence[str | tuple[int, str] | tuple[int, str, float, str]]]]
    eps: float = 1e-3
    head: Sequence[kit.Spec] = ("pool",)


class Scaled(nn.Module):
    """act(x + scale * project(branches(x))) (Inception-ResNet, arXiv 1602.07261)."""

    def __init__(self, branches: nn.Module, project: nn.Module, scale: float, act: str) -> None:
        super().__init__()
        self.branches, self.project, self.scale, self.act = branches, project, scale, kit.act(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.project(self.branches(x)) * self.scale + x)


def _layer(text: str, i: int, eps: float) -> tuple[nn.Module, int]:
    if text in _POOLS:
        return _POOLS[text](), i
    match = _LAYER.fullmatch(text)
    if not match:
        raise ValueError(f"cannot read the layer {text!r}")
    width, k, k2, stride, padded = match.groups()
    kernel = (int(k or 1), int(k2 or k or 1))
    options = {"padding": 0} if padded == "v" or (stride and padded != "p") else {}
    made = kit.cna(i, int(width), kernel, 2 if stride else 1, norm=("bn", {"eps": eps}), **options)
    return made, int(width)


def _branch(text: str, i: int, eps: float) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    for token in text.split():
        forks = [_layer(part, i, eps) for part in token.split("+")]
        layers.append(forks[0][0] if len(forks) == 1 else kit.Concat([fork for fork, _ in forks]))
        i = sum(width for _, width in forks)
    return nn.Sequential(*layers), i


def _module(text: str, i: int, eps: float) -> tuple[nn.Module, int]:
    made = [_branch(part, i, eps) for part in text.split(",")]
    return (kit.Concat([m for m, _ in made]), sum(w for _, w in made)) if len(made) > 1 else made[0]


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    i, stem = plan.channels, []
    for text in plan.stem:
        made, i = _module(text, i, plan.eps)
        stem.append(made)
    stages, features = [], []
    for stride, modules in plan.stages:
        layers: list[nn.Module] = []
        for entry in modules:
            repeats, text, *residual = (1, entry) if isinstance(entry, str) else entry
            for _ in range(repeats):
                made, width = _module(text, i, plan.eps)
                if residual:
                    scale, act = residual
                    made, width = Scaled(made, kit.conv(width, i, 1), scale, act), i  # type: ignore[arg-type]
                layers.append(made)
                i = width
        stages.append(nn.Sequential(*layers))
        features.append((i, stride))
    return Network(nn.Sequential(*stem), stages, features, head=make_head(i, plan.classes, plan.head))
