"""Swap the convolutions and pooling layers of a model that striate runs faster, in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..ops._sliding import refusal
from . import conv, pool

_POOLS: dict[type, type] = {
    getattr(torch.nn, name): getattr(pool, name)
    for name in ("MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d")
}
_SWAPS: dict[type, type] = _POOLS | {
    getattr(torch.nn, name): getattr(conv, name)
    for name in ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
}
_OURS = frozenset(_SWAPS.values())
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_POOL_BASES = tuple(_POOLS)
_BASES = (torch.nn.modules.conv._ConvNd, *_POOL_BASES)


@dataclass(frozen=True)
class Row:
    """One convolution or pooling layer of the model: what was decided and why."""

    name: str
    shape: str
    row: str
    swapped: bool
    why: str


@dataclass
class Report:
    """What :func:`accelerate` did; prints as a table."""

    rows: list[Row]
    _changed: list[tuple[torch.nn.Module, type]] = field(default_factory=list, repr=False)

    @property
    def swapped(self) -> list[Row]:
        """The rows of the layers that striate now computes."""
        return [row for row in self.rows if row.swapped]

    def restore(self) -> None:
        """Undo every swap."""
        for module, original in self._changed:
            module.__class__ = original
        self._changed.clear()

    def __str__(self) -> str:
        if not self.rows:
            return "no convolutions or pooling layers found"
        cells = [("layer", "shape", "row", "")]
        cells += [
            (r.name, r.shape, r.row, ("swapped: " if r.swapped else "left: ") + r.why) for r in self.rows
        ]
        widths = [max(len(line[i]) for line in cells) for i in range(3)]
        lines = [
            "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[3]]) for line in cells
        ]
        lines.append(f"{len(self.swapped)} of {len(self.rows)} layers swapped")
        return "\n".join(line.rstrip() for line in lines)


def accelerate(model: torch.nn.Module, measure: Any = False) -> Report:
    """Let striate compute every convolution and pooling layer of ``model`` that it runs faster than torch, in place.

    Only the class of a layer changes: weights, state_dict keys, hooks and references to the layer stay as they are.
    Pooling layers are swapped whatever their input, although torch trains max pooling on channels-last tensors as fast
    or faster.

    Args:
        model: any module; exact ``torch.nn`` convolutions, max and mean pooling are candidates, subclasses with
            a forward of their own are left alone.
        measure: a sample input of the model (a tensor, or a tuple of its arguments): every candidate is then timed
            both ways on the inputs that it gets, and the faster is kept.

    Returns:
        A report that prints as a table; ``report.restore()`` undoes the swaps.
    """
    report = Report([])
    samples = _record_inputs(model, measure) if _is_sample(measure) else None
    for name, module in _layers(model):
        target, why = _candidate(module)
        if target is not None and samples is not None:
            target, why = _measured(module, target, samples.get(module))
        report.rows.append(_row(name, module, target, why))
        if target is not None:
            report._changed.append((module, type(module)))
            module.__class__ = target
    return report


def _is_sample(measure: Any) -> bool:
    return isinstance(measure, (Tensor, tuple, list))


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, _BASES):
            yield name or "(model)", module


def _candidate(module: Any) -> tuple[type | None, str]:
    """The class to swap in, or None; and why."""
    kind = type(module)
    if kind in _OURS:
        return None, "already striate"
    target = _SWAPS.get(kind)
    if target is None:
        target = _plain_subclass(kind)
        if target is None:
            return None, f"{kind.__name__} has its own forward"
    if isinstance(module, _POOL_BASES):
        return target, "short windows in one pass, long ones by doubling"
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or isinstance(weight, torch.nn.parameter.UninitializedParameter):
        return None, "no plain weight tensor"
    if weight.device.type != "cpu":
        return None, f"device {weight.device.type}"
    if weight.dtype not in _FLOATS:
        return None, f"dtype {weight.dtype}"
    if weight.shape[1] != 1:
        steps = (module.stride, module.dilation)
        why = refusal(module.out_channels, module.groups, module.kernel_size, steps, weight.dtype)
        return (None, f"not depthwise: {why}") if why else (target, "few channels, sliding windows")
    if module.transposed:
        return target, f"depthwise, multiplier {module.in_channels // module.groups}"
    return target, f"depthwise, multiplier {module.out_channels // module.groups}"


def _plain_subclass(kind: type) -> type | None:
    """A subclass is swapped only where it adds no computation; it keeps its name and its other methods."""
    for base, target in _SWAPS.items():
        if issubclass(kind, base):
            same = kind.forward is base.forward and kind.__call__ is base.__call__  # type: ignore[attr-defined]
            if same and getattr(kind, "_conv_forward", None) is getattr(base, "_conv_forward", None):
                return type(kind.__name__, (target, kind), {"__module__": kind.__module__})
    return None


def _row(name: str, module: Any, target: type | None, why: str) -> Row:
    if isinstance(module, _POOL_BASES):
        settings = f"k{_x(module.kernel_size)} s{_x(module.stride)} p{_x(module.padding)}"
        row = "torch" if target is None else "pool"
        return Row(name, settings, row, target is not None, why)
    shape = f"{module.in_channels}->{module.out_channels} k{'x'.join(map(str, module.kernel_size))}"
    if any(s != 1 for s in module.stride):
        shape += f" s{'x'.join(map(str, module.stride))}"
    if any(d != 1 for d in module.dilation):
        shape += f" d{'x'.join(map(str, module.dilation))}"
    if module.groups != 1:
        shape += f" g{module.groups}"
    row = "torch" if target is None else "depthwise" if module.weight.shape[1] == 1 else "sliding"
    return Row(name, shape, row, target is not None, why)


def _x(value: Any) -> str:
    return str(value) if isinstance(value, int) else "x".join(map(str, value))


def _record_inputs(model: torch.nn.Module, sample: Any) -> dict[Any, tuple[Any, ...]]:
    """The arguments every such layer gets when the model runs on the sample."""
    found: dict[Any, tuple[Any, ...]] = {}

    def remember(module: Any, args: tuple[Any, ...]) -> None:
        found[module] = args

    handles = [module.register_forward_pre_hook(remember) for _, module in _layers(model)]
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model(*((sample,) if isinstance(sample, Tensor) else sample))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return found


def _measured(module: Any, target: type, args: tuple[Any, ...] | None) -> tuple[type | None, str]:
    if args is None:
        return None, "not reached by the sample input"
    original = type(module)
    with torch.no_grad():
        torchs = _best_of(lambda: original.forward(module, *args))
        module.__class__ = target
        try:
            ours = _best_of(lambda: target.forward(module, *args))  # type: ignore[attr-defined]
        finally:
            module.__class__ = original
    why = f"striate {ours * 1e3:.3g} ms, torch {torchs * 1e3:.3g} ms"
    return (target if ours < torchs else None), why


def _best_of(function: Callable[[], Any], repeats: int = 7) -> float:
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
