"""Depthwise convolutions of one tensor in torch's own operators: what the dispatcher calls for CUDA tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Ints = Sequence[int]
Maybe = Tensor | None
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Statics(NamedTuple):
    """What is no tensor in a call of the operators of branches, in the order of their schemas."""

    low: Ints
    """padding before the first position, by branch and axis"""
    dilation: Ints
    form: str
    """how results go together: "each" by itself, their "sum", or a "split" of the channels among them, of which the
    first may be left as they are"""
    grain: int = 0
    """size of blocks of taps of which many are zero, or 0; weight gradients have none"""


@dataclass(frozen=True)
class _Part:
    """A branch: its number, weight in the type of sums, first channel, low and high padding, distance of taps."""

    index: int
    weight: Tensor
    first: int
    low: Ints
    high: Ints
    dilation: Ints

    @property
    def count(self) -> int:
        """Its channels."""
        return self.weight.shape[0]

    def padded(self, x: Tensor) -> Tensor:
        """What the branch reads of x."""
        ends = [side for pair in reversed(list(zip(self.low, self.high, strict=True))) for side in pair]
        return F.pad(_wide(x.narrow(1, self.first, self.count)), ends)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize == 2 else tensor


def _parts(weights: Sequence[Tensor], statics: Statics, channels: int) -> Iterator[_Part]:
    low, dilation, form, _ = statics
    first = channels - sum(weight.shape[0] for weight in weights) if form == "split" else 0
    rank = weights[0].dim() - 2
    for index, weight in enumerate(weights):
        axes = slice(index * rank, (index + 1) * rank)
        before, steps = low[axes], dilation[axes]
        sizes = zip(weight.shape[2:], before, steps, strict=True)
        high = [d * (k - 1) - lo for k, lo, d in sizes]
        yield _Part(index, _wide(weight), first, before, high, steps)
        first += weight.shape[0] if form == "split" else 0


def _part_of(grads: Sequence[Tensor], part: _Part, form: str) -> Tensor:
    """The upstream gradient of a branch."""
    grad = grads[part.index if form == "each" else 0]
    return _wide(grad.narrow(1, part.first, part.count)).contiguous()


def forward(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], *given: Any) -> list[Tensor]:
    """The result, or the results. No block of zeros is left out."""
    statics = Statics(*given)
    parts = list(_parts(weights, statics, x.shape[1]))
    made = []
    for part in parts:
        bias = biases[part.index]
        wide = None if bias is None else _wide(bias)
        made.append(
            _CONV[x.dim() - 2](part.padded(x), part.weight, wide, 1, 0, tuple(part.dilation), part.count)
        )
    if statics.form == "sum":
        total = made[0]
        for other in made[1:]:
            total = total + other
        made = [total]
    if statics.form == "split":
        return [torch.cat([x.narrow(1, 0, parts[0].first), *(y.to(x.dtype) for y in made)], 1)]
    return [y.to(x.dtype) for y in made]


def forward_with_statistics(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], low: Ints, dilation: Ints, grain: int
) -> list[Tensor]:
    """The results, each by itself, then their :func:`statistics`."""
    maps = forward(x, weights, biases, low, dilation, "each", grain)
    return [*maps, statistics(maps)]


def statistics(maps: Sequence[Tensor]) -> Tensor:
    """Means and biased variances of B maps ``[N, C, ...]``, as ``[2, B, C]`` in the type of sums."""
    axes = [0, *range(2, maps[0].dim())]
    found = [torch.var_mean(_wide(y), axes, correction=0) for y in maps]
    return torch.stack([torch.stack([mean for _, mean in found]), torch.stack([var for var, _ in found])])


def _backward(grad: Tensor, source: Tensor, part: _Part, by_input: bool) -> Tensor:
    rank = len(part.low)
    none = [0] * rank
    found = torch.ops.aten.convolution_backward(
        grad, source, part.weight, None, [1] * rank, none, part.dilation, False, none, part.count,
        [by_input, not by_input, False],
    )  # fmt: skip
    made: Tensor = found[0 if by_input else 1]
    return made


def grad_input(grads: Sequence[Tensor], weights: Sequence[Tensor], *given: Any) -> Tensor:
    """The gradient of x."""
    statics, like = Statics(*given), grads[0]
    total = torch.zeros_like(_wide(like), memory_format=torch.contiguous_format)
    for part in _parts(weights, statics, like.shape[1]):
        grad = _part_of(grads, part, statics.form)
        back = _backward(grad, part.padded(like), part, True)
        for axis, (at, size) in enumerate(zip(part.low, like.shape[2:], strict=True), 2):
            back = back.narrow(axis, at, size)
        total.narrow(1, part.first, part.count).add_(back)
    made = total.to(like.dtype)
    rest = like.shape[1] - sum(weight.shape[0] for weight in weights) if statics.form == "split" else 0
    made.narrow(1, 0, rest).copy_(like.narrow(1, 0, rest))
    return made


def grad_weight(
    grads: Sequence[Tensor], x: Tensor, weights: Sequence[Tensor], bias: bool, *given: Any
) -> list[Tensor]:
    """The gradients of all weights, then of all biases if there are any."""
    statics = Statics(*given)
    parts = list(_parts(weights, statics, x.shape[1]))
    sent = [_part_of(grads, part, statics.form) for part in parts]
    axes = [0, *range(2, x.dim())]
    made = [_backward(grad, part.padded(x), part, False) for grad, part in zip(sent, parts, strict=True)]
    if bias:
        made += [grad.sum(axes) for grad in sent]
    kinds = [weight.dtype for weight in weights] * (2 if bias else 1)
    return [gradient.to(kind) for gradient, kind in zip(made, kinds, strict=True)]
