"""SeqNet: a residual stack over sequences [N, channels, length] with a pluggable mixer of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ... import nn as layers
from .. import kit
from ..mixers import MLPS
from ..network import Network, make_head


@dataclass(frozen=True)
class Plan:
    """Arguments of a sequence network.

    Attributes:
        channels: of the input; 0 where it is tokens, ``classes`` different ones, and each is to tell the next.
        width, depth: channels and layers.
        length: the length for which mixers choose their reach.
        mixer: what relates the time steps.
        block: "gated" or "two", see :class:`Gated` and :func:`two`.
        ratio: of the hidden layer in "two".
        norm: norm of the blocks.
    """

    classes: int
    channels: int
    width: int
    depth: int
    length: int
    mixer: kit.Spec = "multires"
    block: str = "gated"
    ratio: float = 4
    norm: kit.Spec = "bn"


def multires(channels: int, length: int, kernel: int = 2) -> nn.Module:
    """A causal tree of dilated depthwise filters (MultiresNet, arXiv 2305.01638)."""
    made = layers.MultiresConv1d(channels, kernel, length, activation=None)
    made.function = kit.function()
    return made


def structured(channels: int, length: int, kernel: int = 64, bidirectional: bool = True) -> nn.Module:
    """A global kernel of sub-kernels that double in length and decay (SGConv, arXiv 2210.09298)."""
    options = {"bidirectional": bidirectional, "activation": None, "pointwise": False}
    return layers.SGConv1d(channels, length, kernel, **options)  # type: ignore[arg-type]


class Hyena(layers.HyenaOperator):
    """The operator on [N, channels, length], with implicit filters or with sums of ``modes`` oscillations."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


_MIXERS: dict[str, Callable[..., nn.Module]] = {
    "multires": multires,
    "structured": structured,
    "hyena": Hyena,
}


class Gated(nn.Module):
    """norm(x + GLU(pointwise(GELU(mix(x)))))."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        c = plan.width
        self.mix = kit.build(_MIXERS, plan.mixer, c, plan.length)
        self.widen, self.norm = kit.conv(c, 2 * c, 1), kit.norm(plan.norm, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + F.glu(self.widen(F.gelu(self.mix(x))), 1))


def two(plan: Plan) -> nn.Module:
    """x + mix(norm(x)), then x + mlp(norm(x))."""
    c = plan.width
    mix, mlp = kit.build(_MIXERS, plan.mixer, c, plan.length), MLPS["mlp"](c, plan.ratio, "gelu_tanh")
    return nn.Sequential(*(kit.Residual(kit.norm(plan.norm, c), part) for part in (mix, mlp)))


_BLOCKS: dict[str, Callable[[Plan], nn.Module]] = {"gated": Gated, "two": two}


class Tokens(nn.Embedding):
    """Tokens [N, length] to [N, channels, length]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).transpose(1, 2)


class Tied(nn.Module):
    """Logits [N, length, tokens] by the embedding of the tokens."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.transpose(1, 2), self.tokens.weight)


def build(plan: Plan) -> Network:
    """Build the network of a plan; the features are those of every layer."""
    c = plan.width
    stack, features = [_BLOCKS[plan.block](plan) for _ in range(plan.depth)], [(c, 1)] * plan.depth
    if plan.channels:
        head = make_head(c, plan.classes, ("pool",))
        return Network(kit.conv(plan.channels, c, 1), stack, features, head=head)
    tokens = Tokens(plan.classes, c)
    nn.init.normal_(tokens.weight, std=0.02)
    return Network(tokens, stack, features, final=kit.norm(plan.norm, c), head=Tied(tokens))
