"""What a call costs when there is nothing to compute: ``conv1d`` of (1, 4, 4) with four filters of two taps."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import striate

from .timing import sample

_CALLS, _ROUNDS = 300, 9
_MODES = ("no grad", "grad forward", "forward + backward")


def _call(conv: Callable[..., Tensor], mode: str) -> Callable[[], Any]:
    x, w, g = torch.ones(1, 4, 4), torch.ones(4, 1, 2), torch.ones(1, 4, 3)
    if mode == "no grad":
        return lambda: conv(x, w, None, 1, 0, 1, 4)
    w.requires_grad_()
    if mode == "grad forward":
        return lambda: conv(x, w, None, 1, 0, 1, 4)
    return lambda: torch.autograd.grad(conv(x, w, None, 1, 0, 1, 4), w, g)


def overhead() -> list[dict[str, Any]]:
    """Seconds per call of striate and torch for each mode, interleaved, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    results = []
    for mode in _MODES:
        calls = {"striate": _call(striate.conv1d, mode), "torch": _call(F.conv1d, mode)}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(_ROUNDS + 1):
            for name, call in calls.items():
                mean = sample(call, _CALLS, together=True)[0]
                if turn:  # the first turn warms up
                    seconds[name].append(mean)
        times = {
            n: {"median": statistics.median(s), "min": min(s), "rounds": len(s)} for n, s in seconds.items()
        }
        results.append({"mode": mode, "threads": 1, "times": times})
    torch.set_num_threads(before)
    return results
