"""Layers whose kernels are built beside the same on torch, and beside ready kernels.

``torch`` is kernel and convolution in torch's operators, restated here from the papers' formulas; ``plain`` an ordinary
layer of striate's with as large a kernel: what building costs. The kernels of learnable spacings stand in ``dcls.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import striate

from ..specs import Spec
from . import Contest, Op, draw, rounding

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d}
_PLAIN: dict[int, Any] = {1: striate.nn.Conv1d, 2: striate.nn.Conv2d}


def _points(layer: Any) -> Tensor:
    """arXiv 2304.02330, equation 2: cones around points, weighted for every channel."""
    columns, rows = (torch.linspace(-1, 1, k).to(layer.radius) for k in layer.kernel_size[::-1])
    at = layer.weight_coord[0]
    across = (at[:, 0, None, None] - columns).abs()
    down = (at[:, 1, None, None] + rows[:, None]).abs()
    cones = torch.clamp(1 - (across + down) / layer.radius[0], min=0)
    return torch.einsum("oj,jyx->oyx", layer.weights[0], cones).unsqueeze(1)


def _density(layer: Any) -> Tensor:
    """arXiv 2505.24527: a weight times the outer product of densities."""
    along = torch.cat([layer.density, torch.ones_like(layer.density[:1]), layer.density.flip(0)])
    kernel: Tensor = layer.weight * torch.outer(along, along)
    return kernel


def _blurred(layer: Any) -> Tensor:
    """arXiv 1904.11487, section 3: a free kernel behind a blur, as large as both together."""
    sigma = layer.log_sigma[0].exp()
    far = max(1, math.ceil(2 * float(sigma.detach())))
    line = torch.exp(-0.5 * (torch.arange(-far, far + 1).to(sigma) / sigma).square())
    blur = torch.outer(line, line) / line.sum().square()
    weight = layer.weight.flatten(0, 1).unsqueeze(1)
    return F.conv2d(weight, blur[None, None], padding=2 * far).unflatten(0, layer.weight.shape[:2]).squeeze(2)


def _waves(layer: Any) -> Tensor:
    """arXiv 1904.13204, equation 3: a wave under a bell, for every pair of channels."""
    lines = [torch.arange(k).to(layer.freq) - k // 2 for k in layer.kernel_size]
    y, x = lines[0][:, None], lines[1]
    freq, theta, sigma, psi = (p[..., None, None] for p in (layer.freq, layer.theta, layer.sigma, layer.psi))
    turned = x * theta.cos() + y * theta.sin()
    other = y * theta.cos() - x * theta.sin()
    bell = torch.exp(-(turned.square() + other.square()) / (2 * (sigma + 0.001).square()))
    return bell * torch.cos(freq * turned + psi) / (2 * math.pi * sigma.square())


def _drawn(layer: Any) -> Tensor:
    """arXiv 2102.02611, section 4: a network of sines at the coordinates of the taps, or a product of such waves."""
    lines = [torch.linspace(-1, 1, k).to(layer.out.weight) for k in layer.kernel_size]
    at = torch.cartesian_prod(*lines).reshape(-1, len(lines))
    state: Any = None
    for index, wave in enumerate(layer.waves):
        multiplies = layer.network == "mfn"
        into = at if multiplies or state is None else state
        sine = torch.sin(wave.omega * F.linear(into, wave.linear.weight, wave.linear.bias))
        mixes = layer.mixes[index - 1] if multiplies and index else None
        state = sine if mixes is None else sine * F.linear(state, mixes.weight, mixes.bias)
    return F.linear(state, layer.out.weight).t().reshape(layer.out_channels, -1, *layer.kernel_size)


class _Restated(nn.Module):
    """A layer on torch, its kernel from a function."""

    def __init__(self, layer: Any, kernel: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.layer, self.kernel = layer, kernel

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers as the layer."""
        layer: Any = self.layer
        kernel = self.kernel(layer)
        return _CONVOLUTIONS[layer.rank](
            x, kernel, padding=[k // 2 for k in kernel.shape[2:]], groups=layer.groups
        )


def _built(kernel: Callable[[Any], Tensor], spec: Spec, settings: dict[str, Any], name: str) -> Contest:
    batch, channels, outputs, size = spec.one("n"), spec.one("c"), spec.one("o"), spec["k"]
    own: dict[str, Any] = {"padding": tuple(k // 2 for k in size), "bias": False}
    own["groups"] = channels if settings.get("depthwise") else 1
    rest = {key: value for key, value in settings.items() if key != "depthwise"}
    layer: Any = getattr(striate.nn, name)(channels, outputs, size, **own, **rest)
    layer.to(spec.device, spec.dtype)
    plain = _PLAIN[layer.rank](channels, outputs, size, **own).to(spec.device, spec.dtype)
    x = draw(spec, batch, channels, *spec["i"])
    calls = {"striate": layer, "torch": _Restated(layer, kernel), "plain": plain}
    taps = prod(size) * channels // own["groups"]
    terms = taps if spec.pass_ == "fwd" else taps + batch * prod(spec["i"])
    exact = _Restated(copy.deepcopy(layer).double(), kernel)
    macs = batch * prod(spec["i"]) * outputs * taps
    # Building is a chain of a dozen operations, each with the error of its own.
    return Contest(calls, (x,), exact, macs, 12 * rounding(spec, terms), layer=True)


def _op(name: str, kernel: Callable[[Any], Tensor], **settings: Any) -> Op:
    return Op(("n", "c", "o", "i", "k"), partial(_built, kernel, settings=settings, name=name))


OPS = {
    "SMPConv2d": _op("SMPConv2d", _points, depthwise=True),
    "WeightedConv2d": _op("WeightedConv2d", _density, trainable=True),
    "GaussianComposedConv2d": _op("GaussianComposedConv2d", _blurred),
    "GaborConv2d": _op("GaborConv2d", _waves),
    "ContinuousKernelConv1d": _op("ContinuousKernelConv1d", _drawn, depthwise=True),
    "ContinuousKernelConv2d": _op("ContinuousKernelConv2d", _drawn, depthwise=True, network="mfn"),
}
