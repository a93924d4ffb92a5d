"""From the arguments of a public function to a plan: validation, normalisation and the choice raw op or torch.

A plan depends on metadata only (shapes, dtypes, devices, plain integers), so it is resolved once per distinct call
and remembered; the validation below costs nothing on the second call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from .._problem import DTYPE_WORDS, config, conv_line, pad_pairs, read_config
from . import _cuda, _long, _sliding
from ._torch_row import Shape

_CPU = torch.device("cpu")
INT64_MAX = 2**63 - 1
HALVES = (torch.bfloat16, torch.float16)
_UNSUPPORTED = (torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)
_AXIS_WORDS = {1: "1 value", 2: "2 values", 3: "3 values"}


class Tensors(NamedTuple):
    """Metadata of one tensor argument."""

    shape: Sequence[int]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, eq=False)
class Call:
    """Which public function was called, with which rank; compared by identity, which hashes fastest."""

    name: str
    rank: int
    kind: str
    """``conv``, ``transpose`` or ``depthwise``"""
    axes: int = field(init=False)
    """axes of a batched input"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", self.rank + 2)


class Plan(NamedTuple):
    """What to run."""

    raw: bool
    dense: bool
    """several channels per group, for sliding kernels: worth it for contiguous input outside autocast"""
    config: str
    """the last argument of the raw op when ``raw``"""
    batched: bool
    lift: bool
    """the weight came without its unit channel axis, which only torch needs"""
    groups: int
    why: str
    """for the row ``torch``: the reason"""
    torch_shape: Shape
    """the call as the row ``torch`` sees it"""
    direct: str
    """for raw calls: why sums and not transforms"""


def resolve(
    call: Call,
    input: Tensors,
    weight: Tensors,
    bias: Tensors | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    output_padding: Any,
) -> Plan:
    """Validate a call and plan it; raises what torch raises for the same mistake."""
    rank = call.rank
    _check_ranks(call, input, weight)
    stride = _ints(call, "stride", stride, rank, minimum=1)
    dilation = _ints(call, "dilation", dilation, rank, minimum=1)
    output_padding = _ints(call, "output_padding", output_padding, rank, minimum=0)
    lift = call.kind == "depthwise" and len(weight.shape) == rank + 1
    batched = len(input.shape) == rank + 2
    channels = input.shape[1 if batched else 0]
    groups = _groups(call, channels if call.kind == "depthwise" else groups)
    kernel = tuple(weight.shape[1 if lift else 2 :])
    _check_channels(call, input, weight, channels, groups, lift)
    _check_bias(call, weight, bias, groups)
    _check_types(call, input, weight, bias)
    pads = _padding(call, padding, kernel, stride, dilation)
    size = tuple(input.shape[-rank:])
    _check_sizes(call, size, kernel, stride, pads, dilation, output_padding)
    shape = _torch_shape(call, size, weight, groups, (kernel, stride, pads, dilation, output_padding))
    dense = not lift and weight.shape[1] != 1
    why = _torch_reason(call, input, weight, channels)
    if dense and not why:
        each = shape.channels[::-1] if call.kind == "transpose" else shape.channels
        refused = _sliding.refusal(each, groups, kernel, (stride, dilation), input.dtype, shape.out)
        why = f"not depthwise: {refused}" if refused else ""
    if why:
        return Plan(False, False, "", batched, lift, groups, why, shape, "")
    direct = "several channels per group" if dense else ""
    direct = direct or _long.refusal(
        call.kind, (kernel, stride, dilation), shape.padding, input.dtype, (size, weight.shape[0])
    )
    extra = None
    if call.kind == "transpose":
        pads, extra = _fold_output_padding(stride, pads, output_padding)
    made = config(stride, pads, dilation, None if call.kind == "depthwise" else groups, extra)
    text = str(made._replace(tf32=_cuda.tf32(input.device, input.dtype)))
    return Plan(True, dense, text, batched, lift, groups, "", shape, direct)


@functools.lru_cache(maxsize=1024, typed=True)
def config_of_options(call: Call, stride: Any, padding: Any, dilation: Any, groups: Any) -> str:
    """The configuration of a depthwise convolution where the options tell it all, else an empty string.

    No shape is looked at: the raw operator refuses what does not fit, and ``resolve`` explains that afterwards.
    """
    if call.kind == "transpose" or isinstance(padding, str) or groups == 1:
        return ""
    lists = [("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)]
    steps, pads, spread = (_ints(call, name, value, call.rank, least) for name, value, least in lists)
    return str(config(steps, pads, spread, None if call.kind == "depthwise" else _groups(call, groups)))


@functools.lru_cache(maxsize=4096, typed=True)
def remembered(
    call: Call,
    input: Any,
    input_dtype: Any,
    weight: Any,
    weight_dtype: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    output_padding: Any,
) -> Plan:
    """``resolve`` for CPU tensors, behind a memo of bounded size; input and weight are shapes."""
    return resolve(
        call,
        Tensors(input, input_dtype, _CPU),
        Tensors(weight, weight_dtype, _CPU),
        None if bias is None else Tensors(*bias),
        stride,
        padding,
        dilation,
        groups,
        output_padding,
    )


def _is_int(value: Any) -> bool:
    if isinstance(value, (int, torch.SymInt)):
        return not isinstance(value, bool)
    return isinstance(value, torch.Tensor) and value.dim() == 0 and not value.is_floating_point()


def _ints(call: Call, name: str, value: Any, rank: int, minimum: int) -> tuple[int, ...]:
    values = (value,) if _is_int(value) else value
    if not isinstance(values, (tuple, list)) or not all(_is_int(v) for v in values):
        raise TypeError(f"{call.name}: {name} must be an int or a tuple of {rank} ints, not {value!r}")
    if len(values) not in (1, rank):
        raise RuntimeError(
            f"{call.name}: expected {name} to be a single integer value or a list of {_AXIS_WORDS[rank]}, "
            f"but got {name}={list(values)}"
        )
    values = tuple(v if isinstance(v, torch.SymInt) else int(v) for v in values)
    for v in values:
        if v > INT64_MAX:
            raise ValueError(f"{call.name}: {name} must fit in 64 bits, but got {name}={v}")
        if v < minimum:
            word = "negative" if minimum == 0 else "non-positive"
            raise RuntimeError(f"{call.name}: {word} {name} is not supported, but got {name}={list(values)}")
    return values if len(values) == rank else values * rank


def _groups(call: Call, groups: Any) -> int:
    if not _is_int(groups):
        raise TypeError(f"{call.name}: groups must be an int, not {groups!r}")
    if groups > INT64_MAX:
        raise ValueError(f"{call.name}: groups must fit in 64 bits, but got groups={groups}")
    if groups <= 0:
        raise RuntimeError(f"{call.name}: non-positive groups is not supported, but got groups={groups}")
    return groups if isinstance(groups, torch.SymInt) else int(groups)  # type: ignore[return-value]


def _check_ranks(call: Call, input: Tensors, weight: Tensors) -> None:
    rank = call.rank
    if len(input.shape) not in (rank + 1, rank + 2):
        raise RuntimeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {call.name}, "
            f"but got input of size: {list(input.shape)}"
        )
    allowed = (rank + 1, rank + 2) if call.kind == "depthwise" else (rank + 2,)
    if len(weight.shape) not in allowed:
        words = " or ".join(f"{n}D" for n in allowed)
        raise RuntimeError(
            f"Expected {words} weight for {call.name}, but got weight of size: {list(weight.shape)}"
        )


def _check_channels(
    call: Call, input: Tensors, weight: Tensors, channels: int, groups: int, lift: bool
) -> None:
    shape = list(weight.shape)
    if weight.shape[0] < groups:
        raise RuntimeError(
            f"{call.name}: given groups={groups}, expected weight to be at least {groups} at dimension 0, "
            f"but got weight of size {shape}"
        )
    if weight.shape[0] % groups != 0:
        raise RuntimeError(
            f"{call.name}: given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {shape}"
        )
    if call.kind == "transpose":
        expected = weight.shape[0]
        if weight.shape[1] == 0:
            raise RuntimeError(
                f"{call.name}: expected weight to have output channels at dimension 1, but got weight of size {shape}"
            )
    else:
        expected = groups if lift else weight.shape[1] * groups
    if channels != expected:
        raise RuntimeError(
            f"{call.name}: given groups={groups} and weight of size {shape}, expected input "
            f"{list(input.shape)} to have {expected} channels, but got {channels} channels"
        )


def _check_bias(call: Call, weight: Tensors, bias: Tensors | None, groups: int) -> None:
    if bias is None:
        return
    expected = weight.shape[1] * groups if call.kind == "transpose" else weight.shape[0]
    if len(bias.shape) != 1 or bias.shape[0] != expected:
        raise RuntimeError(
            f"{call.name}: given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with "
            f"{expected} elements, but got bias of size {list(bias.shape)}"
        )


def _check_types(call: Call, input: Tensors, weight: Tensors, bias: Tensors | None) -> None:
    for name, tensor in (("input", input), ("weight", weight), ("bias", bias)):
        if tensor is not None and not isinstance(tensor.dtype, torch.dtype):
            raise TypeError(f"{call.name}: {name} must be a Tensor, not an array of {tensor.dtype}")
    if input.dtype in _UNSUPPORTED:
        raise NotImplementedError(
            f"{call.name}: input must be float32, float64, bfloat16, float16, complex or integer, "
            f"but got {input.dtype}"
        )
    wide = input.dtype in HALVES and weight.dtype == torch.float32
    if weight.dtype != input.dtype and not wide:
        raise RuntimeError(
            f"{call.name}: expected weight to have the dtype of input (or float32 beside half input), "
            f"but got input {input.dtype} and weight {weight.dtype}"
        )
    if bias is not None and bias.dtype != weight.dtype:
        raise RuntimeError(
            f"{call.name}: expected bias to have the dtype of weight, "
            f"but got weight {weight.dtype} and bias {bias.dtype}"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(
                f"{call.name}: expected {name} on the device of input, "
                f"but got input on {input.device} and {name} on {tensor.device}"
            )


def _padding(
    call: Call, padding: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """One entry per axis, or lo and hi per axis where they differ."""
    if isinstance(padding, str) and call.kind != "transpose":
        if padding == "valid":
            return (0,) * call.rank
        if padding != "same":
            raise RuntimeError(
                f"{call.name}: padding must be 'same', 'valid' or ints, but got padding={padding!r}"
            )
        if any(s != 1 for s in stride):
            raise RuntimeError(
                f"{call.name}: padding='same' is not supported for strided convolutions, "
                f"but got stride={list(stride)}"
            )
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if all(t % 2 == 0 for t in totals):
            return tuple(t // 2 for t in totals)
        return tuple(side for t in totals for side in (t // 2, t - t // 2))
    return _ints(call, "padding", padding, call.rank, minimum=0)


def _check_sizes(
    call: Call,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> None:
    if torch.compiler.is_dynamo_compiling() or not all(type(v) is int for v in (*size, *kernel)):
        return  # symbolic: the fake kernel states the condition without specialising
    for i in size:
        if i == 0:
            raise RuntimeError(
                f"{call.name}: only zero batch or zero channel inputs are supported, "
                f"but got input with spatial size {list(size)}"
            )
    if 0 in kernel:
        raise RuntimeError(f"{call.name}: kernel sizes must be positive, but got kernel {list(kernel)}")
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = pad_pairs(padding, call.rank)
    if call.kind == "transpose":
        _check_transposed(call, size, reach, stride, pads, dilation, output_padding)
        return
    padded = [i + lo + hi for i, (lo, hi) in zip(size, pads, strict=True)]
    if max(padded) > INT64_MAX // 16 or math.prod(padded) > INT64_MAX // 16:
        raise RuntimeError(
            f"{call.name}: the padded input {padded} is too large; got padding={list(padding)}"
        )
    if any(r > i for r, i in zip(reach, padded, strict=True)):
        raise RuntimeError(
            f"{call.name}: calculated padded input size per channel: {padded}, kernel size: {reach}; "
            "kernel size can't be greater than actual input size"
        )


def _check_transposed(
    call: Call,
    size: Sequence[int],
    reach: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> None:
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise RuntimeError(
            f"{call.name}: output_padding must be smaller than either stride or dilation, but got "
            f"output_padding={list(output_padding)}, stride={list(stride)}, dilation={list(dilation)}"
        )
    out = [
        (i - 1) * s - lo - hi + r + o
        for i, s, (lo, hi), r, o in zip(size, stride, pads, reach, output_padding, strict=True)
    ]
    if any(o < 0 for o in out):
        raise RuntimeError(
            f"{call.name}: the output would have the negative size {out}; got padding={[lo for lo, _ in pads]}"
        )
    if max(out) > INT64_MAX // 16 or math.prod(out) > INT64_MAX // 16:
        raise RuntimeError(f"{call.name}: the output size {out} is too large; got stride={list(stride)}")


def _torch_reason(call: Call, input: Tensors, weight: Tensors, channels: int) -> str:
    """Why the row ``torch`` is the right one, or an empty string."""
    if input.device.type == "cuda":
        refused = _cuda.refusal(len(weight.shape) > call.rank + 1 and weight.shape[1] != 1)
        if refused:
            return refused
    elif input.device.type not in ("cpu", "meta"):
        return f"device {input.device.type}"
    if input.dtype not in DTYPE_WORDS:
        return f"dtype {input.dtype}"
    if channels == 0:
        return "no input channels"
    return ""


def _torch_shape(
    call: Call, size: tuple[int, ...], weight: Tensors, groups: int, axes: tuple[tuple[int, ...], ...]
) -> Shape:
    kernel, stride, padding, dilation, extra = axes
    pads = pad_pairs(padding, call.rank)
    lift = len(weight.shape) == call.rank + 1
    channels = (1 if lift else weight.shape[1], weight.shape[0] // groups)
    if call.kind == "transpose":
        big = tuple(
            (o - 1) * s - lo - hi + d * (k - 1) + 1 + e
            for o, s, (lo, hi), d, k, e in zip(size, stride, pads, dilation, kernel, extra, strict=True)
        )
        small = size
    else:
        big = size
        small = tuple(
            (i + lo + hi - d * (k - 1) - 1) // s + 1
            for i, s, (lo, hi), d, k in zip(size, stride, pads, dilation, kernel, strict=True)
        )
    return Shape(call.kind, call.rank, big, small, kernel, stride, pads, dilation, channels)


def _fold_output_padding(
    stride: tuple[int, ...], padding: tuple[int, ...], output_padding: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bring output_padding below the stride: whole strides of it are a smaller (even negative) upper padding.

    The result has the same size, and the gradient of the raw op then finds exactly the positions of its input.
    """
    if all(o < s for o, s in zip(output_padding, stride, strict=True)):
        return padding, output_padding
    rest = tuple(o % s for o, s in zip(output_padding, stride, strict=True))
    pads = tuple(
        side
        for (lo, hi), o, r in zip(pad_pairs(padding, len(stride)), output_padding, rest, strict=True)
        for side in (lo, hi - (o - r))
    )
    return pads, rest


def problem_line(call: Call, plan: Plan, input: torch.Tensor, weight: torch.Tensor, layout: str) -> str:
    """The problem line of a planned raw call."""
    size = tuple(input.shape[-call.rank :])
    batch = input.shape[0] if plan.batched else 1
    kernel = tuple(weight.shape[-call.rank :])
    c_in, c_out = weight.shape[1] if plan.dense else 1, weight.shape[0] // plan.groups
    settings = read_config(plan.config)
    stride, dilation = settings.stride, settings.dilation
    if settings.output_padding is not None:
        size = tuple(
            (o - 1) * s - lo - hi + d * (k - 1) + 1 + e
            for o, s, (lo, hi), d, k, e in zip(
                size, stride, settings.padding, dilation, kernel, settings.output_padding, strict=True
            )
        )
    line = conv_line(
        "dx" if call.kind == "transpose" else "fwd",
        (input.dtype, weight.dtype),
        (layout, input.device.type),
        (batch, plan.groups, c_in, c_out),
        (size, kernel, stride, dilation, [side for pair in settings.padding for side in pair]),
    )
    return line + " tf32" * settings.tf32
