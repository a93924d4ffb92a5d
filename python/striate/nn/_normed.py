"""BatchNorms behind branches, with the statistics that the branches find while they write their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops import branches as _branches

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def unhooked(module: torch.nn.Module) -> bool:
    """Whether nothing but its forward pass happens when the module is called."""
    return not any(getattr(module, name) for name in _HOOKS)


def normed_branches(
    x: Tensor, branches: Sequence[_branches.Branch], norms: Sequence[Any], grain: int = 0
) -> tuple[Tensor, ...]:
    """What every norm makes of the result of its branch; None leaves it as it is.

    BatchNorms in training take the statistics from the launches that write the results, where these find them, and
    keep count as they do alone: the same running statistics, momentum None included. Modules of another type or with
    hooks, in evaluation or without running statistics are called.
    """
    if not (_branches.finds_statistics(x, branches) and _train(norms, x)):
        maps = _branches.each(x, branches, grain)
        return tuple(y if norm is None else norm(y) for norm, y in zip(norms, maps, strict=True))
    maps, statistics = _branches.each_with_statistics(x, branches, grain)
    _track(norms, statistics, x.numel() // x.shape[1])
    scales = (statistics[1] + norms[0].eps).rsqrt()
    made = []
    for norm, y, mean, variance, scale in zip(norms, maps, *statistics.unbind(), scales, strict=True):
        moments = _branches.Moments(mean, variance, scale, norm.eps)
        made.append(_branches.normalised(y, moments, norm.weight, norm.bias))
    return tuple(made)


def _train(norms: Sequence[Any], x: Tensor) -> bool:
    """Whether they are BatchNorms in training that do what torch's do; fewer than two numbers are its error."""
    return (
        all(_trains(norm, x) for norm in norms)
        and len(set(norms)) == len(norms)
        and len({norm.eps for norm in norms}) == 1
        and x.numel() >= 2 * x.shape[1] > 0
    )


def _trains(norm: Any, x: Tensor) -> bool:
    return (
        type(norm) is torch.nn.BatchNorm2d
        and norm.training
        and norm.track_running_stats
        and norm.running_mean is not None
        and norm.num_features == x.shape[1]
        and norm.running_mean.device == x.device
        and unhooked(norm)
    )


@torch.no_grad()
def _track(norms: Sequence[Any], statistics: Tensor, count: int) -> None:
    """Moves the running statistics as the modules would, in as few launches as they allow."""
    means, variances = statistics.unbind()
    now = [*means.unbind(), *(variances * (count / (count - 1))).unbind()]
    running = [*(norm.running_mean for norm in norms), *(norm.running_var for norm in norms)]
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    shares = [1.0 / float(n.num_batches_tracked) if n.momentum is None else n.momentum for n in norms] * 2
    # Those of half types, which move in the type of sums, are copies here; the others are themselves.
    wide = [tensor.to(statistics.dtype) for tensor in running]
    for share in dict.fromkeys(shares):
        chosen = [index for index, other in enumerate(shares) if other == share]
        torch._foreach_lerp_([wide[index] for index in chosen], [now[index] for index in chosen], share)
    for tensor, moved in zip(running, wide, strict=True):
        tensor.copy_(moved)
