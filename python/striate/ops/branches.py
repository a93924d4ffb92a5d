"""Depthwise convolutions side by side over one tensor, in one pass over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from .._call import Request, dense, on_host, words
from .._problem import DTYPE_WORDS
from . import _composed_branches, _cuda
from . import conv as _conv
from ._composed_branches import Statics
from ._family import Family

Ints = Sequence[int]
Maybe = Tensor | None
_HALVES = (torch.bfloat16, torch.float16)
_PUBLIC: dict[int, Callable[..., Tensor]] = {
    1: _conv.depthwise_conv1d,
    2: _conv.depthwise_conv2d,
    3: _conv.depthwise_conv3d,
}
_functorch_active = torch._C._are_functorch_transforms_active


class Branch(NamedTuple):
    """A depthwise convolution that keeps the size of maps: tap ``low`` lies ``low`` positions before the output.

    ``weight`` is ``[c, 1, *k]``, ``bias`` ``[c]`` or None; ``low`` is the padding before the first position and
    ``dilation`` the distance of taps, one number per axis.
    """

    weight: Tensor
    bias: Maybe
    low: tuple[int, ...]
    dilation: tuple[int, ...]


def centred(weight: Tensor, bias: Maybe = None, dilation: Ints | None = None) -> Branch:
    """A branch of odd size whose middle tap lies on the output position."""
    steps = tuple(dilation or (1,) * (weight.dim() - 2))
    low = tuple(d * (k // 2) for d, k in zip(steps, weight.shape[2:], strict=True))
    return Branch(weight, bias, low, steps)


def each(x: Tensor, branches: Sequence[Branch], grain: int = 0) -> tuple[Tensor, ...]:
    """The result of every branch, all of which see all channels of x ``[N, C, ...]``.

    A ``grain`` above 0 says that many blocks of so many neighbouring taps are zero: on maps of more than 32 columns
    they are left out of the forward pass and of the gradient of x, where not even an infinite input meets them.
    """
    return _run("each", x, branches, grain)


def each_with_statistics(
    x: Tensor, branches: Sequence[Branch], grain: int = 0
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The results of :func:`each`, and statistics of theirs.

    These are ``[2, B, C]`` in the type of sums, float32 for half types: of every channel of every branch the mean and
    the biased variance over samples and positions, of the numbers as they are rounded. The launches of CUDA rows find
    them while results are in registers; everywhere else they are read from memory. They carry no gradient.
    """
    if not _together("each", x, branches):
        maps = _apart("each", x, branches)
        return maps, _composed_branches.statistics([y.detach() for y in maps])
    statics, parameters = _statics("each", x, branches, grain)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(x, *parameters):
        *made, found = _Measured.apply(statics, x, *parameters)
        return tuple(made), found
    *made, found = _measure(x, statics, parameters)
    return tuple(made), found


def finds_statistics(x: Tensor, branches: Sequence[Branch]) -> bool:
    """Whether a row is asked for them, so that nothing reads the results again."""
    return x.is_cuda and _cuda.own_rows() and _together("each", x, branches)


class Moments(NamedTuple):
    """What a BatchNorm knows of its input in training: all ``[C]``, in the type of sums."""

    mean: Tensor
    variance: Tensor
    """biased"""
    scale: Tensor
    """1 / sqrt(variance + eps)"""
    eps: float


def normalised(y: Tensor, moments: Moments, weight: Maybe, bias: Maybe) -> Tensor:
    """What a BatchNorm makes of y ``[N, C, ...]`` in training, given the moments of y.

    Gradients, of any order, are those of the BatchNorm: they know that the statistics are y's (Ioffe and Szegedy:
    Batch Normalization, arXiv 1502.03167, algorithm 1).
    """
    weight, bias = (None if given is None else given.to(moments.mean.dtype) for given in (weight, bias))
    made: Tensor = _Normalised.apply(y, weight, bias, *moments)
    return made


def total(x: Tensor, branches: Sequence[Branch], grain: int = 0) -> Tensor:
    """The sum of the results of :func:`each`."""
    return _run("sum", x, branches, grain)[0]


def split(x: Tensor, branches: Sequence[Branch]) -> Tensor:
    """Each branch on its own share of the channels of x, in order; channels before those are copied."""
    return _run("split", x, branches)[0]


# Columns up to which vectors of channels are as fast with all blocks as vectors of columns without a third of them.
_NARROW = 32


def _run(form: str, x: Tensor, branches: Sequence[Branch], grain: int = 0) -> tuple[Tensor, ...]:
    if not _together(form, x, branches):
        return _apart(form, x, branches)
    statics, parameters = _statics(form, x, branches, grain)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(x, *parameters):
        made: tuple[Tensor, ...] = _Branches.apply(statics, x, *parameters)
        return made
    count = len(branches)
    return tuple(_forward(x, parameters[:count], parameters[count:], *statics))


def _statics(form: str, x: Tensor, branches: Sequence[Branch], grain: int) -> tuple[Statics, tuple[Any, ...]]:
    """What is no parameter, then the weights and the biases."""
    statics = Statics(
        low=[part for branch in branches for part in branch.low],
        dilation=[part for branch in branches for part in branch.dilation],
        form=form,
        grain=grain if x.shape[-1] > _NARROW else 0,
    )
    return statics, (*(branch.weight for branch in branches), *(branch.bias for branch in branches))


def _together(form: str, x: Tensor, branches: Sequence[Branch]) -> bool:
    """Whether the one pass takes them; transforms, tracing and other memory orders go branch by branch."""
    first = branches[0].weight
    return (
        (x.is_cpu or (x.is_cuda and _cuda.own_rows()))
        and x.dtype in DTYPE_WORDS
        and x.is_contiguous()
        and first.dtype in (x.dtype, torch.float32 if x.dtype in _HALVES else x.dtype)
        and all(b.weight.device == x.device and b.weight.dtype == first.dtype for b in branches)
        and not torch.is_autocast_enabled("cpu" if x.is_cpu else "cuda")
        and not torch.compiler.is_compiling()
        and not _functorch_active()
        and forward_ad._current_level < 0
    )


def _shares(form: str, channels: int, branches: Sequence[Branch]) -> list[tuple[int, int]]:
    """First channel and number of channels of every branch."""
    if form != "split":
        return [(0, channels)] * len(branches)
    counts = [branch.weight.shape[0] for branch in branches]
    first = channels - sum(counts)
    return [(first + sum(counts[:index]), count) for index, count in enumerate(counts)]


def _apart(form: str, x: Tensor, branches: Sequence[Branch]) -> tuple[Tensor, ...]:
    """The same as convolutions one after the other."""
    shares = _shares(form, x.shape[1], branches)
    made = []
    for branch, (first, count) in zip(branches, shares, strict=True):
        made.append(_alone(x if form != "split" else x.narrow(1, first, count), branch))
    if form == "each":
        return tuple(made)
    if form == "split":
        return (torch.cat([x.narrow(1, 0, shares[0][0]), *made], 1),)
    result = made[0]
    for other in made[1:]:
        result = result + other
    return (result,)


def _alone(x: Tensor, branch: Branch) -> Tensor:
    weight, bias, low, dilation = branch
    rank = len(low)
    high = [d * (k - 1) - lo for d, k, lo in zip(dilation, weight.shape[2:], low, strict=True)]
    if list(low) == high:
        return _PUBLIC[rank](x, weight, bias, 1, low, dilation)
    ends = [side for pair in reversed(list(zip(low, high, strict=True))) for side in pair]
    return _PUBLIC[rank](F.pad(x, ends), weight, bias, 1, 0, dilation)


class _Branches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, statics: Statics, x: Tensor, *parameters: Any) -> Any:
        ctx.save_for_backward(x, *parameters)
        ctx.statics = statics
        count = len(parameters) // 2
        return tuple(_forward(x, parameters[:count], parameters[count:], *statics))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_again(x, parameters, ctx, grads))
        count = len(parameters) // 2
        weights, dense_grads = parameters[:count], [dense(grad) for grad in grads]
        wanted = ctx.needs_input_grad[1:]
        dx = _grad_input(dense_grads, weights, *ctx.statics) if wanted[0] else None
        found: list[Maybe] = [None] * len(parameters)
        if any(wanted[1:]):
            bias = any(wanted[1 + count :])
            made = _grad_weight(dense_grads, x, weights, bias, *ctx.statics[:-1])
            found = [gradient if want else None for gradient, want in zip(made, wanted[1:], strict=False)]
            found += [None] * (2 * count - len(found))
        return (None, dx, *found)


def _measure(x: Tensor, statics: Statics, parameters: Sequence[Any]) -> list[Tensor]:
    low, dilation, _, grain = statics
    count = len(parameters) // 2
    made: list[Tensor] = _with_statistics(x, parameters[:count], parameters[count:], low, dilation, grain)
    return made


class _Measured(_Branches):
    @staticmethod
    def forward(ctx: Any, statics: Statics, x: Tensor, *parameters: Any) -> Any:
        ctx.save_for_backward(x, *parameters)
        ctx.statics = statics
        made = _measure(x, statics, parameters)
        ctx.mark_non_differentiable(made[-1])
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Branches.backward(ctx, *grads[:-1])


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Maybe, bias: Maybe, *moments: Any) -> Tensor:
        mean, variance, scale, eps = moments
        ctx.save_for_backward(y, weight, mean, scale)
        ctx.eps = eps
        return torch.native_batch_norm(y, weight, bias, mean, variance, False, 0.0, eps)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        y, weight, mean, scale = ctx.saved_tensors
        # As after a forward pass that found mean and scale itself.
        found = torch.ops.aten.native_batch_norm_backward(
            grads[0], y, weight, None, None, mean, scale, True, ctx.eps, ctx.needs_input_grad[:3]
        )
        return (*found, None, None, None, None)


def _again(x: Tensor, parameters: Sequence[Maybe], ctx: Any, grads: Sequence[Tensor]) -> list[Maybe]:
    """Gradients that can be differentiated: those of the convolutions one after the other."""
    count = len(parameters) // 2
    rank = x.dim() - 2
    low, dilation = (
        [tuple(axis[i * rank : (i + 1) * rank]) for i in range(count)] for axis in ctx.statics[:2]
    )
    branches = [Branch(parameters[i], parameters[count + i], low[i], dilation[i]) for i in range(count)]  # type: ignore[arg-type]
    inputs = [x, *parameters]
    chosen = [i for i, want in enumerate(ctx.needs_input_grad[1:]) if want]
    made = _apart(ctx.statics.form, x, branches)
    wanted: list[Any] = [inputs[i] for i in chosen]
    found = torch.autograd.grad(made, wanted, grads, create_graph=True)
    result: list[Maybe] = [None] * len(inputs)
    for i, gradient in zip(chosen, found, strict=True):
        result[i] = gradient
    return result


def _settings(run: str, statics: Statics, x: Tensor) -> str:
    low, dilation, form, grain = statics
    allowed = " tf32=1" if x.is_cuda and _cuda.tf32(x.device, x.dtype) else ""
    return words(form=form, low=low, dilation=dilation, grain=grain) + " pass=" + run + allowed


def _request(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], *given: Any) -> Request:
    operands = (dense(x), *map(dense, weights), *(None if b is None else dense(b) for b in biases))
    made = _fake_forward(x, weights, biases, *given)
    return "branches", _settings("fwd", Statics(*given), x), operands, made


def _cpu_forward(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], *given: Any) -> list[Tensor]:
    if Statics(*given).form == "sum" and x.dtype in _HALVES:
        wide = [None if b is None else b.float() for b in biases]
        made = _cpu_forward(x.float(), [w.float() for w in weights], wide, *given)
        return [y.to(x.dtype) for y in made]
    results: list[Tensor] = on_host(_request)(x, weights, biases, *given)
    return results


def _fake_forward(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], *given: Any) -> list[Tensor]:
    ends = len(weights) if Statics(*given).form == "each" else 1
    return [x.new_empty(x.shape) for _ in range(ends)]


def _given(given: Sequence[Any]) -> Statics:
    """Of a call that asks for statistics, which has one form."""
    low, dilation, grain = given
    return Statics(low, dilation, "each", grain)


def _statistics_request(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], *given: Any
) -> Request:
    op, settings, operands, _ = _request(x, weights, biases, *_given(given))
    return op, settings + " statistics=1", operands, _fake_statistics(x, weights)


def _cpu_statistics(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Maybe], *given: Any
) -> list[Tensor]:
    maps = _cpu_forward(x, weights, biases, *_given(given))
    return [*maps, _composed_branches.statistics(maps)]


def _fake_statistics(x: Tensor, weights: Sequence[Tensor], *_: Any) -> list[Tensor]:
    kind = torch.float32 if x.dtype in _HALVES else x.dtype
    return [x.new_empty(x.shape) for _ in weights] + [x.new_empty((2, len(weights), x.shape[1]), dtype=kind)]


def _input_request(grads: Sequence[Tensor], weights: Sequence[Tensor], *given: Any) -> Request:
    operands = (*map(dense, grads), *map(dense, weights))
    return "branches", _settings("dx", Statics(*given), grads[0]), operands, _fake_grad_input(grads)


def _cpu_grad_input(grads: Sequence[Tensor], weights: Sequence[Tensor], *given: Any) -> Tensor:
    if Statics(*given).form != "split" and grads[0].dtype in _HALVES:
        wide = [g.float() for g in grads], [w.float() for w in weights]
        return _cpu_grad_input(*wide, *given).to(grads[0].dtype)
    result: Tensor = on_host(_input_request)(grads, weights, *given)
    return result


def _fake_grad_input(grads: Sequence[Tensor], *_: Any) -> Tensor:
    return grads[0].new_empty(grads[0].shape)


def _weight_request(
    grads: Sequence[Tensor], x: Tensor, weights: Sequence[Tensor], bias: bool, *given: Any
) -> Request:
    operands, made = (*map(dense, grads), dense(x)), _fake_grad_weight(grads, x, weights, bias)
    return "branches", _settings("dw", Statics(*given), x), operands, made


def _fake_grad_weight(
    grads: Sequence[Tensor], x: Tensor, weights: Sequence[Tensor], bias: bool, *_: Any
) -> list[Tensor]:
    made = [w.new_empty(w.shape) for w in weights]
    return [*made, *(w.new_empty(w.shape[:1]) for w in weights if bias)]


def _flops(map_shape: Ints, weights: Sequence[Ints]) -> int:
    """One multiplication and one addition per tap and position."""
    return 2 * map_shape[0] * math.prod(map_shape[2:]) * sum(math.prod(weight) for weight in weights)


_family = Family("striate")
_AXES = "int[] low, int[] dilation, str form"
_family.define(
    "branches",
    f"(Tensor x, Tensor[] weights, Tensor?[] biases, {_AXES}, int grain) -> Tensor[]",
    _fake_forward,
    {"CPU": _cpu_forward, "CUDA": _cuda.row_or(_request, _composed_branches.forward)},
    lambda x, weights, *_, **__: _flops(x, weights),
)
_family.define(
    "branches_statistics",
    "(Tensor x, Tensor[] weights, Tensor?[] biases, int[] low, int[] dilation, int grain) -> Tensor[]",
    _fake_statistics,
    {
        "CPU": _cpu_statistics,
        "CUDA": _cuda.row_or(_statistics_request, _composed_branches.forward_with_statistics),
    },
    lambda x, weights, *_, **__: _flops(x, weights),
)
_family.define(
    "branches_grad_input",
    f"(Tensor[] grads, Tensor[] weights, {_AXES}, int grain) -> Tensor",
    _fake_grad_input,
    {"CPU": _cpu_grad_input, "CUDA": _cuda.row_or(_input_request, _composed_branches.grad_input)},
    lambda grads, weights, *_, **__: _flops(grads[0], weights),
)
_family.define(
    "branches_grad_weight",
    f"(Tensor[] grads, Tensor x, Tensor[] weights, bool bias, {_AXES}) -> Tensor[]",
    _fake_grad_weight,
    {
        "CPU": on_host(_weight_request),
        "CUDA": _cuda.row_or(_weight_request, _composed_branches.grad_weight),
    },
    lambda grads, x, weights, *_, **__: _flops(x, weights),
)
_forward = torch.ops.striate.branches.default
_with_statistics = torch.ops.striate.branches_statistics.default
_grad_input = torch.ops.striate.branches_grad_input.default
_grad_weight = torch.ops.striate.branches_grad_weight.default
