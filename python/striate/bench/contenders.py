"""Everything that is timed against each other: striate's raw operators and the ways torch can do the same.

Each contender is a call without arguments on tensors that exist; whatever a user would do once (choosing a memory
format) is done before, whatever a user would do at every call (padding, slicing) is part of the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _core
from .._problem import config
from ..ops import conv1d, conv2d, conv3d, fft_conv1d, fft_conv2d, fft_conv3d
from .operands import Operands, in_layout
from .problems import STEP, Problem
from .timing import Call

VS = ("torch", "channels_last", "tricks", "fft", "compile", "cudnn", "prealloc")
# Names of another time, and of what most people want.
ALIASES = {"default": "torch", "best": "channels_last"}
DEFAULT = "torch"
_MASK = {"dx": [True, False, False], "dw": [False, True, False]}


def striate(operands: Operands) -> Call:
    """The raw operator, output allocation included."""
    p, x, w, g = operands.problem, operands.x, operands.w, operands.g
    if p.pass_ == STEP:
        return _striate_step(operands)
    ops, settings = torch.ops.striate, config(p.stride, p.padding, p.dilation, p.groups)
    if p.pass_ == "fwd":
        forward = str(settings)
        return lambda: ops.conv(x, w, None, forward)
    if p.pass_ == "dx":
        back = str(settings._replace(output_padding=tuple(p.output_padding)))
        return lambda: ops.conv_grad_input(g, w, None, back)
    wide = p.weight_dtype != p.dtype
    weigh = str(settings._replace(kernel=tuple(p.kernel), wide=wide))
    return lambda: ops.conv_grad_weight(g, x, weigh)


def _preallocated(operands: Operands) -> Call:
    """The kernel alone, into memory that exists, through the door that knows no torch and on threads of its own."""
    p = operands.problem
    first, second = {"fwd": ("x", "w"), "dx": ("g", "w"), "dw": ("g", "x")}[p.pass_]
    a, b = getattr(operands, first), getattr(operands, second)
    name = {"fwd": "g", "dx": "x", "dw": "w"}[p.pass_]
    out = torch.empty_like(getattr(operands, name))
    line, run = str(p), _core.run

    def call() -> Tensor:
        run(line, out.data_ptr(), a.data_ptr(), b.data_ptr(), 0, torch.get_num_threads())
        return out

    return call


def _searched(call: Call) -> Call:
    """With cuDNN's own search for the fastest algorithm, which the first call pays."""

    def searched() -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False):
            return call()

    return searched


def _step(conv: Callable[..., Tensor], operands: Operands) -> Call:
    """Output and both gradients through autograd."""
    x, w = (tensor.detach().requires_grad_() for tensor in (operands.x, operands.w))
    g = operands.g

    def call() -> tuple[Tensor, ...]:
        y = conv(x, w)
        return (y.detach(), *torch.autograd.grad(y, (x, w), g))

    return call


def _torch_step(operands: Operands) -> Call:
    p = operands.problem
    conv = (F.conv1d, F.conv2d, F.conv3d)[p.rank - 1]
    even = all(low == high >= 0 for low, high in p.pads)
    pads, inside = _flat(list(p.pads)), [low for low, _ in p.pads] if even else 0

    def forward(x: Tensor, w: Tensor) -> Tensor:
        x = x if even else F.pad(x, pads)
        return conv(x, w, None, p.stride, inside, p.dilation, p.groups)

    return _step(forward, operands)


def _striate_step(operands: Operands) -> Call:
    p = operands.problem
    conv = (conv1d, conv2d, conv3d)[p.rank - 1]
    even = all(low == high for low, high in p.pads)
    pads, inside = _flat(list(p.pads)), tuple(low for low, _ in p.pads) if even else 0

    def forward(x: Tensor, w: Tensor) -> Tensor:
        x = x if even else F.pad(x, pads)
        return conv(x, w, None, p.stride, inside, p.dilation, p.groups)

    return _step(forward, operands)


def rivals(problem: Problem, vs: tuple[str, ...]) -> list[str]:
    """Names of torch's contenders for a problem."""
    names = [DEFAULT] if "torch" in vs or "channels_last" in vs else []
    if "channels_last" in vs:
        other = "contiguous" if problem.layout == "nhwc" else "channels_last"
        names.append("torch.conv2d_nhwc" if problem.rank == 1 else f"torch.{other}")
    simple = problem.c_in == problem.c_out == 1
    if "tricks" in vs and problem.pass_ == "dw" and simple and problem.rank < 3:
        names.append("torch.as_forward")
    if "fft" in vs:
        names += _transforms(problem, simple)
    if "compile" in vs:
        names.append("torch.compile")
    if "cudnn" in vs and problem.device == "cuda":
        names.append("torch.cudnn_benchmark")
    if "prealloc" in vs and problem.device == "cpu" and problem.pass_ != STEP:
        names.append("striate.prealloc")
    return names


def _transforms(problem: Problem, simple: bool) -> list[str]:
    """Contenders by transforms, where they compute the same."""
    plain = simple and set(problem.stride) == {1} and min(problem.padding) >= 0
    if not plain or problem.dtype.itemsize < 4 or problem.pass_ == STEP:
        return []
    same = all(low == (k - 1) // 2 and low + high == k - 1 for k, (low, high) in zip(
        problem.kernel, problem.pads, strict=True
    ))  # fmt: skip
    ours = same and problem.pass_ == "fwd" and set(problem.dilation) == {1} and problem.device == "cpu"
    return ["torch.fft", *(["striate.fft"] if ours else [])]


def rival(name: str, operands: Operands) -> Call:
    """The contender of that name."""
    if name == "striate.prealloc":
        return _preallocated(operands)
    operands = _one_dtype(operands)
    if name == "striate.fft":
        conv = (fft_conv1d, fft_conv2d, fft_conv3d)[operands.problem.rank - 1]
        x, k = operands.x, operands.w.squeeze(1)
        return lambda: conv(x, k, padding="same", order="correlation")
    if name == "torch.cudnn_benchmark":
        return _searched(torch_pass(_weight_like_input(operands)))
    if name == "torch.conv2d_nhwc":
        return torch_pass(_weight_like_input(_as_2d(operands)))
    if name in ("torch.channels_last", "torch.contiguous"):
        return torch_pass(_weight_like_input(_other_layout(operands)))
    if name == "torch.as_forward":
        return _weight_gradient_as_forward(operands)
    if name == "torch.fft":
        return _by_fft(operands)
    call = torch_pass(_weight_like_input(operands))
    if name == "torch.compile":
        return torch.compile(call, dynamic=False)
    if name != DEFAULT:
        raise ValueError(f"expected the name of a contender, got {name!r}")
    return call


def _one_dtype(operands: Operands) -> Operands:
    p = operands.problem
    if p.weight_dtype == p.dtype:
        return operands
    return replace(operands, problem=p.in_dtype(p.dtype), w=operands.w.to(p.dtype))


def _other_layout(operands: Operands) -> Operands:
    layout = "nchw" if operands.problem.layout == "nhwc" else "nhwc"
    problem = replace(operands.problem, layout=layout)
    return replace(
        operands, problem=problem, x=in_layout(operands.x, layout), g=in_layout(operands.g, layout)
    )


def _as_2d(operands: Operands) -> Operands:
    """A 1-D problem as 2-D with a unit axis, channels last: the layout that torch refuses to 1-D tensors."""
    p = operands.problem
    problem = replace(
        p,
        layout="nhwc",
        size=(1, *p.size),
        kernel=(1, *p.kernel),
        stride=(1, *p.stride),
        dilation=(1, *p.dilation),
        pads=((0, 0), *p.pads),
    )
    x, w, g = (tensor.unsqueeze(2) for tensor in (operands.x, operands.w, operands.g))
    return replace(operands, problem=problem, x=in_layout(x, "nhwc"), w=w, g=in_layout(g, "nhwc"))


def _weight_like_input(operands: Operands) -> Operands:
    """What ``module.to(memory_format=...)`` does to a weight."""
    if operands.problem.rank == 1 or operands.problem.layout == "nchw":
        return operands
    last = torch.channels_last if operands.problem.rank == 2 else torch.channels_last_3d
    return replace(operands, w=operands.w.contiguous(memory_format=last))


def torch_pass(operands: Operands) -> Call:
    """One pass by torch, as eager autograd does it: ``aten::convolution`` or ``aten::convolution_backward``.

    Uneven pads are what users write: pad on both sides and cut the surplus off the output where the stride is 1,
    ``F.pad`` on the input otherwise.
    """
    p = operands.problem
    if p.pass_ == STEP:
        return _torch_step(operands)
    if all(low == high >= 0 for low, high in p.pads):
        return _aten(operands, [low for low, _ in p.pads])
    if set(p.stride) == {1} and all(min(pair) >= 0 for pair in p.pads):
        return _pad_and_cut(operands)
    return _pad_first(operands)


def _aten(operands: Operands, padding: list[int]) -> Call:
    p, x, w, g = operands.problem, operands.x, operands.w, operands.g
    stride, dilation, zeros, groups = list(p.stride), list(p.dilation), [0] * p.rank, p.groups
    aten = torch.ops.aten
    if p.pass_ == "fwd":
        return lambda: aten.convolution(x, w, None, stride, padding, dilation, False, zeros, groups)
    mask, which = _MASK[p.pass_], 0 if p.pass_ == "dx" else 1
    backward = aten.convolution_backward
    return lambda: backward(g, x, w, None, stride, padding, dilation, False, zeros, groups, mask)[which]


def _flat(pairs: list[tuple[int, int]]) -> list[int]:
    """Pads per axis in the order of ``F.pad``: last axis first."""
    return [pad for pair in reversed(pairs) for pad in pair]


def _pad_and_cut(operands: Operands) -> Call:
    p = operands.problem
    padding = [max(pair) for pair in p.pads]
    ahead = [pad - low for pad, (low, _) in zip(padding, p.pads, strict=True)]
    behind = [pad - high for pad, (_, high) in zip(padding, p.pads, strict=True)]
    surplus = _flat(list(zip(ahead, behind, strict=True)))
    if p.pass_ == "fwd":
        call = _aten(operands, padding)

        def forward() -> Tensor:
            y = call()
            for axis, (start, length) in enumerate(zip(ahead, p.output, strict=True)):
                y = y.narrow(axis + 2, start, length)
            return y

        return forward
    return lambda: _aten(replace(operands, g=F.pad(operands.g, surplus)), padding)()


def _pad_first(operands: Operands) -> Call:
    p = operands.problem
    pads, zeros = _flat(list(p.pads)), [0] * p.rank
    crop = [-pad for pad in pads]

    def call() -> Tensor:
        result = _aten(replace(operands, x=F.pad(operands.x, pads)), zeros)()
        return F.pad(result, crop) if p.pass_ == "dx" else result

    return call


def _weight_gradient_as_forward(operands: Operands) -> Call:
    """The weight gradient as a forward pass with batch and channel as groups and the gradient as the kernel."""
    p = operands.problem
    if p.rank == 1:
        return _weight_gradient_as_forward(_as_2d(operands))
    x, g, kernel = operands.x, operands.g, p.kernel
    pads, groups = _flat(list(p.pads)), p.batch * p.groups

    def call() -> Tensor:
        image = F.pad(x, pads).reshape(
            1, groups, *(i + lo + hi for i, (lo, hi) in zip(p.size, p.pads, strict=True))
        )
        image = image.contiguous(memory_format=torch.channels_last)
        filters = g.reshape(groups, 1, *p.output)
        y = F.conv2d(image, filters, stride=p.dilation, dilation=p.stride, groups=groups)
        return y[:, :, : kernel[0], : kernel[1]].view(p.batch, p.groups, 1, *kernel).sum(0)

    return call


def _by_fft(operands: Operands) -> Call:
    """Cyclic convolution of the padded length; the transform of the weight is part of the call."""
    p, x, w, g = operands.problem, operands.x, operands.w, operands.g
    reach = [d * (k - 1) + 1 for d, k in zip(p.dilation, p.kernel, strict=True)]
    length = [_fast(i + lo + hi + r) for i, (lo, hi), r in zip(p.size, p.pads, reach, strict=True)]
    dims, pads = list(range(2, 2 + p.rank)), _flat(list(p.pads))
    whole = (slice(None), slice(None))
    taps = (*whole, *(slice(0, r, d) for r, d in zip(reach, p.dilation, strict=True)))
    window = (*whole, *(slice(0, o) for o in p.output))
    rows = (*whole, *(slice(lo, lo + i) for i, (lo, _) in zip(p.size, p.pads, strict=True)))
    rfft, irfft = torch.fft.rfftn, torch.fft.irfftn

    def spectrum(tensor: Tensor) -> Tensor:
        return rfft(tensor, length, dims)

    def filters() -> Tensor:
        sparse = w.new_zeros((1, w.shape[0], *reach))
        sparse[taps] = w.squeeze(1)
        return spectrum(sparse)

    def forward() -> Tensor:
        y = irfft(spectrum(F.pad(x, pads)) * filters().conj(), length, dims)
        return y[window]

    def input_gradient() -> Tensor:
        return irfft(spectrum(g) * filters(), length, dims)[rows]

    def weight_gradient() -> Tensor:
        product = (spectrum(F.pad(x, pads)) * spectrum(g).conj()).sum(0, keepdim=True)
        return irfft(product, length, dims)[taps].transpose(0, 1)

    return {"fwd": forward, "dx": input_gradient, "dw": weight_gradient}[p.pass_]


def _fast(length: int) -> int:
    """The next length whose prime factors are 2, 3 and 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
