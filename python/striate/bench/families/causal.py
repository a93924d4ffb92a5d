"""The short causal convolution with SiLU beside the lines of torch that it replaces, and one step of it.

``causal_conv1d fwd f32 nchw cpu n2 c1536 i2048 k4``, ``causal_conv1d_update fwd f32 nchw cpu n32 c2048 k4``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import striate

from ..specs import Spec
from . import Contest, Op, draw, rounding


def _torch(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.conv1d(x, w.unsqueeze(1), b, padding=w.shape[1] - 1, groups=w.shape[0])
    return F.silu(y[..., : x.shape[2]])


def _striate(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return striate.causal_conv1d(x, w, b, activation="silu")


def _sequence(spec: Spec) -> Contest:
    batch, channels, length, width = (spec.one(letter) for letter in "ncik")
    inputs = (draw(spec, batch, channels, length), draw(spec, channels, width), draw(spec, channels))
    calls: dict[str, Callable[..., Tensor]] = {"striate": _striate, "torch": _torch}
    if spec.pass_ == "fwd":  # a copy has no gradients of weights
        calls["clone"] = lambda x, *_: x.clone()
    macs = channels * batch * sum(min(t + 1, width) for t in range(length))
    terms = batch * length if spec.pass_ != "fwd" else width
    return Contest(calls, inputs, _torch, macs, rounding(spec, terms + 2))


def _update(spec: Spec) -> Contest:
    batch, channels, width = (spec.one(letter) for letter in "nck")
    if spec.pass_ != "fwd":
        raise ValueError(f"{spec.op}: pass: expected fwd, got {spec.pass_}: a step has no gradient")
    inputs = (draw(spec, batch, channels), draw(spec, channels, width), draw(spec, channels))
    past = torch.zeros(batch, channels, width - 1, dtype=spec.dtype, device=spec.device)
    ours, theirs = past.clone(), past.clone()

    def by_striate(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return striate.causal_conv1d_update(x, ours, w, b, activation="silu")

    def by_torch(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        joined = torch.cat([theirs, x.unsqueeze(-1)], -1)
        theirs.copy_(joined[..., 1:])
        return F.silu((joined * w).sum(-1) + b)

    def exact(x: Tensor, w: Tensor, b: Tensor) -> Tensor:  # the first step: nothing came before
        return F.silu(x * w[:, -1] + b)

    calls = {"striate": by_striate, "torch": by_torch}
    return Contest(calls, inputs, exact, batch * channels * width, rounding(spec, width + 2))


OPS = {
    "causal_conv1d": Op(("n", "c", "i", "k"), _sequence),
    "causal_conv1d_update": Op(("n", "c", "k"), _update),
}
