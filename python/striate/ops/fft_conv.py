"""Depthwise convolutions with kernels of any length, by way of transforms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _fft_gates
from ._family import autocast_args
from ._fft import constant, fft_conv, wide
from ._fft_gates import ACTIVATIONS
from ._planes import filter_planes

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PADDINGS = ("causal", "same", "full", "circular")
_ORDERS = ("correlation", "convolution")


@dataclass(frozen=True)
class _Request:
    """The arguments of a call, by name."""

    input: Tensor
    kernel: Tensor
    bias: Tensor | None
    padding: str
    order: str
    pregate: Tensor | None
    postgate: Tensor | None
    skip: Tensor | None
    kernel_reversed: Tensor | None
    activation: str | None


def fft_conv1d(
    input: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    padding: str = "causal",
    order: str = "correlation",
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    skip: Tensor | None = None,
    kernel_reversed: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Convolution of every channel with its own kernel of any length, gated, with a skip term and an activation.

    With v = pregate * input, ``postgate * activation(k * v + skip v + bias)``. In order "correlation" the kernel is
    stored as in torch (for "causal" the last tap meets the current sample), in "convolution" as a FIR filter:

    ==========  ========================================  ======================================
    padding     correlation, y[t] = sum_j k[j] ...        convolution, y[t] = sum_j k[j] ...
    ==========  ========================================  ======================================
    "causal"    x[t + j - (K - 1)]                        x[t - j]
    "same"      x[t + j - (K - 1) // 2]                   x[t - j + (K - 1) // 2]
    "full"      x[t + j - (K - 1)], L + K - 1 outputs     x[t - j], L + K - 1 outputs
    "circular"  x[(t + j) mod L]                          x[(t - j) mod L]
    ==========  ========================================  ======================================

    Half inputs are computed in float32. The error is relative to max|x| sum|k| and not to each output, as with every
    transform: a causal output also carries rounding from later samples.

    Args:
        input: ``[N, C, L]`` or ``[C, L]``; float32, float64, bfloat16 or float16; any length from 1.
        kernel: ``[C, K]`` or ``[1, K]``, shorter, equal or longer than the input; the dtype of input, or float32
            beside half input.
        bias: ``[C]``.
        padding: see the table; ``L`` outputs except for "full".
        order: see the table.
        pregate: a factor of the input, in its shape.
        postgate: a factor of the output, in its shape.
        skip: ``[C]``, the factor of the direct path; not with "full".
        kernel_reversed: ``[C, K2]`` or ``[1, K2]``, adds sum_j kernel_reversed[j] v[t + j]: a filter that looks ahead.
            Needs order "convolution" and padding "causal" or "circular".
        activation: None, "gelu", "silu" or "relu".

    Returns:
        ``[N, C, L]`` (``L + K - 1`` for "full") in the dtype of input.

    Raises:
        TypeError: for an argument that is not a tensor.
        ValueError: for a padding, order or activation that is not in the table.
        RuntimeError: for shapes, dtypes or devices that do not go together.

    The surface is that of FlashFFTConv (Fu et al. 2023, arXiv 2311.05908, section 3) and of H3's fused convolution.
    """
    return _run(
        1,
        _Request(input, kernel, bias, padding, order, pregate, postgate, skip, kernel_reversed, activation),
    )


def fft_conv2d(
    input: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    padding: str = "same",
    order: str = "correlation",
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    skip: Tensor | None = None,
    kernel_reversed: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """2-D form of :func:`fft_conv1d`: input ``[N, C, H, W]``, kernel ``[C, kh, kw]`` or ``[1, kh, kw]``.

    There is no causal padding; the default is "same".
    """
    return _run(
        2,
        _Request(input, kernel, bias, padding, order, pregate, postgate, skip, kernel_reversed, activation),
    )


def fft_conv3d(
    input: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    padding: str = "same",
    order: str = "correlation",
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    skip: Tensor | None = None,
    kernel_reversed: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """3-D form of :func:`fft_conv2d`: input ``[N, C, D, H, W]``, kernel ``[C, kd, kh, kw]`` or ``[1, kd, kh, kw]``."""
    return _run(
        3,
        _Request(input, kernel, bias, padding, order, pregate, postgate, skip, kernel_reversed, activation),
    )


def _run(rank: int, request: _Request) -> Tensor:
    _check(f"fft_conv{rank}d", rank, request)
    request = _under_autocast(request)
    if request.input.dim() == rank + 1:
        gates: dict[str, Any] = {
            name: None if gate is None else gate.unsqueeze(0)
            for name, gate in (("pregate", request.pregate), ("postgate", request.postgate))
        }
        return _gated(replace(request, input=request.input.unsqueeze(0), **gates)).squeeze(0)
    return _gated(request)


def _gated(request: _Request) -> Tensor:
    x = request.input
    kernel = request.kernel.to(wide(x.dtype))
    flip = request.order == "correlation"
    sizes = kernel.shape[1:]
    shift, grow = _placement(request.padding, sizes, flip)
    if request.kernel_reversed is not None:
        ahead = request.kernel_reversed.to(kernel.dtype)
        kernel, shift = _two_sided(kernel, ahead), tuple(size - 1 for size in ahead.shape[1:])
    skip = request.skip
    if skip is not None and (kernel.shape[0] == x.shape[1] or skip.shape[0] == 1):
        kernel, skip = _with_skip(kernel, skip, shift, flip), None
    periodic = request.padding == "circular"
    spectral, gates = periodic and _fills_plane(kernel, x), (request.pregate, request.postgate, request.bias)
    if skip is None and not spectral and _fft_gates.fused(x, gates, request.activation):
        how = _fft_gates.How(shift, grow, flip, periodic, request.activation or "none")
        return _fft_gates.gated(x, kernel, gates, how)
    x = x if request.pregate is None else x * request.pregate
    if spectral:
        y = _spectral(x, kernel, shift, flip)
    else:
        y = fft_conv(x, kernel, shift, grow, flip, periodic, constant(kernel))
    if skip is not None:
        y = y + x * _per_channel(skip, y)
    if request.bias is not None:
        y = y + _per_channel(request.bias, y)
    if request.activation is not None:
        y = ACTIVATIONS[request.activation](y)
    return y if request.postgate is None else y * request.postgate


def _fills_plane(kernel: Tensor, x: Tensor) -> bool:
    """Whether torch's own transform of exactly a plane's size beats one of four times the plane (ADR 9)."""
    sizes = list(zip(kernel.shape[1:], x.shape[2:], strict=True))
    return len(sizes) > 1 and all(size < 2 * taps <= 2 * size for taps, size in sizes)


def _spectral(x: Tensor, kernel: Tensor, shift: tuple[int, ...], flip: bool) -> Tensor:
    sizes, axes = tuple(x.shape[2:]), tuple(range(1, kernel.dim()))
    taps = F.pad(kernel.flip(axes) if flip else kernel, _after(kernel, sizes))
    if any(shift):
        taps = taps.roll(tuple(-at for at in shift), axes)
    if len(sizes) == 2:
        values = torch.view_as_real(torch.fft.rfft2(taps)).expand(x.shape[1], -1, -1, -1)
        return filter_planes(x.to(kernel.dtype), values, False).to(x.dtype)
    spectrum = torch.fft.rfftn(x.to(kernel.dtype), dim=tuple(range(2, x.dim()))) * torch.fft.rfftn(
        taps, dim=axes
    )
    return torch.fft.irfftn(spectrum, s=sizes, dim=tuple(range(2, x.dim()))).to(x.dtype)


def _after(kernel: Tensor, sizes: tuple[int, ...]) -> list[int]:
    return [
        pad for taps, size in zip(kernel.shape[:0:-1], sizes[::-1], strict=True) for pad in (0, size - taps)
    ]


def _placement(padding: str, sizes: Any, flip: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the output begins in the full product, and by how much it is longer than the input, per axis."""
    if padding == "same":
        return tuple(size // 2 if flip else (size - 1) // 2 for size in sizes), (0,) * len(sizes)
    if padding == "full":
        return (0,) * len(sizes), tuple(size - 1 for size in sizes)
    ahead = flip and padding == "circular"
    return tuple(size - 1 if ahead else 0 for size in sizes), (0,) * len(sizes)


def _two_sided(kernel: Tensor, ahead: Tensor) -> Tensor:
    """One kernel that looks back like ``kernel`` and ahead like ``ahead``; both meet at the current position."""
    axes = tuple(range(1, kernel.dim()))
    before = [pad for size in reversed(ahead.shape[1:]) for pad in (size - 1, 0)]
    after = [pad for size in reversed(kernel.shape[1:]) for pad in (0, size - 1)]
    return F.pad(kernel, before) + F.pad(ahead.flip(axes), after)


def _with_skip(kernel: Tensor, skip: Tensor, shift: tuple[int, ...], flip: bool) -> Tensor:
    """The skip term is one more tap, at the current position."""
    at = 0
    for size, first in zip(kernel.shape[1:], shift, strict=True):
        at = at * size + (size - 1 - first if flip else first)
    taps = kernel.flatten(1)
    return taps.select_scatter(taps[:, at] + skip.to(kernel.dtype), 1, at).view_as(kernel)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (like.dim() - 2))).to(like.dtype)


def _under_autocast(request: _Request) -> _Request:
    device = request.input.device.type
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return request
    names = [name for name in ("input", "pregate", "postgate") if getattr(request, name) is not None]
    cast, _ = autocast_args(device, tuple(getattr(request, name) for name in names), ())
    changed: dict[str, Any] = dict(zip(names, cast, strict=True))
    return replace(request, **changed)


def _check(name: str, rank: int, request: _Request) -> None:
    x, k = request.input, request.kernel
    for argument in ("input", "kernel", "bias", "pregate", "postgate", "skip", "kernel_reversed"):
        value = getattr(request, argument)
        if not isinstance(value, Tensor) and (value is not None or argument in ("input", "kernel")):
            raise TypeError(f"{name}: {argument} must be a Tensor, not {type(value).__name__}")
    _check_words(name, rank, request)
    known = x.dtype in _DTYPES and x.device.type in ("cpu", "cuda", "meta")
    if x.dim() not in (rank + 1, rank + 2) or not known:
        raise RuntimeError(
            f"{name}: input: expected a floating CPU or CUDA tensor of {rank + 1} or {rank + 2} dimensions, "
            f"got {x.dtype} {tuple(x.shape)} on {x.device}"
        )
    channels, spatial = x.shape[-rank - 1], tuple(x.shape[-rank:])
    if 0 in spatial:
        raise RuntimeError(f"{name}: input: expected positive sizes, got {tuple(x.shape)}")
    for argument, kernel in (("kernel", k), ("kernel_reversed", request.kernel_reversed)):
        if kernel is not None:
            _check_kernel(f"{name}: {argument}", rank, channels, kernel, x)
    output = spatial
    if request.padding == "full":
        output = tuple(size + taps - 1 for size, taps in zip(spatial, k.shape[1:], strict=True))
    for argument, sizes in (("pregate", spatial), ("postgate", output)):
        gate, expected = getattr(request, argument), (*x.shape[:-rank], *sizes)
        if gate is not None and (tuple(gate.shape) != expected or gate.dtype != x.dtype):
            raise RuntimeError(
                f"{name}: {argument}: expected {x.dtype} {expected}, got {gate.dtype} {tuple(gate.shape)}"
            )
    for argument in ("bias", "skip"):
        values = getattr(request, argument)
        if values is not None and tuple(values.shape) != (channels,):
            raise RuntimeError(f"{name}: {argument}: expected [{channels}], got {tuple(values.shape)}")


def _check_kernel(what: str, rank: int, channels: int, kernel: Tensor, x: Tensor) -> None:
    if kernel.dim() != rank + 1 or kernel.shape[0] not in (1, channels) or 0 in kernel.shape[1:]:
        raise RuntimeError(
            f"{what}: expected [{channels}, ...] or [1, ...] with {rank} positive sizes, got {tuple(kernel.shape)}"
        )
    mixed = x.dtype.itemsize == 2 and kernel.dtype == torch.float32
    if kernel.dtype != x.dtype and not mixed and not torch.is_autocast_enabled(x.device.type):
        raise RuntimeError(f"{what}: expected {x.dtype} (or float32 beside half input), got {kernel.dtype}")
    if kernel.device != x.device:
        raise RuntimeError(f"{what}: expected it on {x.device}, got {kernel.device}")


def _check_words(name: str, rank: int, request: _Request) -> None:
    paddings = _PADDINGS if rank == 1 else _PADDINGS[1:]
    choices: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("padding", request.padding, paddings),
        ("order", request.order, _ORDERS),
        ("activation", request.activation, (None, *ACTIVATIONS)),
    )
    for argument, value, allowed in choices:
        if value not in allowed:
            raise ValueError(f"{name}: {argument}: expected one of {allowed}, got {value!r}")
    if request.skip is not None and request.padding == "full":
        raise ValueError(
            f'{name}: skip: expected None with padding "full", whose output is longer than the input'
        )
    two_sided = request.order == "convolution" and request.padding in ("causal", "circular")
    if request.kernel_reversed is not None and not two_sided:
        raise ValueError(
            f'{name}: kernel_reversed: expected order "convolution" with padding "causal" or "circular", '
            f"got {request.order!r} with {request.padding!r}"
        )
