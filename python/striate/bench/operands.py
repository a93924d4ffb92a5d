"""Tensors of a problem, made so that all of a result can be verified at the cost of a few channels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .problems import PASSES, Problem

# Distinct groups of channels. They are coprime to every vector width, so that a kernel which mixes up lanes
# cannot hide behind the repetition.
PERIODS = (11, 7, 5, 3)
VERIFY_MACS = 6_000_000
# Integers up to this magnitude, less where the sums are so long that single precision would have to round.
LARGEST = 7


@dataclass(frozen=True)
class Operands:
    """Input ``x``, weight ``w`` and output gradient ``g`` of a problem, in its layout and dtypes.

    Group ``c`` of each tensor equals group ``c % period``.
    """

    problem: Problem
    x: Tensor
    w: Tensor
    g: Tensor
    period: int

    def first_groups(self) -> Operands:
        """One period of groups in float64, contiguous: what the slow reference computes."""
        problem = self.problem
        small = replace(problem.in_dtype(torch.float64), groups=self.period, layout="nchw", device="cpu")
        shapes = small.shapes
        return Operands(
            small,
            self.x[:, : shapes["x"][1]].cpu().double().contiguous(),
            self.w[: shapes["w"][0]].cpu().double().contiguous(),
            self.g[:, : shapes["g"][1]].cpu().double().contiguous(),
            self.period,
        )

    def copy(self) -> Operands:
        """The same values in memory of their own."""
        return replace(self, x=self.x.clone(), w=self.w.clone(), g=self.g.clone())


def make_operands(problem: Problem, seed: int = 0) -> Operands:
    """Operands of small integers with exact sums; the same seed gives the same values in every process."""
    generator = torch.Generator().manual_seed(seed)
    fits = [p for p in PERIODS if p * problem.macs <= VERIFY_MACS * problem.groups]
    period = min(fits[0] if fits else PERIODS[-1], problem.groups)
    shapes, longest = problem.shapes, max(problem.of(pass_).terms for pass_ in PASSES)
    top = max(1, min(LARGEST, math.isqrt(2**24 // max(1, longest))))

    def draw(name: str, dim: int, dtype: torch.dtype) -> Tensor:
        shape = list(shapes[name])
        shape[dim] = shape[dim] // problem.groups * period
        drawn = torch.randint(-top, top + 1, shape, generator=generator, dtype=torch.int8).to(dtype)
        repeats = [1] * len(shape)
        repeats[dim] = -(-problem.groups // period)
        return drawn.repeat(repeats).narrow(dim, 0, shapes[name][dim]).contiguous()

    x, g = (in_layout(draw(name, 1, problem.dtype), problem.layout) for name in ("x", "g"))
    w = draw("w", 0, problem.weight_dtype)
    x, w, g = (tensor.to(problem.device) for tensor in (x, w, g))
    return Operands(problem, x, w, g, period)


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """Dense copy (or the tensor itself) with channels in place (``nchw``) or innermost (``nhwc``), any rank."""
    if layout == "nchw":
        return tensor.contiguous()
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
