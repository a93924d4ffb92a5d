"""MultiRes: branches of different resolution side by side that exchange what they see (HRNet, arXiv 1908.07919)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..blocks import basic, bottleneck
from ..kit import cna
from ..network import Network, make_head


@dataclass(frozen=True)
class Plan:
    """Arguments of a multi-resolution network.

    Attributes:
        width: channels of the finest branch; each coarser one has twice as many.
        first: (blocks, width) of the bottlenecks before the branches split.
        modules: exchange modules of the stages with two, three and four branches.
        depth: basic blocks of each branch in a module.
        head_widths: bottleneck widths on each branch in the classifier.
        features: channels before the classifier.
    """

    classes: int
    channels: int
    width: int
    first: tuple[int, int] = (4, 64)
    modules: Sequence[int] = (1, 4, 3)
    depth: int = 4
    head_widths: Sequence[int] = (32, 64, 128, 256)
    features: int = 2048


class Exchange(nn.Module):
    """Every branch becomes the sum of all branches, resampled to its resolution."""

    def __init__(self, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(basic(w, w, 1)[0] for _ in range(depth))) for w in widths
        )
        count = range(len(widths))
        self.fuse = nn.ModuleList(nn.ModuleList(_resample(widths, j, i) for j in count) for i in count)
        self.act = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for row in self.fuse:
            parts = [f(x) for f, x in zip(row, maps, strict=True)]  # type: ignore[call-overload]
            fused.append(self.act(sum(parts[1:], parts[0])))
        return fused


def _resample(widths: Sequence[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    a, b = widths[source], widths[target]
    if source > target:
        enlarge = nn.Upsample(scale_factor=2.0 ** (source - target), mode="nearest")
        return nn.Sequential(*cna(a, b, act="none"), enlarge)
    before = [cna(a, a, 3, 2) for _ in range(target - source - 1)]
    return nn.Sequential(*before, cna(a, b, 3, 2, act="none"))


class MultiResNet(Network):
    """A network whose intermediates are the branches of the last stage."""

    def __init__(self, plan: Plan) -> None:
        blocks, i = [], 64
        for _ in range(plan.first[0]):
            block, i = bottleneck(i, plan.first[1], 1)
            blocks.append(block)
        stem = nn.Sequential(cna(plan.channels, 64, 3, 2), cna(64, 64, 3, 2), *blocks)
        widths = [plan.width << n for n in range(len(plan.modules) + 1)]
        features = [(w, 4 << n) for n, w in enumerate(widths)]
        head = make_head(plan.features, plan.classes, ("pool",))
        super().__init__(stem, [nn.Identity()] * len(widths), features, head=head)
        enter: list[Any] = [nn.ModuleList([cna(i, widths[0], 3), cna(i, widths[1], 3, 2)])]
        enter += [nn.ModuleList([cna(widths[n - 1], widths[n], 3, 2)]) for n in range(2, len(widths))]
        self.enter = nn.ModuleList(enter)
        self.exchanges = nn.ModuleList(
            nn.Sequential(*(Exchange(widths[: n + 2], plan.depth) for _ in range(count)))
            for n, count in enumerate(plan.modules)
        )
        self.final = Gather(widths, plan)

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for enter, exchange in zip(self.enter, self.exchanges, strict=True):
            new = [layer(maps[-1]) for layer in enter.children()]
            maps = new if len(maps) == 1 else [*maps, *new]
            again = self.grad_checkpointing
            maps = checkpoint(exchange, maps, use_reentrant=False) if again else exchange(maps)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        return self.final(self.forward_intermediates(x))


class Gather(nn.Module):
    """All branches widened, and added from the finest to the coarsest."""

    def __init__(self, widths: Sequence[int], plan: Plan) -> None:
        super().__init__()
        made = [bottleneck(w, h, 1) for w, h in zip(widths, plan.head_widths, strict=True)]
        outs = [o for _, o in made]
        self.widen = nn.ModuleList(block for block, _ in made)
        self.down = nn.ModuleList(cna(a, b, 3, 2, bias=True) for a, b in pairwise(outs))
        self.last = cna(outs[-1], plan.features, bias=True)

    def forward(self, maps: list[Tensor]) -> Tensor:
        y = self.widen[0](maps[0])
        for widen, down, x in zip(list(self.widen)[1:], self.down, maps[1:], strict=True):
            y = widen(x) + down(y)
        return self.last(y)


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    return MultiResNet(plan)
