"""What the operators of a :class:`~striate.bench.specs.Spec` are timed against, one small module for each family.

A module has ``OPS``: names of operators with the letters of their sizes and a function from a spec to a
:class:`Contest`. Everything else (passes, verification, bytes, timing) is written once, in ``work.py``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..operands import in_layout
from ..specs import Spec

MODULES = ("pool", "causal", "fft", "dcls", "builders")
# Contenders that compute something else, and stand beside the others for orientation only.
OTHERS = ("clone", "plain")


@dataclass(frozen=True)
class Contest:
    """Functions of the same inputs, what they are held against, and what they cost.

    ``limit`` is the largest error of striate's result that is allowed, in units of the largest element of what
    ``reference`` returns for the inputs in float64; ``macs`` are multiply-adds of one forward pass. A ``layer`` calls
    torch's operators as well, which do not promise the same bits for any number of threads.
    """

    calls: Mapping[str, Callable[..., Any]]
    inputs: tuple[Tensor, ...]
    reference: Callable[..., Any]
    macs: int
    limit: float
    layer: bool = False


@dataclass(frozen=True)
class Op:
    """An operator of a family."""

    letters: tuple[str, ...]
    make: Callable[[Spec], Contest]


def operators() -> dict[str, Op]:
    """Every operator that a line may name, but ``conv``."""
    found: dict[str, Op] = {}
    for module in MODULES:
        found |= import_module(f"{__name__}.{module}").OPS
    return found


def letters(op: str) -> tuple[str, ...]:
    """The letters of an operator's sizes; ValueError for one that no family has."""
    known = operators()
    if op not in known:
        close = difflib.get_close_matches(op, known, 1)
        hint = f" (do you mean {close[0]}?)" if close else ""
        raise ValueError(f"operator: expected conv or one of {', '.join(known)}, got {op!r}{hint}")
    return known[op].letters


def make(spec: Spec) -> Contest:
    """The contest of a spec, on tensors that the same seed makes in every process."""
    torch.manual_seed(0)
    return operators()[spec.op].make(spec)


def draw(spec: Spec, *shape: int, scale: float = 1.0) -> Tensor:
    """Random numbers in the spec's dtype, layout and device."""
    tensor = (scale * torch.randn(*shape)).to(spec.dtype)
    return (in_layout(tensor, spec.layout) if tensor.dim() > 2 else tensor).to(spec.device)


def rounding(spec: Spec, terms: int) -> float:
    """The limit for a sum of so many terms: two roundings for each, and one where the result is stored."""
    wide = torch.float64 if spec.dtype == torch.float64 else torch.float32
    return 2 * terms * torch.finfo(wide).eps + torch.finfo(spec.dtype).eps


def transform(spec: Spec, length: int) -> float:
    """The limit for a convolution by transforms: errors grow with the logarithm, sums of squares with the root."""
    wide = torch.float64 if spec.dtype == torch.float64 else torch.float32
    return 8 * math.log2(2 * length) * torch.finfo(wide).eps + torch.finfo(spec.dtype).eps
