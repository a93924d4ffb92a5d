"""Plain: a flat list of layers in any rank, with an optional global residual around it.

Layers are written as text: ``c64k3s2p1d1g1`` is a convolution with norm and activation, ``c64k3!`` one without;
``m3s2p1`` and ``a3s2p1`` are max and average pools, whose extents ``!`` rounds up; ``|`` ends a stage.
Anything that text cannot say is a part of ``LAYERS`` with its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .. import kit
from ..network import Head, Network, make_head
from ..restoration import LAYERS


@dataclass(frozen=True)
class Plan:
    """Arguments of a plain network.

    Attributes:
        layers: text, or a sequence of text and of parts with arguments.
        norm, act: what follows each convolution; ``first_norm`` replaces the norm of the first one.
        bias: whether convolutions that are followed by a norm have a bias.
        head: steps of the head, or "conv" for a pointwise classifier that is averaged over space, or "none".
        tail: "none", or "add" or "subtract" for a network that predicts what its input lacks or has too much.
        upscale: factor of a final pixel shuffle.
    """

    classes: int
    channels: int
    layers: str | Sequence[kit.Spec]
    norm: kit.Spec = "none"
    first_norm: kit.Spec | None = None
    act: kit.Spec = "relu"
    bias: bool = True
    head: str | Sequence[kit.Spec] = "none"
    tail: str = "none"
    upscale: int = 1


class Around(Network):
    """x + sign * body(x)."""

    sign = 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sign * super().forward(x)


_TOKEN = re.compile(r"(c|m|a)(\d+)((?:[kspdg]\d+)*)(!?)")


def _parse(plan: Plan, token: str, i: int, first: bool) -> tuple[nn.Module, int, int]:
    """The layer of one token, its channels and the factor by which it divides the extents."""
    match = _TOKEN.fullmatch(token)
    if not match:
        raise ValueError(f"cannot read the layer {token!r}")
    kind, size, rest, bare = match.groups()
    n, given = int(size), {key: int(value) for key, value in re.findall(r"([kspdg])(\d+)", rest)}
    if kind != "c":
        pool = "MaxPool" if kind == "m" else "AvgPool"
        shape = n, given.get("s", 1), given.get("p", 0)
        return kit.layer(pool, *shape, ceil_mode=bool(bare)), i, shape[1]
    names = {"p": "padding", "d": "dilation", "g": "groups"}
    options: dict[str, Any] = {names[key]: value for key, value in given.items() if key in names}
    norm = plan.first_norm if first and plan.first_norm is not None else plan.norm
    style = {"norm": "none", "act": "none"} if bare else {"norm": norm, "act": plan.act}
    made = kit.cna(i, n, given.get("k", 1), given.get("s", 1), bias=plan.bias, **style, **options)
    return made, n, given.get("s", 1)


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    texts = [plan.layers] if isinstance(plan.layers, str) else plan.layers
    tokens = [t for text in texts for t in (text.split() if isinstance(text, str) else [text])]
    stages: list[list[nn.Module]] = [[]]
    features, i, stride = [], plan.channels, 1
    for n, token in enumerate(tokens):
        if token == "|":
            features.append((i, stride))
            stages.append([])
            continue
        if isinstance(token, str):
            made, i, by = _parse(plan, token, i, first=n == 0)
            stride *= by
        else:
            made = kit.build(LAYERS, token, i)
            i = getattr(made, "out_channels", i)
        stages[-1].append(made)
    features.append((i, stride))
    kind = Network if plan.tail == "none" else Around
    made = kind(nn.Identity(), [nn.Sequential(*stage) for stage in stages], features, head=_head(plan, i))
    if isinstance(made, Around):
        made.sign = {"add": 1, "subtract": -1}[plan.tail]
    return made


def _head(plan: Plan, channels: int) -> nn.Module:
    if plan.head == "none":
        return nn.PixelShuffle(plan.upscale) if plan.upscale > 1 else nn.Identity()
    if plan.head == "conv":
        after: list[nn.Module] = [nn.ReLU(), kit.Mean()]
        return Head(nn.Identity(), kit.conv(channels, plan.classes, 1), nn.Sequential(*after))
    return make_head(channels, plan.classes, plan.head)
