"""The small parts every network is made of: which convolutions, of which rank, and specs looked up in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as layers
from .. import ops
from ..nn import _parts as parts

# A name, or a name with arguments: ("ln", {"eps": 1e-5}). A callable stands for itself.
Spec = str | tuple[str, dict[str, Any]] | Callable[..., nn.Module]
Factory = str | Callable[..., nn.Module]


@dataclass(frozen=True)
class _Kit:
    conv: Factory = "torch"
    rank: int = 2
    partial: bool = False


_kit: ContextVar[_Kit] = ContextVar("striate.zoo.kit", default=_Kit())  # noqa: B039 (frozen)


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
        # Computed by striate, whatever the factory.
        return layers.PartialPaddingConv2d(i, o, k, s, **options)  # type: ignore[arg-type]
    made = _convolution("Conv")(i, o, k, s, **options)
    return nn.Sequential(parts.SameUpper(k, s, d), made) if late else made


def conv_transpose(
    i: int, o: int, kernel: int | tuple[int, ...], stride: int | tuple[int, ...] = 1, **options: Any
) -> nn.Module:
    """A transposed convolution; a callable factory is not asked for it, torch's layer is used."""
    return _convolution("ConvTranspose")(i, o, sizes(kernel), sizes(stride), **options)


def _convolution(kind: str) -> Callable[..., nn.Module]:
    kit = _kit.get()
    if callable(kit.conv) and kind == "Conv":
        return kit.conv
    home: Any = layers if kit.conv == "striate" else nn
    return getattr(home, f"{kind}{kit.rank}d")


def function() -> Callable[..., Tensor]:
    """The functional convolution that belongs to the active factory."""
    home: Any = ops if _kit.get().conv == "striate" else F
    return getattr(home, f"conv{rank()}d")


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


class Sum(nn.ModuleList):
    """f(x) + g(x) + ..."""

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self
        return sum((f(x) for f in others), first(x))


class Concat(nn.ModuleList):
    """The channels of f(x), then those of g(x), ..."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([f(x) for f in self], 1)


LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resized(x: Tensor, like: Tensor, align: bool = False) -> Tensor:
    """Linear interpolation to the extents of another map."""
    return F.interpolate(x, like.shape[2:], mode=LINEAR[x.ndim - 2], align_corners=align)


class Mean(nn.Module):
    """Global average over all spatial axes."""

    def __init__(self, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.ndim)), keepdim=self.keepdim)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "bn": lambda c, **options: layer("BatchNorm", c, **options),
    "in": lambda c, **options: layer("InstanceNorm", c, **options),
    "ln": parts.ChannelNorm,
    "gn1": parts.OneGroupNorm,
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
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "tanh": nn.Tanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "star_relu": parts.StarReLU,
    "squared_relu": parts.SquaredReLU,
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
    made = [conv(i, o, kernel, stride, **options), *([] if norms == "none" else [norm(norms, o)])]
    return nn.Sequential(*made, *([] if acts == "none" else [act(acts)]))


def squeeze_excite(
    channels: int, hidden: int, inner: Spec = "relu", gate: Spec = "sigmoid", bias: bool = True
) -> nn.Module:
    """Squeeze-and-excitation: channels gated by two pointwise layers on their means (Hu et al., 2018)."""
    first, second = conv(channels, hidden, 1, bias=bias), conv(hidden, channels, 1, bias=bias)
    return Gate(nn.Sequential(Mean(keepdim=True), first, act(inner), second, act(gate)))


class Gate(nn.Module):
    """x * f(x)."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)
