"""Convolutions whose kernels depend on the input, on the position, or on which inputs are valid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from .conv import Conv2d

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class CondConv2d(nn.Module):
    """Convolution with one kernel for each sample, mixed from experts (Yang et al., arXiv 1904.04971, Eq. 2).

    ``W[n] = sum_e routing[n, e] * weight[e]``; the batch is folded into the groups of one grouped convolution.
    Input [N, in_channels, H, W] and routing [N, num_experts] give [N, out_channels, H', W'].

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in torch.nn.Conv2d.
        num_experts: number of kernels that are mixed.
        function: the convolution that is called, with the signature of torch.nn.functional.conv2d.

    Raises:
        ValueError: channels that the groups do not divide, or routing of another shape than [N, num_experts].
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, *, num_experts: int = 4, **options: Any
    ):
        super().__init__()
        self.function: Callable[..., Tensor] = options.pop("function", ops.conv2d)
        self.stride, self.padding, self.dilation = (
            _pair(options.pop(key, default))
            for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        self.groups, bias = options.pop("groups", 1), options.pop("bias", True)
        if options:
            raise TypeError(f"CondConv2d got an unexpected keyword argument {next(iter(options))!r}")
        if in_channels % self.groups or out_channels % self.groups:
            raise ValueError(
                f"groups={self.groups} must divide {in_channels} input and {out_channels} output channels"
            )
        self.shape = (out_channels, in_channels // self.groups, *_pair(kernel_size))
        self.weight = nn.Parameter(torch.empty(num_experts, math.prod(self.shape)))
        self.bias = nn.Parameter(torch.empty(num_experts, out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each expert starts as an ordinary convolution would."""
        bound = 1 / math.sqrt(math.prod(self.shape[1:]))
        for tensor in (self.weight, self.bias):
            if tensor is not None:
                nn.init.uniform_(tensor, -bound, bound)

    def forward(self, x: Tensor, routing: Tensor) -> Tensor:
        """Convolve sample ``n`` with the kernel that ``routing[n]`` mixes."""
        n = x.shape[0]
        if tuple(routing.shape) != (n, self.weight.shape[0]):
            raise ValueError(
                f"routing must have shape {(n, self.weight.shape[0])}, but got {tuple(routing.shape)}"
            )
        weight = (routing @ self.weight).reshape(-1, *self.shape[1:])
        bias = None if self.bias is None else (routing @ self.bias).reshape(-1)
        folded = x.reshape(1, -1, *x.shape[2:])
        y = self.function(folded, weight, bias, self.stride, self.padding, self.dilation, n * self.groups)
        return y.reshape(n, self.shape[0], *y.shape[2:])


def spatially_varying_conv2d(
    x: Tensor,
    weight: Tensor,
    *,
    stride: Pair = 1,
    dilation: Pair = 1,
    grouping: str = "blocked",
    pad: str = "zeros",
) -> Tensor:
    """Depthwise filter whose kernel differs from pixel to pixel.

    ``y[n, c, q] = sum_t weight[n, group(c), t, q] * x[n, c, stride * q + dilation * t - padding]`` with the padding
    that keeps the extents at stride one. The taps are accumulated one by one, so that no unfolded copy of x exists.

    Args:
        x: [N, C, H, W].
        weight: [N or 1, G, kh, kw, H', W'] with odd kh and kw; G divides C.
        stride, dilation: as in torch.nn.functional.conv2d.
        grouping: "blocked" gives c // (C / G) one kernel (involution, arXiv 2103.06255), "interleaved" c mod G
            (LSNet's SKA, arXiv 2503.23135).
        pad: "zeros" or "reflect".

    Raises:
        ValueError: shapes that do not fit, even kernels, or an unknown grouping.
    """
    n, c = x.shape[:2]
    groups, kh, kw = weight.shape[1:4]
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    if grouping not in ("blocked", "interleaved"):
        raise ValueError(f'grouping must be "blocked" or "interleaved", but got {grouping!r}')
    if c % groups or kh % 2 == 0 or kw % 2 == 0 or weight.shape[0] not in (1, n):
        raise ValueError(
            f"weight must be [N or 1, G, odd, odd, H', W'] with G dividing {c} channels and N={n}, "
            f"but has shape {tuple(weight.shape)}"
        )
    h, w = (x.shape[2] - 1) // sh + 1, (x.shape[3] - 1) // sw + 1
    if tuple(weight.shape[4:]) != (h, w):
        raise ValueError(f"weight must have extents {(h, w)}, but got {tuple(weight.shape[4:])}")
    ph, pw = dh * (kh // 2), dw * (kw // 2)
    padded = F.pad(x, (pw, pw, ph, ph), mode="constant" if pad == "zeros" else pad)
    split, axis = ((groups, c // groups), 2) if grouping == "blocked" else ((c // groups, groups), 1)
    padded = padded.unflatten(1, split)
    y = x.new_zeros(())
    for t, tap in enumerate(weight.flatten(2, 3).unbind(2)):
        top, left = dh * (t // kw), dw * (t % kw)
        view = padded[..., top : top + sh * (h - 1) + 1 : sh, left : left + sw * (w - 1) + 1 : sw]
        y = y + view * tap.unsqueeze(axis)
    return y.flatten(1, 2)


class Involution2d(nn.Module):
    """Involution: each pixel writes the kernel it is filtered with (Li et al., arXiv 2103.06255, Eq. 4-6).

    Input [N, channels, H, W]; ``channels`` is a multiple of ``group_channels``, which share one kernel.
    """

    def __init__(self, channels: int, kernel_size: int = 7, stride: int = 1, **options: int) -> None:
        super().__init__()
        share, reduction = options.get("group_channels", 16), options.get("reduction", 4)
        if channels % share or kernel_size % 2 == 0:
            raise ValueError(
                f"channels={channels} must be a multiple of {share} and kernel_size={kernel_size} odd"
            )
        self.kernel_size, self.stride = kernel_size, stride
        hidden = channels // reduction
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
        )
        self.span = nn.Conv2d(hidden, kernel_size**2 * (channels // share), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Write a kernel at each output pixel and apply it."""
        seen = F.avg_pool2d(x, self.stride, self.stride) if self.stride > 1 else x
        kernel = self.span(self.reduce(seen)).unflatten(1, (-1, self.kernel_size, self.kernel_size))
        return spatially_varying_conv2d(x, kernel, stride=self.stride)


class SpaceToDepth(nn.Module):
    """[N, C, H, W] -> [N, s*s*C, H/s, W/s], whole images after each other (SPD-Conv, arXiv 2208.03641).

    The offsets (row, column) come in the order (0,0), (1,0), (0,1), (1,1): outermost, and not that of PixelUnshuffle.
    """

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Gather strided slices as channels."""
        s = self.scale
        if x.shape[2] % s or x.shape[3] % s:
            raise ValueError(f"extents must be multiples of {s}, but got {tuple(x.shape[2:])}")
        return torch.cat([x[:, :, i::s, j::s] for j in range(s) for i in range(s)], 1)


class PartialChannelConv2d(nn.Module):
    """Dense convolution of the first ``channels // divisor`` channels; the others pass (arXiv 2303.03667, Eq. 4).

    ``function`` is the convolution that is called, with the signature of torch.nn.functional.conv2d.
    """

    def __init__(
        self,
        channels: int,
        divisor: int = 4,
        kernel_size: int = 3,
        *,
        function: Callable[..., Tensor] = ops.conv2d,
    ) -> None:
        super().__init__()
        self.function = function
        self.cuts = [channels // divisor, channels - channels // divisor]
        self.weight = nn.Parameter(torch.empty(self.cuts[0], self.cuts[0], kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input."""
        first, rest = x.split(self.cuts, 1)
        return torch.cat([self.function(first, self.weight, padding=self.weight.shape[-1] // 2), rest], 1)


class PartialConv2d(nn.Conv2d):
    """Convolution over the valid pixels only, rescaled by how many there were (Liu et al., arXiv 1804.07723, Eq. 1-2).

    ``y = W (x * m) * size / sum(m) + b`` where the window holds a valid pixel, 0 elsewhere; the new mask says where.
    Arguments are those of torch.nn.Conv2d. Input [N, C, H, W], mask [N, 1 or C, H, W] of zeros and ones.
    """

    def forward(self, input: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The output and its mask, [N, 1, H', W']; no mask means that only the padding is invalid."""
        mask = input.new_ones(1, 1, *input.shape[2:]) if mask is None else mask
        if mask.shape[1] not in (1, input.shape[1]) or mask.shape[2:] != input.shape[2:]:
            raise ValueError(
                f"mask must be [N, 1 or C, H, W] for an input {tuple(input.shape)}, but is {tuple(mask.shape)}"
            )
        with torch.no_grad():
            ones = mask.new_ones(1, mask.shape[1], *self.kernel_size)
            valid = F.conv2d(mask, ones, None, self.stride, self.padding, self.dilation)
            seen = (valid > 0).to(input.dtype)
            ratio = ones.numel() / valid.clamp(min=1) * seen
        y = (
            ops.conv2d(input * mask, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
            * ratio
        )
        return (y if self.bias is None else y + self.bias.view(-1, 1, 1) * seen), seen


class PartialPaddingConv2d(PartialConv2d):
    """torch.nn.Conv2d whose zero padding counts as absent: outputs at the border are rescaled (arXiv 1811.11718)."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """Same shape as torch.nn.Conv2d gives."""
        return super().forward(input)[0]


class IterativeDynamicFilter2d(nn.Module):
    """An image filtered again and again with the 3x3 kernels that it writes for its pixels (IDF, arXiv 2508.19649).

    Kernels are |a|^power / (sum |a|^power + 1e-4) of what features of the image and its correlation with its neighbours
    give. Steps alternate between dilation two and one, all with the same weights; what the step before took away gates
    the features. Training mixes each result with its input by a random share.

    Args:
        channels: of the image, at least 2.
        width: of the features.
        steps: how often.
        power: sharpness of the kernels.
        conv: makes the convolutions, with the signature of torch.nn.Conv2d.

    Shape: ``[N, channels, H, W]`` to the same.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        steps: int = 10,
        power: float = 3.0,
        conv: Callable[..., nn.Module] = Conv2d,
    ) -> None:
        super().__init__()

        def plain(i: int, o: int, size: int = 3) -> nn.Module:
            return conv(i, o, size, padding=size // 2, bias=False)

        self.see = nn.Sequential(plain(channels, width), nn.ReLU(), plain(width, width), nn.ReLU())
        self.write = plain(width + 9, 9)
        self.taken = plain(2 * channels, 2 * channels, 1)
        self.gate = nn.Sequential(
            plain(2 * channels, width, 1), nn.ReLU(), plain(width, width, 1), nn.Sigmoid()
        )
        self.steps, self.power = steps, power

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        x, taken = input, None
        for step in range(self.steps):
            y = self._filtered(x, taken, 1 if step % 2 else 2)
            if self.training:
                y = torch.lerp(y, x, torch.rand(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device))
            x, taken = y, x - y
        return x

    def _filtered(self, x: Tensor, taken: Tensor | None, dilation: int) -> Tensor:
        pad = "reflect" if dilation > 1 else "zeros"
        features = self.see(_level(x))
        if taken is not None:
            seen = torch.cat([taken.mean((2, 3), keepdim=True), taken.std((2, 3), keepdim=True)], 1)
            features = features * self.gate(_level(self.taken(seen)))
        features = _level(torch.cat([features, _correlation(x.detach(), dilation, pad)], 1))
        kernel = self.write(features).abs() ** self.power
        kernel = (kernel / (kernel.sum(1, keepdim=True) + 1e-4)).unflatten(1, (1, 3, 3))
        return spatially_varying_conv2d(x, kernel, dilation=dilation, pad=pad)


def _level(x: Tensor) -> Tensor:
    """Each sample divided by its root mean square."""
    return x / (x.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-4)


def _correlation(x: Tensor, dilation: int, pad: str) -> Tensor:
    """Pearson's correlation over the channels of each pixel with its 3x3 neighbours, [N, 9, H, W]."""
    x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-4)
    padded, (h, w) = F.pad(x, [dilation] * 4, mode="constant" if pad == "zeros" else pad), x.shape[2:]
    offsets = [(i * dilation, j * dilation) for i in range(3) for j in range(3)]
    return torch.stack([(padded[..., i : i + h, j : j + w] * x).sum(1) for i, j in offsets], 1)


class SliceRecurrent2d(nn.Module):
    """Message passing from slice to slice, down, up, right and left (SCNN, arXiv 1712.06080, Eq. 1).

    ``h[i] = x[i] + relu(w * h[i-1])`` with a kernel of ``kernel_size`` along the slice that all slices share; each
    direction has its own and works on what the one before it left. Input and output [N, channels, H, W].
    """

    def __init__(self, channels: int, kernel_size: int = 9, directions: str = "DURL") -> None:
        super().__init__()
        if kernel_size % 2 == 0 or set(directions) - set("DURL"):
            raise ValueError(
                f"kernel_size={kernel_size} must be odd and directions={directions!r} made of D, U, R and L"
            )
        self.directions = directions
        std = math.sqrt(2 / (5 * kernel_size * channels**2))
        shape = (channels, channels, kernel_size)
        self.weight = nn.ParameterList(nn.Parameter(torch.randn(shape) * std) for _ in directions)

    def forward(self, x: Tensor) -> Tensor:
        """Pass messages in every direction in turn."""
        for direction, weight in zip(self.directions, self.weight, strict=True):
            axis = 2 if direction in "DU" else 3
            slices = list(x.unbind(axis))
            slices = slices[::-1] if direction in "UL" else slices
            for i in range(1, len(slices)):
                slices[i] = slices[i] + F.relu(
                    ops.conv1d(slices[i - 1], weight, padding=weight.shape[-1] // 2)
                )
            x = torch.stack(slices[::-1] if direction in "UL" else slices, axis)
        return x
