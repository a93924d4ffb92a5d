"""MetaNet: a stem and stages of blocks that mix tokens, then channels; the shape of MetaFormer and ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from ...nn._parts import DropPath
from .. import kit
from ..mixers import MIXERS, MLPS, rep
from ..network import Network, make_head


@dataclass(frozen=True)
class Plan:
    """Arguments of a MetaNet; a list holds one entry for each stage, a list inside it one for each block in turn.

    Attributes:
        depths, dims: blocks and channels of each stage.
        mixer, mlp: token mixer and channel mixer by name.
        block: "one" residual around both, "two" residuals, or "late": one around the channel mixer alone.
        norm: norm inside the blocks.
        post: norms stand after the mixers instead of before them.
        layer_scale: initial value of the learned factor of each branch, None for none.
        residual_scale: the same for the identity path.
        stem, down: names of ``_DOWNS`` with their arguments; ``stride`` is the stem's.
        head: steps of the head.
        shared: a parameter that all blocks of a stage share, by name.
        drop_path: rate of stochastic depth in the last branch; earlier ones get linearly less.
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
    stride: int = 4
    drop_path: float = 0.0


def conv_norm(i: int, o: int, kernel: int, stride: int, norm: kit.Spec = "none", **options: Any) -> nn.Module:
    """Convolution, then norm."""
    return kit.cna(i, o, kernel, stride, norm=norm, **{"act": "none", "bias": True, **options})


def norm_conv(i: int, o: int, kernel: int, stride: int, norm: kit.Spec = "none", **options: Any) -> nn.Module:
    """Norm, then convolution."""
    return nn.Sequential(kit.norm(norm, i), kit.conv(i, o, kernel, stride, **options))


def halving(i: int, o: int, between: Sequence[int] = (), last: kit.Spec = "none", **style: Any) -> nn.Module:
    """3x3 convolutions of stride two, with half the channels of the last or ``between`` before it."""
    style = {"norm": "ln", "act": "gelu", "bias": True, **style}
    widths = [i, *(between or [o // 2]), o]
    parts = [
        kit.cna(a, b, 3, 2, **{**style, **({"act": last} if b is o else {})}) for a, b in pairwise(widths)
    ]
    return nn.Sequential(*parts)


def separable(i: int, o: int) -> nn.Module:
    """A depthwise 3x3 layer of stride two, then a pointwise one."""
    return nn.Sequential(kit.cna(i, i, 3, 2, groups=i, act="none"), kit.cna(i, o, act="none"))


def rep_down(i: int, o: int) -> nn.Module:
    """A 7x7 and a 3x3 filter of stride two, summed, then a pointwise layer under a residual."""
    return nn.Sequential(rep(i, o, stride=2), kit.Residual(kit.norm("bn", o), kit.conv(o, o, 1, bias=False)))


_DOWNS: dict[str, Callable[..., nn.Module]] = {
    "conv_norm": conv_norm,
    "norm_conv": norm_conv,
    "halving": halving,
    "separable": separable,
    "rep": rep_down,
}


def one(plan: Plan, stage: int, mixer: nn.Module) -> nn.Module:
    """x + mlp(norm(mixer(x)))."""
    return kit.Residual(mixer, kit.norm(kit.at(plan.norm, stage), plan.dims[stage]), *_mlp(plan, stage))


def two(plan: Plan, stage: int, mixer: nn.Module) -> nn.Module:
    """x + mixer(norm(x)), then x + mlp(norm(x)); with ``post`` the norms come last."""
    c, keep = plan.dims[stage], kit.at(plan.residual_scale, stage)

    def around(part: nn.Module, *scale: nn.Module) -> nn.Module:
        norm = kit.norm(kit.at(plan.norm, stage), c)
        identity = nn.Identity() if keep is None else kit.Scale(c, keep)
        return kit.Sum([identity, nn.Sequential(*((part, norm) if plan.post else (norm, part)), *scale)])

    mlp, *scale = _mlp(plan, stage)
    return nn.Sequential(around(mixer, *_scaled(plan, stage)), around(mlp, *scale))


def late(plan: Plan, stage: int, mixer: nn.Module) -> nn.Module:
    """y + mlp(y) of y = mixer(x)."""
    return nn.Sequential(mixer, kit.Residual(*_mlp(plan, stage)))


_BLOCKS: dict[str, Callable[[Plan, int, nn.Module], nn.Module]] = {"one": one, "two": two, "late": late}


def _mlp(plan: Plan, stage: int) -> list[nn.Module]:
    return [kit.build(MLPS, kit.at(plan.mlp, stage), plan.dims[stage]), *_scaled(plan, stage)]


def _scaled(plan: Plan, stage: int) -> list[nn.Module]:
    value = kit.at(plan.layer_scale, stage)
    scale = [] if value is None else [kit.Scale(plan.dims[stage], value)]
    return [*scale, *([DropPath()] if plan.drop_path else [])]


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    stem, stages = kit.build(_DOWNS, plan.stem, plan.channels, plan.dims[0]), []
    for i, (depth, c) in enumerate(zip(plan.depths, plan.dims, strict=True)):
        parts = [kit.build(_DOWNS, plan.down, plan.dims[i - 1], c)] if i else []
        for n in range(depth):
            spec = kit.at(plan.mixer, i)
            mixer = kit.build(MIXERS, spec[n % len(spec)] if isinstance(spec, list) else spec, c)
            parts.append(_BLOCKS[plan.block](plan, i, mixer))
        stages.append(nn.Sequential(*parts))
        owners = [m for m in stages[-1].modules() if plan.shared in m._parameters]
        for owner in owners[1:]:
            setattr(owner, plan.shared, getattr(owners[0], plan.shared))
    drops = [m for stage in stages for m in stage.modules() if isinstance(m, DropPath)]
    for n, drop in enumerate(drops):
        drop.rate = plan.drop_path * n / max(len(drops) - 1, 1)
    features = [(c, plan.stride << i) for i, c in enumerate(plan.dims)]
    return Network(stem, stages, features, head=make_head(plan.dims[-1], plan.classes, plan.head))
