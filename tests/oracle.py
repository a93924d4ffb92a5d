"""What is right, and how far rounding may be from it.

A sum of n products in any order, fused or not, is off by at most gamma_(n+2) * (|x| conv |w| + |b|) with
gamma_m = m u / (1 - m u) and u the unit roundoff of the accumulator. Storing the sum narrower adds u_out |y|, and
underflow (n + 2) half subnormals (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). There is no
slack: what exceeds the bound is wrong. Where the sums are integers that the accumulator represents, there is no
rounding either, and results must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SUBNORMAL = {
    torch.float64: 2.0**-1074,
    torch.float32: 2.0**-149,
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-133,
}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums of ``dtype`` are carried."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def gamma(terms: int, unit: float) -> float:
    """Relative error of a sum of ``terms`` rounded operations."""
    if terms * unit >= 1:
        raise ValueError(f"terms: expected fewer than {1 / unit:.0f}, got {terms}")
    return terms * unit / (1 - terms * unit)


def bound(exact: Tensor, magnitude: Tensor, terms: int, dtype: torch.dtype) -> Tensor:
    """Largest error that rounding explains, per element, in float64.

    ``exact`` and ``magnitude`` are the result and the same sums over absolute values (a bias included), both in
    float64; ``terms`` is the number of products per sum; ``dtype`` is what the result is stored in.
    """
    wide = accumulator(dtype)
    limit = gamma(terms + 2, UNIT[wide]) * magnitude + (terms + 2) * SUBNORMAL[wide] / 2
    if dtype != wide:
        # The sum that is rounded for storage is itself off by the first part.
        limit = limit * (1 + UNIT[dtype]) + UNIT[dtype] * exact.abs() + SUBNORMAL[dtype] / 2
    # The reference in float64 rounds as well.
    return 2 * limit if dtype == torch.float64 else limit


@dataclass(frozen=True)
class Convolution:
    """A convolution; ``padding`` holds (low, high) per axis and may be negative."""

    stride: Sequence[int]
    padding: Sequence[tuple[int, int]]
    dilation: Sequence[int]
    groups: int = 1

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """The output in float64."""
        x, w = self._padded(x.double()), w.double()
        zeros = [0] * len(self.stride)
        bias = None if bias is None else bias.double()
        return torch.ops.aten.convolution(
            x, w, bias, self.stride, zeros, self.dilation, False, zeros, self.groups
        )

    def grad_input(self, g: Tensor, w: Tensor, size: Sequence[int]) -> Tensor:
        """The input gradient in float64, for an input of spatial ``size``."""
        x = torch.zeros(g.shape[0], self.groups * w.shape[1], *size, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(self.forward(x, w), x, g.double())[0]

    def grad_weight(self, g: Tensor, x: Tensor, kernel: Sequence[int]) -> Tensor:
        """The weight gradient in float64, for a kernel of size ``kernel``."""
        w = torch.zeros(
            g.shape[1], x.shape[1] // self.groups, *kernel, dtype=torch.float64, requires_grad=True
        )
        return torch.autograd.grad(self.forward(x, w), w, g.double())[0]

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, [pad for pair in reversed(self.padding) for pad in pair])


def integers(shape: Sequence[int], dtype: torch.dtype, terms: int, seed: int = 0) -> Tensor:
    """Random integers whose sums of ``terms`` products the accumulator of ``dtype`` represents exactly.

    A sum in a half type is rounded once, when it is stored: compare with ``exact.to(dtype)``.
    """
    room = 2**53 if accumulator(dtype) == torch.float64 else 2**24
    top = max(1, min(7, math.isqrt(room // max(1, terms))))
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-top, top + 1, tuple(shape), generator=generator).to(dtype)


def stored_exactly(shape: Sequence[int], dtype: torch.dtype, terms: int, seed: int = 0) -> Tensor:
    """Random integers whose sums of ``terms`` products ``dtype`` itself represents exactly; fails if there are none."""
    top = math.isqrt(math.floor(1 / UNIT[dtype]) // max(1, terms))
    if top < 1:
        raise ValueError(
            f"terms: expected at most {1 / UNIT[dtype]:.0f} for exact sums in {dtype}, got {terms}"
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-min(top, 7), min(top, 7) + 1, tuple(shape), generator=generator).to(dtype)


def assert_equal(got: Tensor, exact: Tensor, what: str = "") -> None:
    """Every element equals the float64 result, rounded once."""
    assert got.shape == exact.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(exact.shape)}"
    wrong = got != exact.to(got.dtype)
    if wrong.any():
        first = tuple(int(i) for i in wrong.nonzero()[0])
        count = int(wrong.sum())
        raise AssertionError(
            f"{what}: {count} of {got.numel()} differ, {first}: {got[first]} for {exact[first]}"
        )


def assert_within(got: Tensor, exact: Tensor, magnitude: Tensor, terms: int, what: str = "") -> None:
    """Every element lies within the bound; NaN lies nowhere."""
    assert got.shape == exact.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(exact.shape)}"
    limit, error = bound(exact, magnitude, terms, got.dtype), (got.double() - exact).abs()
    wrong = ~(error <= limit)
    if wrong.any():
        worst = float(torch.nan_to_num(error / limit, nan=torch.inf).max())
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {got.numel()} beyond the bound, worst {worst:.3g} times"
        )
