"""The small parts every network is made of: which convolutions, of which rank, and specs looked up in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A name, or a name with arguments: ("ln", {"eps": 1e-5}). A callable stands for itself.
Spec = str | tuple[str, dict[str, Any]] | Callable[..., nn.Module]
Factory = str | Callable[..., nn.Module]


@dataclass(frozen=True)
class _Kit:
    conv: Factory = "torch"
    rank: int = 2
    partial: bool = False


_DEFAULT = _Kit()
_kit: ContextVar[_Kit] = ContextVar("striate.zoo.kit", default=_DEFAULT)


@contextmanager
def using(*, conv: Factory = "torch", rank: int = 2, partial: bool = False) -> Iterator[None]:
    """Build what is built inside with these convolutions, this number of spatial axes, and partial padding or not."""
    new = _Kit(conv, rank, partial)
    if isinstance(new.conv, str) and new.conv not in ("torch", "striate"):
        raise ValueError(f'conv must be "torch", "striate" or a callable, but got {new.conv!r}')
    if not isinstance(new.conv, str) and not callable(new.conv):
        raise TypeError(f'conv must be "torch", "striate" or a callable, but got {type(new.conv).__name__}')
    token = _kit.set(new)
    try:
        yield
    finally:
        _kit.reset(token)


def rank() -> int:
    """Number of spatial axes of the network that is being built."""
    return _kit.get().rank


def layer(name: str, *args: Any, **options: Any) -> nn.Module:
    """torch.nn's layer of this name in the rank that is being built: ``layer("BatchNorm", 64)``."""
    return getattr(nn, f"{name}{rank()}d")(*args, **options)


def sizes(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """One number for each spatial axis."""
    return (value,) * rank() if isinstance(value, int) else tuple(value)


def conv(
    i: int, o: int, kernel: int | tuple[int, ...], stride: int | tuple[int, ...] = 1, **options: Any
) -> nn.Module:
    """A convolution from the active factory; odd kernels are padded by half unless ``padding`` says otherwise.

    ``groups="depthwise"`` means one group for each channel; ``padding="same_upper"`` is TensorFlow's SAME rule,
    which depends on the input and pads the far side first.
    """
    k, s = sizes(kernel), sizes(stride)
    d = options["dilation"] = sizes(options.pop("dilation", 1))
    options["groups"] = i if options.get("groups") == "depthwise" else options.get("groups", 1)
    half = tuple(d * (k - 1) // 2 if k % 2 else 0 for k, d in zip(k, d, strict=True))
    padding = options.pop("padding", half)
    late = padding == "same_upper" and any(s > 1 for s in s)
    options["padding"] = 0 if late else half if isinstance(padding, str) else sizes(padding)
    if _kit.get().partial and any(half):
        from ..nn.dynamic import PartialPaddingConv2d  # computed by striate, whatever the factory

        return PartialPaddingConv2d(i, o, k, s, **options)  # type: ignore[arg-type]
    made = _convolution("Conv")(i, o, k, s, **options)
    return nn.Sequential(SameUpper(k, s, d), made) if late else made


def conv_transpose(
    i: int, o: int, kernel: int | tuple[int, ...], stride: int | tuple[int, ...] = 1, **options: Any
) -> nn.Module:
    """A transposed convolution; a callable factory is not asked for it, torch's layer is used."""
    return _convolution("ConvTranspose")(i, o, sizes(kernel), sizes(stride), **options)


def _convolution(kind: str) -> Callable[..., nn.Module]:
    kit = _kit.get()
    if callable(kit.conv) and kind == "Conv":
        return kit.conv
    if kit.conv == "striate":
        from .. import nn as layers

        return cast("Callable[..., nn.Module]", getattr(layers, f"{kind}{kit.rank}d"))
    return cast("Callable[..., nn.Module]", getattr(nn, f"{kind}{kit.rank}d"))


def function() -> Callable[..., Tensor]:
    """The functional convolution that belongs to the active factory."""
    if _kit.get().conv == "striate":
        from .. import ops

        return getattr(ops, f"conv{rank()}d")
    return getattr(F, f"conv{rank()}d")


class SameUpper(nn.Module):
    """Zero padding after which ceil(n / stride) outputs remain; the odd element goes to the far side."""

    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = tuple(zip(kernel, stride, dilation, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        pad: list[int] = []
        for n, (k, s, d) in zip(reversed(x.shape), reversed(self.axes), strict=False):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pad += [total // 2, total - total // 2]
        return F.pad(x, pad)


def build(
    table: Mapping[str, Callable[..., nn.Module]], spec: Spec, *args: Any, **defaults: Any
) -> nn.Module:
    """Look a spec up in a table and call what is found; the spec's own arguments win over the defaults."""
    if callable(spec):
        return spec(*args, **defaults)
    name, options = (spec, {}) if isinstance(spec, str) else spec
    if name not in table:
        raise ValueError(f"unknown part {name!r}; known are {', '.join(sorted(table))}")
    return table[name](*args, **{**defaults, **options})


def at(value: Any, i: int) -> Any:
    """The value of stage ``i``: lists hold one entry for each stage, anything else is the same everywhere."""
    return value[i] if isinstance(value, list) else value


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [N, C, ...]."""

    def __init__(self, channels: int, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


class OneGroupNorm(ChannelNorm):
    """Group norm with a single group, the norm of PoolFormer."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


class StarReLU(nn.Module):
    """scale * relu(x)^2 + bias with two learned numbers (MetaFormer baselines, Eq. 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x).square() + self.bias


class SquaredReLU(nn.Module):
    """relu(x)^2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class Scale(nn.Module):
    """One learned factor for each channel."""

    def __init__(self, channels: int, value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(-1, *(1,) * (x.ndim - 2))


class Residual(nn.Sequential):
    """x + f(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Mean(nn.Module):
    """Global average over all spatial axes."""

    def __init__(self, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.ndim)), keepdim=self.keepdim)


class DropPath(nn.Module):
    """Drop the whole branch of a sample with probability ``rate`` while training (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "bn": lambda c, **options: layer("BatchNorm", c, **options),
    "in": lambda c, **options: layer("InstanceNorm", c, **options),
    "ln": ChannelNorm,
    "gn1": OneGroupNorm,
    "gn": lambda c, groups: nn.GroupNorm(groups, c),
    "none": lambda c: nn.Identity(),
}
ACTS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "star_relu": StarReLU,
    "squared_relu": SquaredReLU,
    "none": nn.Identity,
}


def norm(spec: Spec, channels: int) -> nn.Module:
    """A normalisation layer by name."""
    return build(NORMS, spec, channels)


def act(spec: Spec) -> nn.Module:
    """An activation by name."""
    return build(ACTS, spec)


def cna(
    i: int, o: int, kernel: int | tuple[int, ...] = 1, stride: int | tuple[int, ...] = 1, **options: Any
) -> nn.Sequential:
    """Convolution, norm, activation; the convolution has a bias where no norm follows it."""
    norms, acts = options.pop("norm", "bn"), options.pop("act", "relu")
    options.setdefault("bias", norms == "none")
    parts = [conv(i, o, kernel, stride, **options)]
    parts += [] if norms == "none" else [norm(norms, o)]
    return nn.Sequential(*parts, *([] if acts == "none" else [act(acts)]))


def squeeze_excite(channels: int, hidden: int, inner: Spec = "relu", gate: Spec = "sigmoid") -> nn.Module:
    """Squeeze-and-excitation: channels gated by two pointwise layers on their means (Hu et al., 2018)."""
    pointwise = [conv(channels, hidden, 1), act(inner), conv(hidden, channels, 1), act(gate)]
    return Gate(nn.Sequential(Mean(keepdim=True), *pointwise))


class Gate(nn.Module):
    """x * f(x)."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)
