"""IRB: inverted residual blocks decoded from strings such as ``ir_r2_k3_s2_e6_c24_se0.25``.

``ir`` expands, filters depthwise and projects; ``ds`` filters depthwise and projects; ``cn`` is one convolution;
``aff`` is n inverted residuals, each before a filter in the frequency domain, joined with what came in (AFFNet). r is
the number of repeats (the stride belongs to the first), k the kernel, s the stride, e the expansion, c the channels,
se the squeeze ratio, d the dilation, cc the number of experts; ``nre`` puts a ReLU for the activation, ``noskip``
leaves out the identity and ``act`` activates the projection of a ``ds``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

from torch import Tensor, nn

from ... import nn as layers
from ...nn._parts import SameUpper
from .. import kit
from ..network import Network, make_head

# One decoded block: kind, flags, and a number for each letter.
Block = SimpleNamespace


@dataclass(frozen=True)
class Plan:
    """Arguments of an IRB network.

    Attributes:
        blocks: block strings separated by blanks.
        stem: channels of the first convolution.
        head: steps of the head.
        act: activation.
        norm: norm after every convolution.
        width, depth, experts: factors for channels, repeats and experts.
        limit: rounding down must keep this part of the channels.
        squeeze: ("input", "plain") counts squeezed channels from the block's input without rounding; ("input",
            "round") and ("expanded", "round") round to multiples of 8.
        squeeze_act, gate: activations inside the squeeze; None means the block's own.
        padding: None for half the kernel, "same_upper" for TensorFlow's rule.
    """

    classes: int
    channels: int
    blocks: str
    stem: int = 32
    head: Sequence[kit.Spec] = (("conv", {"width": 1280}), "pool")
    act: str = "relu"
    norm: kit.Spec = "bn"
    width: float = 1.0
    depth: float = 1.0
    experts: int = 1
    limit: float = 0.9
    squeeze: tuple[str, str] = ("input", "plain")
    squeeze_act: str | None = None
    gate: str = "sigmoid"
    padding: str | None = None

    def round(self, channels: float) -> int:
        """Channels times the width, as a multiple of 8."""
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < self.limit * scaled else rounded

    def cna(self, i: int, o: int, kernel: int = 1, stride: int = 1, **options: object) -> nn.Module:
        """Convolution, norm, activation in the style of this plan."""
        padding = {} if self.padding is None else {"padding": self.padding}
        return kit.cna(i, o, kernel, stride, **{"norm": self.norm, "act": self.act, **padding, **options})


def decode(plan: Plan) -> Iterator[Block]:
    """The blocks of a plan, one by one, by the letters of their strings."""
    for text in plan.blocks.split():
        kind, *options = text.split("_")
        letters = (m for m in (re.fullmatch(r"([a-z]+)([\d.]+)", o) for o in options) if m)
        given = {m[1]: float(m[2]) if "." in m[2] else int(m[2]) for m in letters}
        block = Block(kind=kind, flags=options, **{"e": 1, "se": 0, "cc": 0, "d": 1, "n": 0, **given})
        block.c, block.cc = plan.round(block.c), block.cc * plan.experts
        for _ in range(math.ceil(block.r * plan.depth)):
            yield block
            block.s = 1


def _squeeze(plan: Plan, block: Block, i: int, mid: int) -> list[nn.Module]:
    if not block.se:
        return []
    source, rounding = plan.squeeze
    hidden = block.se * (mid if source == "expanded" else mid / block.e)
    width = round(hidden) if rounding == "plain" else replace(plan, width=1.0).round(hidden)
    own = "relu" if "nre" in block.flags else plan.act
    return [kit.squeeze_excite(mid, width, plan.squeeze_act or own, plan.gate)]


def make_block(plan: Plan, block: Block, i: int) -> nn.Module:
    """The layers of one block that reads ``i`` channels."""
    act = "relu" if "nre" in block.flags else plan.act
    k, s, o = block.k, block.s, block.c
    if block.kind == "cn":
        return plan.cna(i, o, k, s, act=act)
    mid = replace(plan, width=1.0).round(i * block.e) if block.kind == "ir" else i
    if block.kind == "aff":
        return adaptive(plan, block, i)
    if block.cc:
        return Conditional(plan, block, i, mid)
    layers = [plan.cna(i, mid, act=act)] if block.kind == "ir" else []
    layers += [
        plan.cna(mid, mid, k, s, groups="depthwise", act=act, dilation=block.d),
        *_squeeze(plan, block, i, mid),
    ]
    layers += [plan.cna(mid, o, act=act if "act" in block.flags else "none")]
    return (kit.Residual if s == 1 and i == o and ("noskip" not in block.flags) else nn.Sequential)(*layers)


def adaptive(plan: Plan, block: Block, c: int) -> nn.Module:
    """Inverted residuals and filters that the spectrum makes for itself (AFFNet, arXiv 2307.14008)."""

    def norm() -> nn.Module:
        return kit.norm(("gn1", {"eps": 1e-5}), c)

    inner = Block(**{**vars(block), "kind": "ir"})
    parts = [
        kit.Residual(norm(), make_block(plan, inner, c), norm(), layers.AdaptiveFrequencyFilter2d(c))
        for _ in range(block.n)
    ]
    wide = nn.Sequential(*parts, norm(), plan.cna(c, c, act="none"))
    return nn.Sequential(kit.Concat([nn.Identity(), wide]), plan.cna(2 * c, c))


class Conditional(nn.Module):
    """An inverted residual whose three convolutions mix experts by one routing (CondConv, arXiv 1904.04971)."""

    def __init__(self, plan: Plan, block: Block, i: int, mid: int) -> None:
        super().__init__()

        def expert(a: int, b: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
            late = plan.padding == "same_upper" and stride > 1
            options = {"stride": stride, "groups": groups, "padding": 0 if late else kernel // 2}
            more = {"num_experts": block.cc, "function": kit.function(), "bias": False}
            made = layers.CondConv2d(a, b, kernel, **options, **more)
            pad = SameUpper((kernel,) * 2, (stride,) * 2, (1, 1)) if late else nn.Identity()
            return nn.ModuleList([pad, made, kit.norm(plan.norm, b)])

        self.routing = nn.Sequential(kit.Mean(), nn.Linear(i, block.cc), nn.Sigmoid())
        self.expand, self.project = expert(i, mid), expert(mid, block.c)
        self.filter = expert(mid, mid, block.k, block.s, mid)
        self.squeeze = nn.Sequential(*_squeeze(plan, block, i, mid))
        self.act = kit.act(plan.act)
        self.skips = ("noskip" not in block.flags) and block.s == 1 and i == block.c

    def forward(self, x: Tensor) -> Tensor:
        routing = self.routing(x)

        def through(expert: nn.Module, x: Tensor) -> Tensor:
            pad, conv, norm = expert.children()
            return norm(conv(pad(x), routing))

        y = self.act(through(self.expand, x))
        y = self.squeeze(self.act(through(self.filter, y)))
        y = through(self.project, y)
        return x + y if self.skips else y


def build(plan: Plan) -> Network:
    """Build the network of a plan; a stage ends where the next block strides."""
    i, stride = plan.round(plan.stem) if plan.width >= 1 or plan.stem > 16 else plan.stem, 2
    groups: dict[int, list[nn.Module]] = {2: [plan.cna(plan.channels, i, 3, 2)]}
    widths = {2: i}
    for block in decode(plan):
        stride *= block.s
        groups.setdefault(stride, []).append(make_block(plan, block, i))
        i = widths[stride] = block.c
    stem = nn.Sequential(*groups.pop(2))
    stages = [nn.Sequential(*group) for group in groups.values()]
    features = [(widths[s], s) for s in groups]
    return Network(stem, stages, features, head=make_head(i, plan.classes, plan.head))
