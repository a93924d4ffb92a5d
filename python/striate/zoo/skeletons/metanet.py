"""MetaNet: a stem and stages of blocks that mix tokens, then channels; the shape of MetaFormer and ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .. import kit
from ..mixers import MIXERS, MLPS
from ..network import Network, make_head


@dataclass(frozen=True)
class Plan:
    """Arguments of a MetaNet; a list holds one entry for each stage, a list inside it one for each block in turn.

    Attributes:
        depths, dims: blocks and channels of each stage.
        mixer, mlp: token mixer and channel mixer by name.
        block: "one" residual around both or "two" residuals.
        norm: norm inside the blocks.
        post: norms stand after the mixers instead of before them.
        layer_scale: initial value of the learned factor of each branch, None for none.
        residual_scale: the same for the identity path.
        stem, down: ``conv_norm``, ``norm_conv`` or ``double`` with their arguments.
        head: steps of the head.
        shared: a parameter that all blocks of a stage share, by name.
        drop_path: rate of stochastic depth in the last block; earlier ones get linearly less.
    """

    classes: int
    channels: int
    depths: Sequence[int]
    dims: Sequence[int]
    mixer: Any
    mlp: Any = "mlp"
    block: str = "one"
    norm: Any = "ln"
    post: bool = False
    layer_scale: Any = None
    residual_scale: Any = None
    stem: kit.Spec = ("conv_norm", {"kernel": 4, "stride": 4, "norm": "ln"})
    down: kit.Spec = ("norm_conv", {"kernel": 2, "stride": 2, "norm": "ln"})
    head: Sequence[kit.Spec] = ("pool", "layer_norm")
    shared: str = ""
    drop_path: float = 0.0


def conv_norm(i: int, o: int, kernel: int, stride: int, norm: kit.Spec = "none", **options: Any) -> nn.Module:
    """Convolution, then norm."""
    return kit.cna(i, o, kernel, stride, norm=norm, act="none", **{"bias": True, **options})


def norm_conv(i: int, o: int, kernel: int, stride: int, norm: kit.Spec = "none", **options: Any) -> nn.Module:
    """Norm, then convolution."""
    return nn.Sequential(kit.norm(norm, i), kit.conv(i, o, kernel, stride, **options))


def double(i: int, o: int, norm: kit.Spec = "ln", act: kit.Spec = "gelu") -> nn.Module:
    """Two 3x3 convolutions of stride two with half the channels between them."""
    first = kit.cna(i, o // 2, 3, 2, norm=norm, act=act, bias=True)
    return nn.Sequential(*first, *conv_norm(o // 2, o, 3, 2, norm).children())


_DOWNS: dict[str, Callable[..., nn.Module]] = {
    "conv_norm": conv_norm,
    "norm_conv": norm_conv,
    "double": double,
}


def one(plan: Plan, at: tuple[int, int], drop: float) -> nn.Module:
    """x + mlp(norm(mixer(x)))."""
    stage, c = at[0], plan.dims[at[0]]
    norm, mlp = kit.norm(kit.at(plan.norm, stage), c), kit.build(MLPS, kit.at(plan.mlp, stage), c)
    return kit.Residual(_mixer(plan, at), norm, mlp, *_scaled(plan, stage, drop))


class Two(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); with ``post`` the norms come last."""

    def __init__(self, plan: Plan, at: tuple[int, int], drop: float) -> None:
        super().__init__()
        stage, c = at[0], plan.dims[at[0]]

        def branch(part: nn.Module) -> nn.Module:
            norm = kit.norm(kit.at(plan.norm, stage), c)
            return nn.Sequential(*((part, norm) if plan.post else (norm, part)), *_scaled(plan, stage, drop))

        def identity() -> nn.Module:
            scale = kit.at(plan.residual_scale, stage)
            return nn.Identity() if scale is None else kit.Scale(c, scale)

        self.keep1, self.mix = identity(), branch(_mixer(plan, at))
        self.keep2, self.mlp = identity(), branch(kit.build(MLPS, kit.at(plan.mlp, stage), c))

    def forward(self, x: Tensor) -> Tensor:
        x = self.keep1(x) + self.mix(x)
        return self.keep2(x) + self.mlp(x)


_BLOCKS: dict[str, Callable[[Plan, tuple[int, int], float], nn.Module]] = {"one": one, "two": Two}


def _mixer(plan: Plan, at: tuple[int, int]) -> nn.Module:
    stage, block = at
    spec = kit.at(plan.mixer, stage)
    return kit.build(MIXERS, spec[block % len(spec)] if isinstance(spec, list) else spec, plan.dims[stage])


def _scaled(plan: Plan, stage: int, drop: float) -> list[nn.Module]:
    value = kit.at(plan.layer_scale, stage)
    scale = [] if value is None else [kit.Scale(plan.dims[stage], value)]
    return [*scale, *([kit.DropPath(drop)] if drop else [])]


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    stem = kit.build(_DOWNS, plan.stem, plan.channels, plan.dims[0])
    total, done, stages = sum(plan.depths), 0, []
    for i, depth in enumerate(plan.depths):
        down = [kit.build(_DOWNS, plan.down, plan.dims[i - 1], plan.dims[i])] if i else []
        drops = [plan.drop_path * (done + n) / max(total - 1, 1) for n in range(depth)]
        stages.append(
            nn.Sequential(*down, *(_BLOCKS[plan.block](plan, (i, n), drop) for n, drop in enumerate(drops)))
        )
        done += depth
        if plan.shared:
            owners = [m for m in stages[-1].modules() if plan.shared in m._parameters]
            for owner in owners[1:]:
                setattr(owner, plan.shared, getattr(owners[0], plan.shared))
    first = plan.stem[1].get("stride", 4) if isinstance(plan.stem, tuple) else 4
    features = [(c, first << i) for i, c in enumerate(plan.dims)]
    return Network(stem, stages, features, head=make_head(plan.dims[-1], plan.classes, plan.head))
