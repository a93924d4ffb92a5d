"""Built kernels and re-parameterised layers beside the published ways to compute them.

``torch`` is the operator written in torch's own operators, ``dcls`` the published package where it is installed, and
``plain`` an ordinary layer with as large a kernel: what learning the positions costs.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import striate

from ...ops.dcls import PROFILES, axes_of, formula
from ..specs import Spec
from . import Contest, Op, draw, rounding


def published(name: str) -> Any:
    """A class of the package ``dcls`` without what it logs about itself; None if it is not installed."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        modules: Any = import_module("DCLS.construct.modules")
    except ImportError:
        return None
    finally:
        logging.disable(before)
    return getattr(modules, name)


def _construct(spec: Spec) -> Contest:
    filters, elements, size = spec.one("g"), spec.one("m"), spec["k"]
    if len(size) != 2 or size[0] != size[1]:
        raise ValueError(f"{spec.op}: expected a square grid behind k, got {spec.short!r}")
    weight = draw(spec, filters, 1, elements)
    P = draw(spec, 2, filters, 1, elements, scale=3.0)
    SIG = torch.full((2, filters, 1, elements), 0.23, dtype=spec.dtype, device=spec.device)

    def by_formula(weight: Tensor, P: Tensor, SIG: Tensor) -> Tensor:
        return formula(weight, P, SIG, (size, "gauss", 0.27, (1, 0)))

    calls: dict[str, Callable[..., Any]] = {
        "striate": lambda w, P, SIG: striate.dcls_kernel(w, P, SIG, dilated_kernel_size=size),
        "torch": by_formula,
    }
    package = published("ConstructKernel2d")
    if package is not None:
        calls["dcls"] = package(filters, 1, 1, elements, size, "gauss").to(spec.device)
    macs = filters * elements * prod(size)
    # Gradients of positions are differences of profiles, which lose some digits; terms are those of a whole grid.
    return Contest(calls, (weight, P, SIG), by_formula, macs, rounding(spec, prod(size)))


def _exact(layer: nn.Module) -> nn.Module:
    """The layer in float64 and on torch's own convolutions."""
    return _by_torch(layer).double()


def _by_torch(layer: nn.Module) -> nn.Module:
    """A copy of the layer whose convolutions are torch's own."""
    twin = copy.deepcopy(layer)
    for module in twin.modules():
        if type(module) is striate.nn.Conv2d:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return twin


class _BuiltByTorch(nn.Module):
    """A layer with learnable spacings on two axes in torch's operators."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers as the layer."""
        layer: Any = self.layer
        size = tuple(layer.dilated_kernel_size)
        statics = (size, *PROFILES[layer.version], axes_of(layer.version, 2))
        kernel = formula(layer.weight, layer.P, layer.SIG, statics)
        return F.conv2d(x, kernel, layer.bias, padding=size[0] // 2, groups=layer.groups)


def _learned(version: str, spec: Spec) -> Contest:
    batch, channels, elements, (size, *_) = spec.one("n"), spec.one("c"), spec.one("m"), spec["k"]
    pad = size // 2
    settings: dict[str, Any] = {"padding": pad, "groups": channels}
    layer = striate.nn.Dcls2d(
        channels, channels, elements, dilated_kernel_size=size, version=version, **settings
    )
    layer.to(spec.device, spec.dtype)
    plain = striate.nn.Conv2d(channels, channels, size, **settings).to(spec.device, spec.dtype)
    x = draw(spec, batch, channels, *spec["i"])
    exact = _BuiltByTorch(copy.deepcopy(layer)).double()
    macs = channels * (batch * prod(spec["i"]) * size**2 + elements * size**2)
    terms = batch * prod(spec["i"]) if spec.pass_ != "fwd" else size**2
    return Contest({"striate": layer, "plain": plain}, (x,), exact, macs, rounding(spec, terms), layer=True)


def _delays(spec: Spec) -> Contest:
    """One time step behind random ones; ``plain`` is the dense kernel on the last K samples."""
    batch, channels, size = spec.one("n"), spec.one("c"), spec.one("k")
    layer = striate.nn.Dcls1d(channels, channels, 1, dilated_kernel_size=size, version="v0", bias=False)
    with torch.no_grad():
        layer.P.uniform_(-(size // 2), size // 2).round_()
    layer.to(spec.device, spec.dtype)
    state, past = layer.initial_state(batch), draw(spec, size - 1, batch, channels)
    with torch.no_grad():
        for sample in past:
            layer.step(sample, state)
        dense = layer.kernel().flatten(1)
    windows = [past.movedim(0, -1)]

    def met(x: Tensor) -> Tensor:
        return torch.cat([windows[0].to(x.dtype)[..., 1 - size :], x.unsqueeze(-1)], -1)

    def plain(x: Tensor) -> Tensor:
        windows[0] = met(x)
        return F.linear(windows[0].flatten(1), dense)

    calls = {"striate": lambda x: layer.step(x, state)[0], "plain": plain}
    exact = partial(_exactly, met, dense.double())
    macs = batch * channels**2
    return Contest(calls, (draw(spec, batch, channels),), exact, macs, rounding(spec, channels), layer=True)


def _exactly(met: Callable[[Tensor], Tensor], dense: Tensor, x: Tensor) -> Tensor:
    return F.linear(met(x).flatten(1), dense)


class ExpandShiftAdd(nn.Module):
    """The shift-wise layer as published: nk maps per channel, each shifted, then added.

    The maps are permuted all at once and taken apart along the slots, because slices and single look-ups of so
    large a tensor cost torch a hundred times more in the backward pass.
    """

    def __init__(self, layer: striate.nn.ShiftwiseConv2d) -> None:
        super().__init__()
        self.layer = layer
        nk = math.ceil(layer.big_kernel / layer.small_kernel)
        base = torch.arange(layer.channels, device=layer.identity.device).unsqueeze(1) * nk
        self.across, self.down = ((maps + base).flatten(1) for maps in layer.permutations[:2])
        self.same = layer.identity + base.flatten()

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers as the layer."""
        layer: Any = self.layer
        small, big, channels = layer.small_kernel, layer.big_kernel, layer.channels
        slots, pad, extra = math.ceil(big / small), small - 1, small - 1 - small // 2
        maps: Any = sum(F.conv2d(x, conv.weight, padding=pad, groups=channels) for conv in layer.LoRAs)
        wide = tall = same = x.new_zeros(())
        for across, down, identity in zip(self.across, self.down, self.same, strict=True):
            pairs = zip(self.apart(maps, across, slots), self.apart(maps, down, slots), strict=True)
            for slot, (left, up) in enumerate(pairs):
                shift = slot * small + pad - big // 2  # this far to the right of the output position it reads
                ends = (-shift, shift - 2 * extra)
                wide = wide + F.pad(left, (*ends, -extra, -extra))
                tall = tall + F.pad(up, (-extra, -extra, *ends))
            same = same + F.pad(maps.index_select(1, identity), (-extra,) * 4)
        result: Tensor = layer.bn_lora1(wide) + layer.bn_lora2(tall) + layer.bn_small(same) + x
        return result

    @staticmethod
    def apart(maps: Tensor, order: Tensor, slots: int) -> tuple[Tensor, ...]:
        """The maps of every slot, ``[N, C, H, W]`` each."""
        return maps.index_select(1, order).unflatten(1, (-1, slots)).unbind(2)


def _shiftwise(spec: Spec) -> Contest:
    batch, channels, big = spec.one("n"), spec.one("c"), spec.one("k")
    layer = striate.nn.ShiftwiseConv2d(channels, big).to(spec.device, spec.dtype)
    x = draw(spec, batch, channels, *spec["i"])
    macs = batch * channels * prod(spec["i"]) * (2 * big * layer.small_kernel + layer.small_kernel**2)
    calls = {"striate": layer, "torch": ExpandShiftAdd(layer)}
    terms = 2 * big * layer.small_kernel + batch * prod(
        spec["i"]
    )  # batch norms sum over samples and positions
    exact = ExpandShiftAdd(copy.deepcopy(layer).double())
    return Contest(calls, (x,), exact, macs, rounding(spec, terms), layer=True)


def _inception(spec: Spec) -> Contest:
    batch, channels = spec.one("n"), spec.one("c")
    layer = striate.nn.InceptionDWConv2d(channels).to(spec.device, spec.dtype)
    x = draw(spec, batch, channels, *spec["i"])
    branches: tuple[Any, ...] = (layer.dwconv_hw, layer.dwconv_w, layer.dwconv_h)
    taps = [prod(conv.kernel_size) for conv in branches]
    macs = batch * prod(spec["i"]) * layer.split_indexes[1] * sum(taps)
    terms = batch * prod(spec["i"]) if spec.pass_ != "fwd" else max(taps)
    calls = {"striate": layer, "torch": _by_torch(layer)}
    return Contest(calls, (x,), _exact(layer), macs, rounding(spec, terms), layer=True)


class _DenseCross(nn.Module):
    """A merged shift-wise layer as one cross-shaped kernel in torch's convolution."""

    def __init__(self, layer: striate.nn.CrossConv2d) -> None:
        super().__init__()
        self.kernel, self.bias = layer.dense_kernel().detach(), layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers as the layer."""
        kernel, bias = self.kernel.to(x.dtype), self.bias.to(x.dtype)
        return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))


def _masked(spec: Spec) -> Contest:
    """Three in ten small filters taken out of one repetition; ``plain`` computes them all the same."""
    batch, channels, big = spec.one("n"), spec.one("c"), spec.one("k")
    layer = striate.nn.ShiftwiseConv2d(channels, big, n_rep=1).eval()
    layer.set_mask((torch.rand(channels * layer.permutations.horizontal.shape[-1], 1, 1, 1) < 0.7).float())
    merged, every = (layer.merged().to(spec.device, spec.dtype) for _ in range(2))
    every.grain = 0  # type: ignore[assignment]
    x = draw(spec, batch, channels, *spec["i"])
    taps = 2 * big * layer.small_kernel
    macs = batch * channels * prod(spec["i"]) * taps
    terms = taps if spec.pass_ == "fwd" else taps + batch * prod(spec["i"])
    exact = _DenseCross(cast(striate.nn.CrossConv2d, every))
    return Contest({"striate": merged, "plain": every}, (x,), exact, macs, rounding(spec, terms), layer=True)


OPS = {
    "dcls_kernel": Op(("g", "m", "k"), _construct),
    "Dcls1d_update": Op(("n", "c", "k"), _delays),
    "Dcls2d": Op(("n", "c", "i", "m", "k"), partial(_learned, "v0")),
    "Dcls2d_v1": Op(("n", "c", "i", "m", "k"), partial(_learned, "v1")),
    "Dcls2d_max": Op(("n", "c", "i", "m", "k"), partial(_learned, "max")),
    "Dcls2d_gauss": Op(("n", "c", "i", "m", "k"), partial(_learned, "gauss")),
    "ShiftwiseConv2d": Op(("n", "c", "i", "k"), _shiftwise),
    "CrossConv2d": Op(("n", "c", "i", "k"), _masked),
    "InceptionDWConv2d": Op(("n", "c", "i"), _inception),
}
