"""Pooling beside torch's, and beside copying its input: ``max_pool2d fwd f32 nchw cpu n8 c64 i112x112 k3x3``.

Stride 1 and "same" padding, the case that a network uses as a mixer and that torch has no separable kernel for.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

import striate

from ..specs import Spec
from . import Contest, Op, draw, rounding


def _make(spec: Spec) -> Contest:
    batch, channels, size, kernel = spec.one("n"), spec.one("c"), spec["i"], spec["k"]
    rank = int(spec.op[-2])
    if not len(size) == len(kernel) == rank:
        raise ValueError(f"{spec.op}: expected {rank} sizes behind i and k, got {spec.short!r}")
    x = draw(spec, batch, channels, *size)
    settings: tuple[Any, ...] = (kernel, (1,) * rank, tuple(k // 2 for k in kernel))
    ours, theirs = getattr(striate, spec.op), getattr(F, spec.op)
    exact = spec.op.startswith("max") and spec.pass_ == "fwd"
    calls = {
        "striate": lambda x: ours(x, *settings),
        "torch": lambda x: theirs(x, *settings),
        "clone": Tensor.clone,
    }
    limit = 0.0 if exact else rounding(spec, prod(kernel))
    # Joining windows axis by axis takes k - 1 operations for each axis, of which none is a multiplication.
    operations = batch * channels * prod(size) * sum(k - 1 for k in kernel)
    return Contest(calls, (x,), lambda x: theirs(x, *settings), operations // 2, limit)


OPS = {
    f"{mode}_pool{rank}d": Op(("n", "c", "i", "k"), _make) for mode in ("max", "avg") for rank in (1, 2, 3)
}
