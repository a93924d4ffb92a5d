"""Swap the convolutions and pooling layers of a model that striate runs faster, in place."""

from __future__ import annotations

import math
import statistics
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
_POOL_BASES: tuple[Any, ...] = tuple(_POOLS)
_BASES = (torch.nn.modules.conv._ConvNd, *_POOL_BASES)


@dataclass(frozen=True)
class Row:
    """One convolution or pooling layer of the model: what was decided and why."""

    name: str
    shape: str
    row: str
    swapped: bool
    why: str
    gain: float | None = None
    """torch's time over striate's: measured on the sample, or predicted from recorded layers; None without either"""
    measured: bool = False

    @property
    def gain_text(self) -> str:
        """The gain for the table: a prediction is marked by ``~``."""
        return "-" if self.gain is None else f"{'' if self.measured else '~'}{self.gain:.2g}x"


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
        cells = [("layer", "shape", "row", "gain", "")]
        cells += [
            (r.name, r.shape, r.row, r.gain_text, ("swapped: " if r.swapped else "left: ") + r.why)
            for r in self.rows
        ]
        widths = [max(len(line[i]) for line in cells) for i in range(4)]
        lines = [
            "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4]]) for line in cells
        ]
        lines.append(f"{len(self.swapped)} of {len(self.rows)} layers swapped")
        if any(r.gain is not None and not r.measured for r in self.rows):
            lines.append(f"~ predicted for a training step from layers recorded on {RECORDED_ON}")
        return "\n".join(line.rstrip() for line in lines)


def accelerate(model: torch.nn.Module, measure: Any = False, *, sample: Any = None) -> Report:
    """Let striate compute every convolution and pooling layer of ``model`` that it runs faster than torch, in place.

    Only the class of a layer changes: weights, state_dict keys, hooks and references to the layer stay as they are.

    Args:
        model: any module; exact ``torch.nn`` convolutions, max and mean pooling are candidates, subclasses with
            a forward of their own are left alone.
        measure: True times every candidate both ways on the input that it gets from ``sample``, and keeps the
            faster; a forward pass, with the gradients too where the model is in training mode. A sample itself
            means True.
        sample: a tensor, or a tuple of the model's arguments.

    Returns:
        A report that prints as a table of layer, shape, row and gain; ``report.restore()`` undoes the swaps. Without
        measuring the gain is predicted from recorded layers with a kernel of about the same size.

    Raises:
        TypeError: for ``measure=True`` without a sample, or what is neither a truth value nor a sample.
    """
    report, given = Report([]), _sample(measure, sample)
    samples = None if given is None else _record_inputs(model, given)
    for name, module in _layers(model):
        target, why = _candidate(module)
        gain = None if target is None else _predicted(module)
        if target is not None and samples is not None:
            target, why, gain = _measured(module, target, samples.get(module))
        report.rows.append(_row(name, module, (target, why), (gain, samples is not None)))
        if target is not None:
            report._changed.append((module, type(module)))
            module.__class__ = target
    return report


def _sample(measure: Any, sample: Any) -> Any:
    """The arguments to run the model on, or None if nothing is to be measured."""
    if isinstance(measure, (Tensor, tuple, list)):
        if sample is not None:
            raise TypeError(
                "accelerate: measure and sample are both samples, expected measure=True with a sample"
            )
        return measure
    if not isinstance(measure, bool):
        raise TypeError(f"accelerate: measure must be a bool or a sample input, not {type(measure).__name__}")
    if sample is not None and not isinstance(sample, (Tensor, tuple, list)):
        raise TypeError(
            f"accelerate: sample must be a tensor or a tuple of the model's arguments, not {type(sample).__name__}"
        )
    if measure and sample is None:
        raise TypeError(
            "accelerate: measure=True needs sample=..., a tensor or a tuple of the model's arguments"
        )
    return sample if measure else None


# Gains of depthwise layers in a training step (three passes, f32, two threads): torch's time over striate's by taps,
# for each rank, dilated or not; the least where several were recorded. A test compares them with the record.
RECORDED_ON = "AMD EPYC, 2 threads"
RECORDED = {
    (1, False): {4: 7.34, 31: 11.6, 127: 14.7, 1023: 21.2},
    (2, False): {9: 2.42, 49: 4.94, 255: 18.4, 961: 32.0},
    (2, True): {49: 25.2},
    (3, False): {27: 17.3, 343: 39.9},
}


def _predicted(module: Any) -> float | None:
    """The gain of the recorded layer whose kernel is nearest; None for what no record speaks of."""
    if isinstance(module, _POOL_BASES):
        return None
    rank = len(module.kernel_size)
    table = RECORDED.get((rank, any(d != 1 for d in module.dilation)))
    if table is None or module.weight.shape[1] != 1 or module.transposed:
        return None
    taps = math.prod(module.kernel_size)
    return table[min(table, key=lambda known: abs(math.log(known / taps)))]


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
        each = (module.in_channels // module.groups, module.out_channels // module.groups)
        why = refusal(each, module.groups, module.kernel_size, steps, weight.dtype)
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


def _row(name: str, module: Any, choice: tuple[type | None, str], gain: tuple[float | None, bool]) -> Row:
    target, why = choice
    if isinstance(module, _POOL_BASES):
        settings = f"k{_x(module.kernel_size)} s{_x(module.stride)} p{_x(module.padding)}"
        return Row(name, settings, "torch" if target is None else "pool", target is not None, why, *gain)
    shape = f"{module.in_channels}->{module.out_channels} k{'x'.join(map(str, module.kernel_size))}"
    if any(s != 1 for s in module.stride):
        shape += f" s{'x'.join(map(str, module.stride))}"
    if any(d != 1 for d in module.dilation):
        shape += f" d{'x'.join(map(str, module.dilation))}"
    if module.groups != 1:
        shape += f" g{module.groups}"
    row = "torch" if target is None else "depthwise" if module.weight.shape[1] == 1 else "sliding"
    return Row(name, shape, row, target is not None, why, *gain)


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


def _measured(
    module: Any, target: type, args: tuple[Any, ...] | None
) -> tuple[type | None, str, float | None]:
    """The faster class, why, and the measured gain."""
    if args is None:
        return None, "not reached by the sample input", None
    original = type(module)

    def run(kind: type) -> Callable[[], object]:
        def call() -> object:
            module.__class__ = kind
            y = kind.forward(module, *inputs)  # type: ignore[attr-defined]
            return torch.autograd.grad(y, wanted, torch.ones_like(y)) if wanted else y

        return call

    leaves = [p for p in module.parameters(recurse=False) if p.requires_grad] if module.training else []
    inputs = tuple(a.detach().requires_grad_(bool(leaves)) for a in args)
    wanted = [*inputs, *leaves] if leaves else []
    try:
        with torch.set_grad_enabled(bool(wanted)):
            theirs, ours = _in_turns(run(original), run(target))
    finally:
        module.__class__ = original
    why = f"striate {ours * 1e3:.3g} ms, torch {theirs * 1e3:.3g} ms"
    return (target if ours < theirs else None), why, theirs / ours


def _in_turns(*calls: Callable[[], object], rounds: int = 7) -> list[float]:
    """Median seconds of calls that take turns, so that a slow moment of the machine hits all of them."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for times, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]
