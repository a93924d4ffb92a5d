"""Problems, and the ways in which a tensor may lie in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import striate
from oracle import Convolution, integers
from raw import settings
from striate import _core
from striate._problem import conv_line, layout_word
from striate.ops import _convolution

F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16
DTYPES = [(F32, F32), (F64, F64), (BF16, BF16), (F16, F16), (BF16, F32), (F16, F32)]


def host_rows(op: str) -> list[Any]:
    """The rows of an operation, or of several by a pattern, that run on this processor."""
    return [
        row
        for row in striate.kernels()
        if row["device"] == "cpu" and row["available"] and re.fullmatch(op, row["op"])
    ]


ROWS = [row["name"] for row in host_rows("conv")]
# The passes that a row takes; other rows take what it refuses.
PASSES = {row["name"]: row["passes"] for row in host_rows("conv")}
# Around the edges of vectors (8, 16, 32 and their halves) and of tiles.
EDGES = [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 56, 64, 65, 127, 129]


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution, or with several ``inputs`` a grouped one; one entry per axis, pads as (low, high)."""

    batch: int
    channels: int
    """groups"""
    multiplier: int
    """output channels per group"""
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dtypes: tuple[torch.dtype, torch.dtype] = (F32, F32)
    inputs: int = 1
    """input channels per group"""

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def outputs(self) -> tuple[int, ...]:
        axes = zip(self.size, self.kernel, self.stride, self.dilation, self.padding, strict=True)
        return tuple((i + sum(p) - d * (k - 1) - 1) // s + 1 for i, k, s, d, p in axes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels * self.inputs, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.channels * self.multiplier, self.inputs, *self.kernel)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels * self.multiplier, *self.outputs)

    @property
    def terms(self) -> dict[str, int]:
        """Products per sum, and one for the bias."""
        taps, positions = prod(self.kernel), self.batch * prod(self.outputs)
        return {"fwd": taps * self.inputs + 1, "dx": taps * self.multiplier, "dw": max(1, positions)}

    @property
    def exact(self) -> Convolution:
        return Convolution(self.stride, self.padding, self.dilation, self.channels)

    def line(self, pass_: str, layout: str = "nchw") -> str:
        wide = pass_ == "dw" and self.dtypes[0] != self.dtypes[1]
        text = conv_line(
            pass_,
            (self.dtypes[0],) * 2 if wide else self.dtypes,
            (layout, "cpu"),
            (self.batch, self.channels, self.inputs, self.multiplier),
            (self.size, self.kernel, self.stride, self.dilation, [p for pair in self.padding for p in pair]),
        )
        return text + " wide" if wide else text

    def __str__(self) -> str:
        return self.line("fwd")

    def run(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """Through the public function where it can say these pads, else through the family that it calls.

        Several inputs per group always take the second way, for the public function may prefer torch.
        """
        if self.inputs == 1 and all(low == high >= 0 for low, high in self.padding):
            pads = tuple(low for low, _ in self.padding)
            public = getattr(striate, f"conv{self.rank}d")
            return public(x, w, bias, self.stride, pads, self.dilation, self.channels)
        pads = tuple(pad for pair in self.padding for pad in pair)
        return _convolution.conv(x, w, bias, settings(self.stride, pads, self.dilation, self.channels))

    def operands(self, fill: Callable[..., Tensor] = integers, seed: int = 0) -> tuple[Tensor, ...]:
        """Input, weight, bias and upstream gradient."""
        activation, weight = self.dtypes
        terms = max(self.terms.values())
        return (
            fill(self.input_shape, activation, terms, seed),
            fill(self.weight_shape, weight, terms, seed + 1),
            fill(self.weight_shape[:1], weight, terms, seed + 2),
            fill(self.output_shape, activation, terms, seed + 3),
        )

    def gradients(self, x: Tensor, w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Input and weight gradient in float64."""
        return self.exact.grad_input(g, w, self.size), self.exact.grad_weight(g, x, self.kernel)


def normals(shape: tuple[int, ...], dtype: torch.dtype, terms: int, seed: int = 0) -> Tensor:
    """Normal deviates of many magnitudes, so that sums cancel and round."""
    del terms
    generator = torch.Generator().manual_seed(seed)
    scale = torch.randint(-4, 5, shape, generator=generator)
    return torch.ldexp(torch.randn(shape, generator=generator, dtype=F64), scale).to(dtype)


def fitting(problem: Depthwise, row: str) -> Depthwise:
    """The problem as the row takes it: one dimension without strides, or a few groups of several inputs."""
    if row.startswith("slide."):
        axes = ("size", "kernel", "stride", "dilation", "padding")
        line = {name: getattr(problem, name)[-1:] for name in axes} | {"stride": (1,)}
        own = F64 if problem.dtypes[0] == F64 else F32
        return replace(problem, dtypes=(own, own), **line)
    if not row.startswith("sliding"):
        return problem
    return replace(problem, channels=min(problem.channels, 3), inputs=2)


@st.composite
def problems(
    draw: st.DrawFn,
    row: str = "",
    dtypes: list[tuple[torch.dtype, torch.dtype]] = DTYPES,
    least_batch: int = 0,
) -> Depthwise:
    """Problems small enough to check in a few milliseconds, most of them such as ``row`` takes."""
    slides = row.startswith("slide.")
    rank = 1 if slides else draw(st.sampled_from([1, 2, 2, 3]))
    longest = [129, 65, 17][rank - 1]
    axes = [draw(_axis(longest if axis == rank - 1 else min(longest, 33 - 8 * rank))) for axis in range(rank)]
    size, kernel, stride, dilation, padding = zip(*axes, strict=True)
    stride = (1,) if slides else stride
    dense = row.startswith("sliding")
    room = max(1, min(3 if dense else 65, 20_000 // prod(size)))
    return Depthwise(
        draw(st.integers(least_batch, 3)),
        draw(
            st.sampled_from(
                [c for c in EDGES if c <= room and (c > 1 or room == 1 or ".channels." not in row)]
            )
        ),
        draw(st.sampled_from([1, 1, 1, 1, 2] if ".channels." in row else [1, 1, 2, 3])),
        size,
        kernel,
        stride,
        dilation,
        padding,
        draw(st.sampled_from(dtypes)),
        draw(st.integers(2, 4)) if dense else 1,
    )


@st.composite
def _axis(draw: st.DrawFn, longest: int) -> tuple[int, int, int, int, tuple[int, int]]:
    size = draw(st.sampled_from([edge for edge in EDGES if edge <= longest]))
    kernel = draw(st.sampled_from([1, 2, 3, 3, 4, 5, 7, 8, 13, 31 if longest > 40 else 9]))
    stride = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    dilation = draw(st.sampled_from([1, 1, 1, 2, 3]))
    reach = dilation * (kernel - 1) + 1
    low = draw(st.integers(-min(2, size - 1), reach))
    # Whatever the low side lacks, the high side must bring for the kernel to fit at all.
    least = max(reach - size - low, -min(2, size - 1 + min(low, 0)))
    even = draw(st.booleans()) and low >= least
    high = low if even else draw(st.integers(least, max(least, reach)))
    return size, kernel, stride, dilation, (low, high)


def channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


def poisoned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype)


def sliced(t: Tensor) -> Tensor:
    """Every other column, and channels, of a wider tensor of NaN."""
    wide = poisoned((t.shape[0], 2 * t.shape[1] + 1, *t.shape[2:-1], 2 * t.shape[-1] + 3), t.dtype)
    view = wide[:, 1::2, ..., 3::2]
    return view.copy_(t)


def offset(t: Tensor) -> Tensor:
    """Dense, but one element past the alignment of the allocator."""
    buffer = poisoned((t.numel() + 2,), t.dtype)
    return buffer[1:-1].view(t.shape).copy_(t)


def odd_batch(t: Tensor) -> Tensor:
    """Samples that are dense, a step apart that is not their size."""
    if not t.numel():
        return t
    wide = poisoned((t.shape[0], t[:1].numel() + 3), t.dtype)
    return wide[:, 2:-1].unflatten(1, t.shape[1:]).copy_(t)


def transposed(t: Tensor) -> Tensor:
    """Memory in the opposite order of the axes."""
    axes = tuple(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


def expanded(t: Tensor) -> Tensor:
    """One sample and one channel for all: other values, stride 0."""
    return t[:1, :1].expand(t.shape) if t.numel() else t


def overlapping(t: Tensor) -> Tensor:
    """Other values: neighbours along every axis but the last share all elements but one."""
    flat = t.contiguous().flatten()
    return flat.as_strided(t.shape, (1,) * t.dim()) if t.numel() else t


MEMORY: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": Tensor.contiguous,
    "channels-last": channels_last,
    "sliced": sliced,
    "offset": offset,
    "odd batch stride": odd_batch,
    "transposed": transposed,
    "expanded": expanded,
    "overlapping": overlapping,
}
any_way = st.sampled_from(list(MEMORY))


def ways(row: str) -> st.SearchStrategy[str]:
    """Ways in which the tensor that decides the layout may lie, many of them such as ``row`` takes."""
    return st.sampled_from(["channels-last"] * 16 + list(MEMORY)) if ".channels." in row else any_way


@contextmanager
def forced(row: str) -> Iterator[None]:
    """Only this row runs, and what it refuses runs by the definition."""
    _core.set_kernels(f"^({re.escape(row)}|reference)$")
    try:
        yield
    finally:
        _core.set_kernels(None)


def row_of(problem: Depthwise, pass_: str, first: Tensor) -> str:
    """The row that runs this pass, given the tensor that decides its layout."""
    return _core.explain(problem.line(pass_, layout_word(first)))["row"]


def poison_allocator(largest: int = 1 << 16) -> None:
    """Leave NaN in the blocks, of up to so many numbers, that torch's allocator hands out next."""
    held = [poisoned((largest >> shift,), F32) for shift in range(0, 12, 2) for _ in range(2)]
    del held
