"""Long convolutions and the layers built on them beside torch.fft, and beside the direct sum where it is near.

``fft_conv1d`` is causal, ``fft_conv2d`` circular. ``torch.fft`` is rfft, product, irfft with padding to a power of
two, in float32 for half inputs; ``torch.fft.cached`` has the kernel's spectrum already, and so has ``striate.kept``
from the call before. Kernels of half inputs are float32, as the operator takes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import contextmanager
from math import log2, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import striate

from ..._problem import config
from ...ops._convolution import conv
from ...ops._fft import fft_conv, wide
from ..specs import Spec
from . import Contest, Op, draw, transform

# The direct sum is timed up to this many taps.
DIRECT_TAPS = 2048


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def by_torch(x: Tensor, k: Tensor, spectrum: Tensor | None = None) -> Tensor:
    """The causal convolution as it is usually written with torch.fft."""
    length, dtype = x.shape[-1], wide(x.dtype)
    n = _power(length + k.shape[-1] - 1)
    k_f = torch.fft.rfft(k.to(dtype), n=n) if spectrum is None else spectrum
    return torch.fft.irfft(torch.fft.rfft(x.to(dtype), n=n) * k_f, n=n)[..., :length].to(x.dtype)


def transforms(rows: int, kernels: int, length: int) -> int:
    """Multiply-adds of real transforms of ``rows`` signals there and back and of ``kernels``, of 5/2 n log2 n flops."""
    return int((2 * rows + kernels) * 1.25 * length * log2(length) + 3 * rows * length / 2)


def _line(spec: Spec) -> Contest:
    batch, channels, length, taps = (spec.one(letter) for letter in "ncik")
    x = draw(spec, batch, channels, length)
    k = draw(spec.in_dtype(wide(spec.dtype)), channels, taps, scale=1 / taps)
    calls: dict[str, Callable[..., Any]] = {
        "striate": lambda x, k: striate.fft_conv1d(x, k, order="convolution"),
        "torch.fft": by_torch,
    }
    if spec.pass_ == "fwd":
        spectrum = torch.fft.rfft(k, n=_power(length + taps - 1))
        calls["torch.fft.cached"] = lambda x, k: by_torch(x, k, spectrum)
        calls["striate.kept"] = calls["striate"]
        calls["striate"] = lambda x, k: fft_conv(x, k, (0,), (0,), False, False)
        if taps <= DIRECT_TAPS and spec.device == "cpu":
            padded, weight = F.pad(x, (taps - 1, 0)), k.flip(-1).unsqueeze(1).contiguous()
            sums = str(config((1,), (0,), (1,), None))
            calls["striate.direct"] = lambda x, k: conv(padded, weight, None, sums)
    n = _power(length + taps - 1)
    return Contest(calls, (x, k), by_torch, transforms(batch * channels, channels, n), transform(spec, n))


def _plane(spec: Spec) -> Contest:
    batch, channels, size, kernel = spec.one("n"), spec.one("c"), spec["i"], spec["k"]
    if len(size) != 2 or size != kernel:
        raise ValueError(f"{spec.op}: expected as many taps as positions on two axes, got {spec.short!r}")
    x, k = draw(spec, batch, channels, *size), draw(spec.in_dtype(wide(spec.dtype)), channels, *size)

    def circular(x: Tensor, k: Tensor, spectrum: Tensor | None = None) -> Tensor:
        k_f = torch.fft.rfft2(k) if spectrum is None else spectrum
        return torch.fft.irfft2(torch.fft.rfft2(x.to(wide(x.dtype))) * k_f, s=size).to(x.dtype)

    calls: dict[str, Callable[..., Any]] = {
        "striate": lambda x, k: striate.fft_conv2d(x, k, order="convolution", padding="circular"),
        "torch.fft": circular,
    }
    if spec.pass_ == "fwd":
        spectrum = torch.fft.rfft2(k)
        calls["torch.fft.cached"] = lambda x, k: circular(x, k, spectrum)
    macs = transforms(batch * channels, channels, prod(size))
    return Contest(calls, (x, k), circular, macs, transform(spec, prod(size)), layer=True)


def _convolve(v: Tensor, k: Tensor, *, skip: Tensor, activation: str | None = None, **_: Any) -> Tensor:
    y = by_torch(v, k) + v * skip[:, None]
    return y if activation is None else getattr(F, activation)(y)


@contextmanager
def _by_torch_fft() -> Any:
    """What the layers call is torch.fft for a moment."""
    from striate.nn import hyena, long_conv

    modules: tuple[Any, ...] = (hyena, long_conv)
    before = [module.fft_conv1d for module in modules]
    for module in modules:
        module.fft_conv1d = _convolve
    try:
        yield
    finally:
        for module, original in zip(modules, before, strict=True):
            module.fft_conv1d = original


class _Torch(nn.Module):
    """A layer with torch.fft in place of striate."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        """The same numbers as the layer."""
        with _by_torch_fft():
            return self.layer(x)


def _layer(spec: Spec) -> Contest:
    batch, channels, length = (spec.one(letter) for letter in "nci")
    last = spec.op == "HyenaOperator"
    made: nn.Module = getattr(striate.nn, spec.op)(channels, length).to(spec.device, spec.dtype)
    x = draw(spec, batch, length, channels) if last else draw(spec, batch, channels, length)
    exact = _Torch(copy.deepcopy(made).double())
    macs = transforms(batch * channels, channels, _power(2 * length)) * (2 if last else 1)
    # A layer is a chain of a dozen operations, each with the error of its own.
    calls = {"striate": made, "torch.fft": _Torch(made)}
    return Contest(calls, (x,), exact, macs, 12 * transform(spec, length), layer=True)


OPS = {
    "fft_conv1d": Op(("n", "c", "i", "k"), _line),
    "fft_conv2d": Op(("n", "c", "i", "k"), _plane),
    "SGConv1d": Op(("n", "c", "i"), _layer),
    "HyenaOperator": Op(("n", "c", "i"), _layer),
}
