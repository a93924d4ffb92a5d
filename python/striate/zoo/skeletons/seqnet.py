"""SeqNet: a residual stack over sequences [N, channels, length] with a pluggable mixer of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kit
from ..network import Network, make_head


@dataclass(frozen=True)
class Plan:
    """Arguments of a sequence network.

    Attributes:
        width, depth: channels and layers.
        length: the length for which mixers choose their reach.
        mixer: what relates the time steps.
        norm: norm after each residual, or before each mixer if ``pre``.
        drop_path: rate of stochastic depth in the last layer.
    """

    classes: int
    channels: int
    width: int
    depth: int
    length: int
    mixer: kit.Spec = "multires"
    norm: kit.Spec = "bn"
    pre: bool = False
    drop_path: float = 0.0


class Multires(nn.Module):
    """A causal tree of dilated depthwise filters: two filters shared by all levels (arXiv 2305.01638, Alg. 1).

    On each level one filter splits off the details and the other goes on; all details, the last level and the input
    are weighted and summed.
    """

    def __init__(self, channels: int, length: int, kernel: int = 2) -> None:
        super().__init__()
        self.levels = math.ceil(math.log2((length - 1) / (kernel - 1) + 1))
        shape, bound = (channels, 1, kernel), math.sqrt(2 / (2 * kernel))
        self.low = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.high = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        bound = math.sqrt(2 / (2 * self.levels + 4))
        self.weight = nn.Parameter(torch.empty(channels, self.levels + 2).uniform_(-bound, bound))
        self.function = kit.function()

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weight.unsqueeze(-1).unbind(1)
        y, low = weights[-1] * x, x
        for level in range(self.levels):
            dilation = 1 << level
            padded = F.pad(low, (dilation * (self.low.shape[-1] - 1), 0))
            where = (None, 1, 0, dilation, x.shape[1])
            y = y + weights[self.levels - level] * self.function(padded, self.high, *where)
            low = self.function(padded, self.low, *where)
        return y + weights[0] * low


def structured(channels: int, length: int, kernel: int = 64, bidirectional: bool = True) -> nn.Module:
    """A global kernel of sub-kernels that double in length and decay (SGConv, arXiv 2210.09298)."""
    from ... import nn as layers

    return layers.SGConv1d(
        channels, length, kernel, bidirectional=bidirectional, activation=None, pointwise=False
    )


_MIXERS: dict[str, Callable[..., nn.Module]] = {"multires": Multires, "structured": structured}


class Layer(nn.Module):
    """x + GLU(pointwise(GELU(mix(x)))), normed before or after."""

    def __init__(self, plan: Plan, drop: float) -> None:
        super().__init__()
        c = plan.width
        self.mix = kit.build(_MIXERS, plan.mixer, c, plan.length)
        self.widen = kit.conv(c, 2 * c, 1)
        self.norm, self.pre, self.drop = kit.norm(plan.norm, c), plan.pre, kit.DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.widen(F.gelu(self.mix(self.norm(x) if self.pre else x))), 1)
        y = x + self.drop(y)
        return y if self.pre else self.norm(y)


def build(plan: Plan) -> Network:
    """Build the network of a plan; the features are those of every layer."""
    drops = [plan.drop_path * n / max(plan.depth - 1, 1) for n in range(plan.depth)]
    layers: list[Any] = [Layer(plan, drop) for drop in drops]
    stem = kit.conv(plan.channels, plan.width, 1)
    return Network(
        stem, layers, [(plan.width, 1)] * plan.depth, head=make_head(plan.width, plan.classes, ("pool",))
    )
