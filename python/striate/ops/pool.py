"""Pooling with torch's own signatures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._listen import leave_to_torch
from .._problem import DTYPE_WORDS, is_channels_last
from . import _composed, _cuda, _pooling
from ._resolve import INT64_MAX

Ints = int | Sequence[int]
_compiling = torch.compiler.is_dynamo_compiling
_functorch_active = torch._C._are_functorch_transforms_active
# How many windows a number is in, on average, from which striate is faster than torch on channels-last maps.
_SHARED, _SHARED_SCATTERED = 6, 12
_WORDS = {1: "one int", 2: "two ints", 3: "three ints"}


@dataclass(frozen=True, eq=False)
class Call:
    """Which public function was called."""

    mode: str
    rank: int

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.mode}_pool{self.rank}d"


CALLS = {(mode, rank): Call(mode, rank) for mode in ("max", "min", "sum", "avg") for rank in (1, 2, 3)}


class Windows(NamedTuple):
    """Validated settings of a call, one entry per axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def _ints(call: Call, name: str, value: Any) -> tuple[int, ...]:
    values = (value,) if _is_int(value) else value
    if not isinstance(values, (tuple, list)) or not all(_is_int(v) for v in values):
        raise TypeError(f"{call.name}: {name} must be an int or a tuple of {call.rank} ints, not {value!r}")
    if len(values) not in (1, call.rank):
        raise RuntimeError(
            f"{call.name}: {name} must either be a single int, or a tuple of {_WORDS[call.rank]}, "
            f"but got {name}={list(values)}"
        )
    for v in values:
        if v > INT64_MAX or v < -INT64_MAX - 1:
            raise ValueError(f"{call.name}: {name} must fit in 64 bits, but got {name}={v}")
    return tuple(values) * (call.rank // len(values))


def _validate(call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any) -> Windows:
    kernel = _ints(call, "kernel_size", kernel)
    stride = kernel if stride is None or stride in ((), []) else _ints(call, "stride", stride)
    padding = _ints(call, "padding", padding)
    dilation = _ints(call, "dilation", dilation)
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"{call.name}: ceil_mode must be a bool, not {ceil_mode!r}")
    for name, values, least in (
        ("kernel_size", kernel, 1),
        ("stride", stride, 1),
        ("dilation", dilation, 1),
        ("padding", padding, 0),
    ):
        if any(v < least for v in values):
            word = "greater than zero" if least else "non-negative"
            raise RuntimeError(f"{call.name}: {name} should be {word}, but got {name}={list(values)}")
    if any(p > k // 2 for p, k in zip(padding, kernel, strict=True)):
        raise RuntimeError(
            f"{call.name}: padding should be at most half of the kernel size, "
            f"but got padding={list(padding)} and kernel_size={list(kernel)}"
        )
    return Windows(kernel, stride, padding, dilation, ceil_mode)


_remembered = functools.lru_cache(maxsize=1024, typed=True)(_validate)


def _windows(call: Call, *settings: Any) -> Windows:
    if _compiling():
        return _validate(call, *settings)
    try:
        return _remembered(call, *settings)
    except TypeError:  # lists and symbolic sizes, and wrong types, which are explained there
        return _validate(call, *settings)


def _pads(call: Call, size: Sequence[int], windows: Windows) -> tuple[int, ...]:
    """Low and high padding per axis; what ``ceil_mode`` adds to the last window is padding too."""
    found: list[int] = []
    for i, k, s, p, d in zip(size, *windows[:4], strict=True):
        reach = d * (k - 1) + 1
        extra = s - 1 if windows.ceil_mode else 0
        out = (i + 2 * p - reach + extra) // s + 1
        if windows.ceil_mode and (out - 1) * s >= i + p:
            out -= 1  # the last window would start in the padding
        if out < 1:
            raise RuntimeError(
                f"{call.name}: calculated output size is too small for input of spatial size {list(size)} "
                f"and windows {windows._asdict()}"
            )
        found += [p, (out - 1) * s + reach - i - p if windows.ceil_mode else p]
    return tuple(found)


def _check_input(call: Call, input: Any) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{call.name}: input must be a Tensor, not {type(input).__name__}")
    rank = call.rank
    if input.dim() not in (rank + 1, rank + 2):
        # avg_pool2d of torch itself raises IndexError for a matrix, for no reason that a caller could know
        raise RuntimeError(
            f"{call.name}: expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input, "
            f"but got input of size: {list(input.shape)}"
        )
    if 0 in input.shape[-rank - 1 :]:
        raise RuntimeError(
            f"{call.name}: only the batch may be of size 0, but got input of size: {list(input.shape)}"
        )


def _run(call: Call, input: Tensor, windows: Windows, counting: tuple[bool, int] = (True, 0)) -> Tensor:
    """``counting``: whether padding counts in an average, and the divisor that overrides it unless 0."""
    statics = _statics(call, input, windows, counting)
    if input.dim() == call.rank + 2:
        return _pooling.pool(input, *statics)
    return _pooling.pool(input.unsqueeze(0), *statics).squeeze(0)


def _statics(call: Call, input: Tensor, windows: Windows, counting: tuple[bool, int]) -> tuple[Any, ...]:
    kernel, stride, padding, dilation, _ = windows
    pads = _pads(call, input.shape[-call.rank :], windows)
    ring = padding if counting[0] else (0,) * call.rank
    return (call.mode, kernel, stride, pads, dilation, ring, counting[1])


def _torch_reason(call: Call, input: Tensor, windows: Windows) -> str:
    """Why torch's own function is the right one, or nothing."""
    if input.device.type not in ("cpu", "cuda", "meta"):
        return f"device {input.device.type}"
    if input.is_cuda and (why := _cuda.refusal(dense=False)):
        return why
    if input.dtype not in DTYPE_WORDS:
        return f"dtype {input.dtype}"
    if _compiling() and _functorch_active():
        return "a transform inside a trace"
    # Channels last, torch's vectors run along the channels too; there sliding sums win by what windows share. A
    # gradient of extremes shares less. Measured: docs/ops/pool.md.
    rival = (
        not input.is_cuda
        and call.rank == 2
        and call.mode in ("max", "avg")
        and all(d == 1 for d in windows.dilation)
    )
    if rival and input.dim() == 4 and is_channels_last(input):
        scattered = call.mode == "max" and input.requires_grad and torch.is_grad_enabled()
        shared = math.prod(windows.kernel) / math.prod(windows.stride)
        if shared < (_SHARED_SCATTERED if scattered else _SHARED):
            return f"channels last, {shared:.3g} windows to a number"
    return ""


def _extreme(call: Call, input: Tensor, settings: tuple[Any, ...], return_indices: Any) -> Any:
    _check_input(call, input)
    windows = _windows(call, *settings)
    if not isinstance(return_indices, bool):
        raise TypeError(f"{call.name}: return_indices must be a bool, not {return_indices!r}")
    if why := _torch_reason(call, input, windows):
        leave_to_torch(why)
        return _torch_extreme(call, input, windows, return_indices)
    values = _run(call, input, windows)
    if not return_indices:
        return values
    statics = _statics(call, input, windows, (True, 0))
    if input.dim() == call.rank + 2:
        return values, _pooling.argmax(input.detach(), True, *statics)
    return values, _pooling.argmax(input.detach().unsqueeze(0), True, *statics).squeeze(0)


def _torch_extreme(call: Call, input: Tensor, windows: Windows, return_indices: bool) -> Any:
    function = getattr(F, f"max_pool{call.rank}d")
    sign = -1 if call.mode == "min" else 1
    found = function(input if sign > 0 else -input, *windows, return_indices)
    if sign > 0:
        return found
    return (-found[0], found[1]) if return_indices else -found


def _torch_total(call: Call, input: Tensor, windows: Windows, counting: tuple[bool, int]) -> Tensor:
    kernel, stride, padding, dilation, ceil_mode = windows
    if any(d != 1 for d in dilation):
        if input.dtype not in DTYPE_WORDS:
            raise NotImplementedError(
                f"{call.name}: dilation is only supported for floating tensors, but got "
                f"dilation={list(dilation)} and {input.dtype}"
            )
        statics = _statics(call, input, windows, counting)
        if input.dim() == call.rank + 2:
            return _composed.pool(input, *statics)
        return _composed.pool(input.unsqueeze(0), *statics).squeeze(0)
    include, divisor = counting
    if call.mode == "sum":
        divisor = 1
    if call.rank == 1 and divisor:
        pooled = F.avg_pool2d(
            input.unsqueeze(-2), (1, *kernel), (1, *stride), (0, *padding), ceil_mode, include, divisor
        )
        return pooled.squeeze(-2)
    function: Callable[..., Tensor] = getattr(F, f"avg_pool{call.rank}d")
    trailing = (divisor or None,) if call.rank > 1 else ()
    return function(input, kernel, stride, padding, ceil_mode, include, *trailing)


def _total(call: Call, input: Tensor, settings: tuple[Any, ...], include: Any, divisor: Any) -> Tensor:
    _check_input(call, input)
    windows = _windows(call, *settings)
    if not isinstance(include, bool):
        raise TypeError(f"{call.name}: count_include_pad must be a bool, not {include!r}")
    if divisor is not None and not _is_int(divisor):
        raise TypeError(f"{call.name}: divisor_override must be an int or None, not {divisor!r}")
    if divisor == 0:
        raise RuntimeError(f"{call.name}: divisor_override must be not zero, but got divisor_override=0")
    counting = (include, divisor or 0)
    if why := _torch_reason(call, input, windows):
        leave_to_torch(why)
        return _torch_total(call, input, windows, counting)
    return _run(call, input, windows, counting)


def max_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of the last axis; the arguments of :func:`torch.nn.functional.max_pool1d`.

    Args:
        input: ``[N, C, L]`` or ``[C, L]``, contiguous or channels-last; float32, float64, bfloat16 or float16 (other
            types and devices go to torch).
        kernel_size, stride, padding, dilation, ceil_mode: as in torch; no stride means ``kernel_size``.
        return_indices: also return where in the input's plane each maximum stands.

    Returns:
        ``[N, C, L_out]`` in the memory order of input, and the int64 indices where they are asked for. The first of
        equals counts; a window that holds NaN gives NaN, the last one's index.
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _extreme(CALLS["max", 1], input, settings, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """2-D form of :func:`max_pool1d`; the arguments of :func:`torch.nn.functional.max_pool2d`."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _extreme(CALLS["max", 2], input, settings, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """3-D form of :func:`max_pool1d`; the arguments of :func:`torch.nn.functional.max_pool3d`."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _extreme(CALLS["max", 3], input, settings, return_indices)


def min_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The minimum where :func:`max_pool1d` takes the maximum."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _extreme(CALLS["min", 1], input, settings, return_indices)


def min_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The minimum where :func:`max_pool2d` takes the maximum."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _extreme(CALLS["min", 2], input, settings, return_indices)


def min_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The minimum where :func:`max_pool3d` takes the maximum."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _extreme(CALLS["min", 3], input, settings, return_indices)


def sum_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Sum over windows of the last axis, with padding that counts as zero; otherwise as :func:`max_pool1d`.

    Sums are carried in float32 (float64 for float64) and rounded once.
    """
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _total(CALLS["sum", 1], input, settings, True, None)


def sum_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """2-D form of :func:`sum_pool1d`."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _total(CALLS["sum", 2], input, settings, True, None)


def sum_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """3-D form of :func:`sum_pool1d`."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return _total(CALLS["sum", 3], input, settings, True, None)


def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean over windows of the last axis; the arguments of :func:`torch.nn.functional.avg_pool1d`.

    Tensors and errors as in :func:`max_pool1d`. ``count_include_pad`` says whether padding counts in the divisor.
    """
    settings = (kernel_size, stride, padding, 1, ceil_mode)
    return _total(CALLS["avg", 1], input, settings, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """2-D form of :func:`avg_pool1d`, where ``divisor_override`` replaces the number of positions."""
    settings = (kernel_size, stride, padding, 1, ceil_mode)
    return _total(CALLS["avg", 2], input, settings, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """3-D form of :func:`avg_pool1d`, where ``divisor_override`` replaces the number of positions."""
    settings = (kernel_size, stride, padding, 1, ceil_mode)
    return _total(CALLS["avg", 3], input, settings, count_include_pad, divisor_override)
