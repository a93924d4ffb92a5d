"""IRB: inverted residual blocks decoded from strings such as ``ir_r2_k3_s2_e6_c24_se0.25``.

``ir`` expands, filters depthwise and projects; ``ds`` filters depthwise and projects; ``cn`` is one convolution. r is
the number of repeats (the stride belongs to the first), k the kernel, s the stride, e the expansion, c the channels,
se the squeeze ratio, d the dilation, cc the number of experts; ``nre`` puts a ReLU for the activation, ``noskip``
leaves out the identity and ``act`` activates the projection of a ``ds``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from .. import kit
from ..network import Network, make_head


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


@dataclass(frozen=True)
class Block:
    """One decoded block."""

    kind: str
    kernel: int
    stride: int
    expand: float
    channels: int
    squeeze: float
    experts: int
    dilation: int
    flags: frozenset[str]

    @property
    def skips(self) -> bool:
        """Whether the string allows an identity path."""
        return "noskip" not in self.flags


def decode(plan: Plan) -> Iterator[Block]:
    """The blocks of a plan, one by one."""
    for text in plan.blocks.split():
        kind, *options = text.split("_")
        values = {m[1]: float(m[2]) for m in (re.fullmatch(r"([a-z]+)([\d.]+)", o) for o in options) if m}
        block = Block(
            kind,
            int(values["k"]),
            int(values["s"]),
            values.get("e", 1.0),
            plan.round(values["c"]),
            values.get("se", 0.0),
            int(values.get("cc", 0)) * plan.experts,
            int(values.get("d", 1)),
            frozenset(o for o in options if o.isalpha()),
        )
        for n in range(math.ceil(values["r"] * plan.depth)):
            yield replace(block, stride=block.stride if n == 0 else 1)


def _squeeze(plan: Plan, block: Block, i: int, mid: int) -> list[nn.Module]:
    if not block.squeeze:
        return []
    source, rounding = plan.squeeze
    hidden = block.squeeze * (mid if source == "expanded" else mid / block.expand)
    width = round(hidden) if rounding == "plain" else replace(plan, width=1.0).round(hidden)
    own = "relu" if "nre" in block.flags else plan.act
    return [kit.squeeze_excite(mid, width, plan.squeeze_act or own, plan.gate)]


def make_block(plan: Plan, block: Block, i: int) -> nn.Module:
    """The layers of one block that reads ``i`` channels."""
    act = "relu" if "nre" in block.flags else plan.act
    k, s, o = block.kernel, block.stride, block.channels
    if block.kind == "cn":
        return plan.cna(i, o, k, s, act=act)
    mid = replace(plan, width=1.0).round(i * block.expand) if block.kind == "ir" else i
    if block.experts:
        return Conditional(plan, block, i, mid)
    layers = [plan.cna(i, mid, act=act)] if block.kind == "ir" else []
    layers += [
        plan.cna(mid, mid, k, s, groups="depthwise", act=act, dilation=block.dilation),
        *_squeeze(plan, block, i, mid),
    ]
    layers += [plan.cna(mid, o, act=act if "act" in block.flags else "none")]
    return (kit.Residual if s == 1 and i == o and block.skips else nn.Sequential)(*layers)


class Conditional(nn.Module):
    """An inverted residual whose three convolutions mix experts by one routing (CondConv, arXiv 1904.04971)."""

    def __init__(self, plan: Plan, block: Block, i: int, mid: int) -> None:
        super().__init__()
        from ...nn.dynamic import CondConv2d

        def expert(a: int, b: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
            late = plan.padding == "same_upper" and stride > 1
            options = {
                "stride": stride,
                "groups": groups,
                "padding": 0 if late else kernel // 2,
                "bias": False,
            }
            made = CondConv2d(a, b, kernel, num_experts=block.experts, function=kit.function(), **options)
            pad = kit.SameUpper((kernel,) * 2, (stride,) * 2, (1, 1)) if late else nn.Identity()
            return nn.ModuleList([pad, made, kit.norm(plan.norm, b)])

        self.routing = nn.Sequential(kit.Mean(), nn.Linear(i, block.experts), nn.Sigmoid())
        self.expand, self.project = expert(i, mid), expert(mid, block.channels)
        self.filter = expert(mid, mid, block.kernel, block.stride, mid)
        self.squeeze = nn.Sequential(*_squeeze(plan, block, i, mid))
        self.act = kit.act(plan.act)
        self.skips = block.skips and block.stride == 1 and i == block.channels

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
        stride *= block.stride
        groups.setdefault(stride, []).append(make_block(plan, block, i))
        i = widths[stride] = block.channels
    stem = nn.Sequential(*groups.pop(2))
    stages = [nn.Sequential(*group) for group in groups.values()]
    features = [(widths[s], s) for s in groups]
    return Network(stem, stages, features, head=make_head(i, plan.classes, plan.head))
