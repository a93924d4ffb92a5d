"""Branches that are trained side by side and merged into one kernel, and the layers made of them."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import branches as _branches
from ._built import Ints, filled, pair, sizes
from ._normed import normed_branches, unhooked
from .conv import Conv1d, Conv2d, Conv3d

_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
_OURS = dict(zip(_CONVOLUTIONS, (Conv1d, Conv2d, Conv3d), strict=True))
# UniRepLKNet's branches beside a kernel: (size, dilation) each.
DILATED_BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
    5: ((3, 1), (3, 2)),
}


def fold_norm(kernel: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """The convolution that equals a convolution and a BatchNorm in evaluation, as (kernel, bias)."""
    if norm.running_mean is None or norm.running_var is None:
        raise RuntimeError("merge: expected a BatchNorm with running statistics, got one without")
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    moved = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = moved * scale if norm.bias is None else norm.bias + moved * scale
    return kernel * scale.reshape(-1, *[1] * (kernel.dim() - 1)), shift


def dilated(kernel: Tensor, dilation: Ints) -> Tensor:
    """The dense kernel of a dilated one: zeros between its taps."""
    rank = kernel.dim() - 2
    steps = sizes(dilation, rank)
    shape = [(k - 1) * d + 1 for k, d in zip(kernel.shape[2:], steps, strict=True)]
    made = kernel.new_zeros((*kernel.shape[:2], *shape))
    index: tuple[Any, ...] = (..., *(slice(None, None, step) for step in steps))
    made[index] = kernel
    return made


def centred(kernel: Tensor, size: Ints) -> Tensor:
    """The kernel in the middle of a larger grid of zeros; sizes must differ by even numbers."""
    rank = kernel.dim() - 2
    pads = []
    for large, small in zip(reversed(sizes(size, rank)), reversed(kernel.shape[2:]), strict=True):
        if large < small or (large - small) % 2:
            raise ValueError(f"size: expected {small} plus an even number, got {large}")
        pads += [(large - small) // 2] * 2
    return F.pad(kernel, pads)


def merge(module: torch.nn.Module) -> torch.nn.Module:
    """Fold branches, built kernels and BatchNorms into plain convolutions, for inference.

    Every layer that offers ``merged()`` is replaced by what that returns, and in every ``torch.nn.Sequential`` a
    BatchNorm behind a convolution disappears into it. BatchNorms are taken with their running statistics, so the
    result equals the module in evaluation.

    Args:
        module: changed in place, except where it is itself such a layer.

    Returns:
        The module, or what replaces it.
    """
    offer = getattr(module, "merged", None)
    if callable(offer):
        with torch.no_grad():
            made: torch.nn.Module = offer()
        return made.train(module.training)
    for name, child in list(module.named_children()):
        setattr(module, name, merge(child))
    if isinstance(module, torch.nn.Sequential):
        _fold_pairs(module)
    return module


def _fold_pairs(sequence: torch.nn.Sequential) -> None:
    layers = list(sequence.named_children())
    for (_, first), (name, second) in itertools.pairwise(layers):
        follows = isinstance(second, _NORMS) and first.__class__.forward in _FORWARDS
        if follows and getattr(first, "out_channels", None) == second.num_features:
            setattr(sequence, name, _folded(first, second))
            setattr(sequence, _name_of(sequence, first), torch.nn.Identity())


_FORWARDS = {layer.forward for layer in (*_CONVOLUTIONS, *_OURS.values())}


def _name_of(module: torch.nn.Module, child: torch.nn.Module) -> str:
    return next(name for name, found in module.named_children() if found is child)


def _folded(conv: Any, norm: Any) -> torch.nn.Module:
    """One convolution for the two."""
    with torch.no_grad():
        kernel, bias = fold_norm(conv.weight, conv.bias, norm)
    kind = next(ours for theirs, ours in _OURS.items() if isinstance(conv, theirs))
    layer = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        padding_mode=conv.padding_mode,
        device=kernel.device,
        dtype=kernel.dtype,
    )
    return filled(layer, kernel, bias).train(conv.training)


def depthwise(
    channels: int, kernel_size: Ints, *, stride: int = 1, dilation: int = 1, bias: bool = False
) -> Conv2d:
    """A depthwise convolution that keeps the size of maps at stride 1."""
    size = pair(kernel_size)
    rows, columns = ((dilation * (k - 1) + 1) // 2 for k in size)
    padding = (rows, columns)
    return Conv2d(channels, channels, size, stride, padding, dilation, channels, bias)


def normed(conv: Conv2d) -> torch.nn.Sequential:
    """A convolution ``conv`` and its BatchNorm ``bn``."""
    return torch.nn.Sequential(OrderedDict(conv=conv, bn=torch.nn.BatchNorm2d(conv.out_channels)))


def _as_branches(convs: Sequence[Any]) -> list[_branches.Branch] | None:
    """Depthwise convolutions that keep the size of maps, for one pass over their input; None where one is not."""
    if not all(_keeps_size(conv) for conv in convs):
        return None
    return [_branches.Branch(conv.weight, conv.bias, conv.padding, conv.dilation) for conv in convs]


def _split(input: Tensor, convs: Sequence[Any]) -> Tensor:
    """Each convolution on its share of the channels, in order; those before them stay as they are."""
    branches = _as_branches(convs)
    if branches is not None:
        return _branches.split(input, branches)
    counts = [conv.in_channels for conv in convs]
    same, *parts = input.split([input.shape[1] - sum(counts), *counts], 1)
    return torch.cat((same, *(conv(part) for conv, part in zip(convs, parts, strict=True))), 1)


def _normed_sum(input: Tensor, pairs: Sequence[tuple[Any, Any]]) -> Tensor:
    """The sum of what BatchNorms make of convolutions, given as pairs, that see every channel."""
    convs, norms = zip(*pairs, strict=True)
    branches = _as_branches(convs)
    if branches is not None:
        return _added(normed_branches(input, branches, norms))
    return _added(norm(conv(input)) for conv, norm in pairs)


def _keeps_size(conv: Any) -> bool:
    return (
        type(conv) is Conv2d
        and unhooked(conv)
        and conv.stride == (1, 1)
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and all(
            2 * p == d * (k - 1)
            for p, d, k in zip(conv.padding, conv.dilation, conv.kernel_size, strict=True)
        )
    )


def merged_depthwise(parts: list[tuple[Tensor, Tensor]], size: Ints, stride: Ints = 1) -> torch.nn.Module:
    """One depthwise convolution for a sum of some, given as (kernel, bias); smaller kernels are centred."""
    kernel = sum((centred(kernel, size) for kernel, _ in parts), torch.zeros(()))
    bias = sum((bias for _, bias in parts), torch.zeros(()))
    channels, (height, width) = kernel.shape[0], pair(size)
    layer = Conv2d(
        channels,
        channels,
        (height, width),
        pair(stride),
        (height // 2, width // 2),
        groups=channels,
        device=kernel.device,
        dtype=kernel.dtype,
    )
    return filled(layer, kernel, bias)


def _odd(name: str, size: int) -> int:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"{name}: expected a positive odd integer, got {size}")
    return size


def _added(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    return sum(others, first)


class RepLKBlockConv2d(torch.nn.Module):
    """A large depthwise kernel and a small one beside it, each with a BatchNorm, added.

    y = BN(x * w_K) + BN(x * w_k), merged by zero-padding the small kernel (Ding et al.: Scaling Up Your Kernels to
    31x31, arXiv 2203.06717, section 3). Parameter names are the published block's, ``lkb_origin`` and ``small_conv``.

    Args:
        channels: C of ``[N, C, H, W]``.
        kernel_size: odd.
        small_kernel: odd and not larger; None for no small kernel.
        stride: of both.
    """

    def __init__(
        self, channels: int, kernel_size: int, small_kernel: int | None = 5, stride: int = 1
    ) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride = channels, _odd("kernel_size", kernel_size), stride
        self.lkb_origin = normed(depthwise(channels, kernel_size, stride=stride))
        self.small_conv: torch.nn.Sequential | None = None
        if small_kernel is not None:
            if _odd("small_kernel", small_kernel) > kernel_size:
                raise ValueError(
                    f"small_kernel: expected at most kernel_size {kernel_size}, got {small_kernel}"
                )
            self.small_conv = normed(depthwise(channels, small_kernel, stride=stride))

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size, at stride 1."""
        return _normed_sum(input, [(branch.conv, branch.bn) for branch in self._branches()])

    def _branches(self) -> list[Any]:
        return [self.lkb_origin, *([] if self.small_conv is None else [self.small_conv])]

    def merged(self) -> torch.nn.Module:
        """One depthwise convolution."""
        parts = [fold_norm(branch.conv.weight, branch.conv.bias, branch.bn) for branch in self._branches()]
        return merged_depthwise(parts, self.kernel_size, self.stride)


class DilatedReparamConv2d(torch.nn.Module):
    """A large depthwise kernel and dilated small ones beside it, each with a BatchNorm, added.

    (Ding et al.: UniRepLKNet, arXiv 2311.15599, section 3.1.) Parameter names are the published block's:
    ``lk_origin``, ``origin_bn``, ``dil_conv_k5_1``, ``dil_bn_k5_1``, ...

    Args:
        channels: C of ``[N, C, H, W]``.
        kernel_size: 5, 7, 9, 11, 13, 15 or 17, for which the paper names the branches; any odd size with branches.
        branches: (size, dilation) of each dilated kernel.
    """

    def __init__(
        self, channels: int, kernel_size: int, branches: tuple[tuple[int, int], ...] | None = None
    ) -> None:
        super().__init__()
        if branches is None:
            if kernel_size not in DILATED_BRANCHES:
                known = ", ".join(map(str, sorted(DILATED_BRANCHES)))
                raise ValueError(f"kernel_size: expected one of {known}, or branches, got {kernel_size}")
            branches = DILATED_BRANCHES[kernel_size]
        self.channels, self.kernel_size, self.branches = channels, _odd("kernel_size", kernel_size), branches
        self.lk_origin = depthwise(channels, kernel_size)
        self.origin_bn = torch.nn.BatchNorm2d(channels)
        for size, dilation in branches:
            reach = (_odd("branches", size) - 1) * dilation + 1
            if reach > kernel_size:
                raise ValueError(
                    f"branches: expected a reach of at most {kernel_size}, got {size} dilated {dilation}"
                )
            self.add_module(f"dil_conv_k{size}_{dilation}", depthwise(channels, size, dilation=dilation))
            self.add_module(f"dil_bn_k{size}_{dilation}", torch.nn.BatchNorm2d(channels))

    def _pairs(self) -> list[tuple[Any, Any]]:
        names = [f"k{size}_{dilation}" for size, dilation in self.branches]
        others = [(getattr(self, f"dil_conv_{name}"), getattr(self, f"dil_bn_{name}")) for name in names]
        return [(self.lk_origin, self.origin_bn), *others]

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size."""
        return _normed_sum(input, self._pairs())

    def merged(self) -> torch.nn.Module:
        """One depthwise convolution."""
        parts = []
        for conv, norm in self._pairs():
            kernel, bias = fold_norm(conv.weight, conv.bias, norm)
            parts.append((dilated(kernel, conv.dilation), bias))
        return merged_depthwise(parts, self.kernel_size)


class CrossConv2d(torch.nn.Module):
    """The sum of a tall and a wide depthwise convolution: a cross-shaped kernel at the cost of its two strips.

    Args:
        tall, wide: (kernel ``[C, 1, kh, kw]``, rows before the output position, columns before it).
        bias: ``[C]``.
        grain: above 0, many blocks of so many neighbouring taps are zero and are left out.
    """

    def __init__(
        self, tall: tuple[Tensor, int, int], wide: tuple[Tensor, int, int], bias: Tensor, grain: int = 0
    ) -> None:
        super().__init__()
        self.grain = grain
        self.starts = {"tall": tall[1:], "wide": wide[1:]}
        self.tall, self.wide = torch.nn.Parameter(tall[0]), torch.nn.Parameter(wide[0])
        self.bias = torch.nn.Parameter(bias)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size."""
        tall = _branches.Branch(self.tall, self.bias, self.starts["tall"], (1, 1))
        wide = _branches.Branch(self.wide, None, self.starts["wide"], (1, 1))
        return _branches.total(input, (tall, wide), self.grain)

    def dense_kernel(self) -> Tensor:
        """``[C, 1, K, K]`` with K odd: the same operator as one kernel, to be padded by K // 2."""
        strips = [(self.tall, *self.starts["tall"]), (self.wide, *self.starts["wide"])]
        reach = max(max(row, k.shape[2] - 1 - row, col, k.shape[3] - 1 - col) for k, row, col in strips)
        total = self.tall.new_zeros(self.tall.shape[0], 1, 2 * reach + 1, 2 * reach + 1)
        for kernel, row, col in strips:
            height, width = kernel.shape[2:]
            after = (reach - col, reach + col + 1 - width, reach - row, reach + row + 1 - height)
            total = total + F.pad(kernel, after)
        return total


class SLaKConv2d(torch.nn.Module):
    """Two strips K x s and s x K and a small s x s kernel, each with a BatchNorm, added.

    (Liu et al.: More ConvNets in the 2020s, arXiv 2207.03620, section 4.) Parameter names are the published block's:
    ``LoRA1`` (tall), ``LoRA2`` (wide), ``small_conv``.

    Args:
        channels: C of ``[N, C, H, W]``.
        kernel_size: K, odd.
        small_kernel: s, odd and not larger.
    """

    def __init__(self, channels: int, kernel_size: int, small_kernel: int = 5) -> None:
        super().__init__()
        if _odd("small_kernel", small_kernel) > _odd("kernel_size", kernel_size):
            raise ValueError(f"small_kernel: expected at most kernel_size {kernel_size}, got {small_kernel}")
        self.LoRA1 = normed(depthwise(channels, (kernel_size, small_kernel)))
        self.LoRA2 = normed(depthwise(channels, (small_kernel, kernel_size)))
        self.small_conv = normed(depthwise(channels, small_kernel))

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size."""
        branches: list[Any] = [self.LoRA1, self.LoRA2, self.small_conv]
        return _normed_sum(input, [(branch.conv, branch.bn) for branch in branches])

    def merged(self) -> torch.nn.Module:
        """Two strips; the small kernel is part of the tall one."""
        branches: list[Any] = [self.LoRA1, self.LoRA2, self.small_conv]
        (tall, b1), (wide, b2), (small, b3) = (
            fold_norm(branch.conv.weight, branch.conv.bias, branch.bn) for branch in branches
        )
        tall = tall + centred(small, tuple(tall.shape[2:]))
        half, thin = tall.shape[2] // 2, tall.shape[3] // 2
        return CrossConv2d((tall, half, thin), (wide, thin, half), b1 + b2 + b3)


class InceptionDWConv2d(torch.nn.Module):
    """Identity, a square and two bands, each on its own share of the channels, in this order.

    (Yu et al.: InceptionNeXt, arXiv 2303.16900, equation 2.) The constructor and the names ``dwconv_hw``,
    ``dwconv_w`` and ``dwconv_h`` are timm's.

    Args:
        in_channels: C of ``[N, C, H, W]``.
        square_kernel_size, band_kernel_size: odd sizes.
        branch_ratio: each of the three convolutions gets ``int(C * branch_ratio)`` channels.
        dilation: of all three.
        conv: makes the convolutions, with the signature of torch.nn.Conv2d.
    """

    def __init__(
        self,
        in_channels: int,
        square_kernel_size: int = 3,
        band_kernel_size: int = 11,
        branch_ratio: float = 0.125,
        dilation: int = 1,
        conv: Callable[..., torch.nn.Module] = Conv2d,
    ) -> None:
        super().__init__()
        share = int(in_channels * branch_ratio)
        if not 1 <= share <= in_channels // 3:
            raise ValueError(
                f"branch_ratio: expected 1 to {in_channels // 3} channels per branch, got {share}"
            )
        square, band = (
            _odd("square_kernel_size", square_kernel_size),
            _odd("band_kernel_size", band_kernel_size),
        )

        def branch(size: tuple[int, int]) -> torch.nn.Module:
            padding = (dilation * (size[0] // 2), dilation * (size[1] // 2))
            return conv(share, share, size, 1, padding=padding, dilation=dilation, groups=share)

        self.dwconv_hw, self.dwconv_w, self.dwconv_h = (
            branch((square, square)),
            branch((1, band)),
            branch((band, 1)),
        )
        self.split_indexes = (in_channels - 3 * share, share, share, share)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size."""
        return _split(input, (self.dwconv_hw, self.dwconv_w, self.dwconv_h))
