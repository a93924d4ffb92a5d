"""Kernels built from elements at learned positions: dilated convolution with learnable spacings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._call import Request, dense, on_host, words
from . import _cuda
from ._family import Family, Member, Statics

Maybe = Tensor | None
EPSILON = 1e-7
_HALVES = (torch.bfloat16, torch.float16)
PROFILES = {
    "v0": ("scatter", 1.0),
    "v1": ("triangle", 1.0),
    "max": ("triangle", 1.0),
    "gauss": ("gauss", 0.27),
}
VERSIONS = tuple(PROFILES)


def axes_of(version: str, rank: int) -> tuple[int, ...]:
    """The kernel axis that each row of P moves along.

    They are the published package's: ``v1``, ``max`` and ``gauss`` count axes from the last; ``v0`` counts from the
    first, but exchanges the last two in 3-D.
    """
    if version != "v0":
        return tuple(reversed(range(rank)))
    return (0, 2, 1) if rank == 3 else tuple(range(rank))


def dcls_kernel(
    weight: Tensor,
    P: Tensor,
    SIG: Tensor | None = None,
    *,
    dilated_kernel_size: int | Sequence[int],
    version: str = "gauss",
    reference_slips: bool = False,
) -> Tensor:
    r"""Spread the elements of every filter over a dense grid around their positions.

    .. math:: \kappa[t] = \sum_m W_m \frac{\prod_a f(t_a - c_{m,a})}{10^{-7} + \sum_u \prod_a f(u_a - c_{m,a})},
        \quad c_{m,a} = P_{m,a} + \lfloor K_a / 2 \rfloor

    with :math:`f(d) = e^{-d^2 / 2 \sigma^2}, \sigma = |SIG| + 0.27` for ``gauss``,
    :math:`\max(0, \sigma - |d|), \sigma = |SIG| + 1` for ``max`` and the same with :math:`\sigma = 1` for ``v1``.
    ``v0`` divides a weight linearly among the neighbouring grid points and normalises nothing. (Khalfaoui-Hassani,
    Pellegrini, Masquelier: Dilated Convolution with Learnable Spacings, arXiv 2112.03740, equations 2 to 8, and
    beyond bilinear interpolation, arXiv 2306.00817.)

    Args:
        weight: ``[O, I/g, m]``; float32 or float64. Half precision is computed in float32 and rounded once. Any other
            leading sizes are kept.
        P: ``[d, O, I/g, m]``, positions relative to the centre of the grid, 1 <= d <= 3. For ``v1``, ``max`` and
            ``gauss`` P[0] moves along the last axis of the kernel, P[1] along the one before it; for ``v0`` P[0]
            moves along the first, and in 3-D P[1] along the last and P[2] along the middle axis.
        SIG: the shape of P; for ``max`` and ``gauss``, and only for them.
        dilated_kernel_size: the grid K, one integer or d of them.
        version: ``"v0"``, ``"v1"``, ``"max"`` or ``"gauss"``.
        reference_slips: centre P[a] on K[a] even where it moves along another axis, as the published package does.
            Kernels that are not square then lose weight.

    Returns:
        ``[O, I/g, *K]`` in the dtype of weight, differentiable any number of times in weight, P and SIG.

    Raises:
        ValueError: an unknown version, a SIG too many or too few, a grid without points.
        RuntimeError: shapes, dtypes or devices that do not fit each other.
    """
    size = check(weight, P, SIG, dilated_kernel_size, version)
    rank = len(size)
    axes = axes_of(version, rank)
    if reference_slips and len(set(size)) > 1:
        wrong = [size[row] // 2 - size[axis] // 2 for row, axis in enumerate(axes)]
        P = P + P.new_tensor(wrong).reshape(rank, *[1] * (P.dim() - 1))
    profile, base = PROFILES[version]
    return spread(weight, P, SIG, (size, profile, base, axes))


def spread(
    weight: Tensor, P: Tensor, SIG: Maybe, statics: tuple[Sequence[int], str, float, Sequence[int]]
) -> Tensor:
    """The checked call: ``statics`` are the grid, the profile, what is added to ``|SIG|`` and the axes of P."""
    if weight.dtype in _HALVES:
        wide = None if SIG is None else SIG.float()
        return spread(weight.float(), P.float(), wide, statics).to(weight.dtype)
    if not (weight.is_cpu or (weight.is_cuda and _cuda.own_rows())) or (
        torch.compiler.is_dynamo_compiling() and torch._C._are_functorch_transforms_active()
    ):
        return formula(weight, P, SIG, statics)
    return _kernel(weight, P, SIG, *statics)


def check(weight: Tensor, P: Tensor, SIG: Maybe, size: int | Sequence[int], version: str) -> tuple[int, ...]:
    """The grid of a call that makes sense; raises for others."""
    for name, value in (("weight", weight), ("P", P), ("SIG", SIG)):
        if not isinstance(value, Tensor) and not (name == "SIG" and value is None):
            raise TypeError(f"dcls_kernel: {name} must be a Tensor, not {type(value).__name__}")
    if version not in PROFILES:
        raise ValueError(f"version: expected one of {', '.join(PROFILES)}, got {version!r}")
    if (SIG is None) == (version in ("max", "gauss")):
        wants = "a tensor" if SIG is None else "None"
        raise ValueError(
            f"SIG: expected {wants} for version {version!r}, got {'None' if SIG is None else 'a tensor'}"
        )
    if (
        weight.dim() < 1
        or P.dim() != weight.dim() + 1
        or P.shape[1:] != weight.shape
        or not 1 <= P.shape[0] <= 3
    ):
        raise RuntimeError(
            f"P: expected [d, {', '.join(map(str, weight.shape))}] with 1 <= d <= 3, got {list(P.shape)}"
        )
    if SIG is not None and SIG.shape != P.shape:
        raise RuntimeError(f"SIG: expected the shape of P, {list(P.shape)}, got {list(SIG.shape)}")
    if weight.dtype not in (torch.float32, torch.float64, *_HALVES):
        raise RuntimeError(f"weight: expected a floating dtype, got {weight.dtype}")
    for name, other in (("P", P), ("SIG", SIG)):
        if other is not None and (other.dtype, other.device) != (weight.dtype, weight.device):
            raise RuntimeError(
                f"{name}: expected {weight.dtype} on {weight.device} as weight, got {other.dtype} on {other.device}"
            )
    grid = (size,) * P.shape[0] if isinstance(size, int) else tuple(size)
    if len(grid) != P.shape[0] or min(grid) < 1:
        raise ValueError(
            f"dilated_kernel_size: expected {P.shape[0]} positive integers, one per row of P, got {size!r}"
        )
    return grid


def profiles(P: Tensor, SIG: Maybe, grid: int, profile: str, base: float) -> Tensor:
    """[..., grid]: how much of an element at P falls on every grid point of one axis."""
    centre = (P + grid // 2).unsqueeze(-1)
    distance = torch.arange(grid, dtype=P.dtype, device=P.device) - centre
    if profile == "scatter":
        near = (distance > -1) & (distance <= 1)
        tent = torch.where(distance > 0, 1 - distance, 1 + distance)
        return torch.where(near, tent, torch.zeros_like(tent))
    sigma = torch.full_like(centre, base) if SIG is None else SIG.abs().unsqueeze(-1) + base
    if profile == "triangle":
        return torch.relu(sigma - distance.abs())
    return torch.exp(-0.5 * (distance / sigma) ** 2)


def formula(
    weight: Tensor, P: Tensor, SIG: Maybe, statics: tuple[Sequence[int], str, float, Sequence[int]]
) -> Tensor:
    """The kernel in torch's operators: the outer product of the axes' profiles, summed over the elements.

    It serves the devices without a kernel of ours and the derivatives beyond the first.
    """
    size, profile, base, axes = statics
    along: list[Any] = [None] * len(size)
    for row, axis in enumerate(axes):
        along[axis] = profiles(P[row], None if SIG is None else SIG[row], size[axis], profile, base)
    scaled = weight
    if profile != "scatter":
        total = along[0].sum(-1)
        for other in along[1:]:
            total = total * other.sum(-1)
        scaled = weight / (total + EPSILON)
    letters = "xyz"[: len(size)]
    terms = ",".join(f"...m{letter}" for letter in letters)
    return torch.einsum(f"...m,{terms}->...{letters}", scaled, *along)


def _packed(grad: Tensor, weight: Tensor, P: Tensor, SIG: Maybe, statics: Any) -> Tensor:
    """What ``dcls_kernel_grad`` returns, in torch's operators."""
    operands = (weight, P) if SIG is None else (weight, P, SIG)

    def build(*given: Tensor) -> Tensor:
        return formula(given[0], given[1], given[2] if len(given) > 2 else None, statics)

    found = torch.func.vjp(build, *operands)[1](grad)
    return torch.cat([found[0].unsqueeze(-2), *(part.movedim(0, -2) for part in found[1:])], -2)


def _split(packed: Tensor, rank: int) -> tuple[Tensor, Tensor, Maybe]:
    """The gradients of weight, P and SIG in their own shapes."""
    by_position = packed.narrow(-2, 1, rank).movedim(-2, 0)
    rest = packed.shape[-2] - 1 - rank
    by_spread = packed.narrow(-2, 1 + rank, rank).movedim(-2, 0) if rest else None
    return packed.select(-2, 0), by_position, by_spread


def _joined(tensors: Sequence[Maybe]) -> tuple[Tensor, ...]:
    return tuple(t for t in tensors if t is not None)


def _pull(function: Callable[..., Tensor], operands: Sequence[Maybe], grad: Tensor) -> list[Maybe]:
    """The gradients of a function of torch's operators; its missing operands are None."""

    def present(*given: Tensor) -> Tensor:
        left = iter(given)
        return function(*(None if t is None else next(left) for t in operands))

    found = iter(torch.func.vjp(present, *_joined(operands))[1](grad))
    return [None if t is None else next(found) for t in operands]


def _push(function: Callable[..., Tensor], operands: Sequence[Maybe], tangents: Sequence[Maybe]) -> Tensor:
    """The tangent of such a function, by differentiating its pull in the cotangent, in which it is linear."""
    moving = [index for index, tangent in enumerate(tangents) if tangent is not None]

    def of_moving(*given: Tensor) -> Tensor:
        now = list(operands)
        for index, tensor in zip(moving, given, strict=True):
            now[index] = tensor
        return function(*now)

    result, pull, *_ = torch.func.vjp(of_moving, *(operands[index] for index in moving))
    again = torch.func.vjp(lambda cotangent: pull(cotangent), torch.zeros_like(result))[1]
    pushed: Tensor = again(tuple(tangents[index] for index in moving))[0]
    return pushed


def _by_statics(function: Callable[..., Tensor], statics: Statics) -> Callable[..., Tensor]:
    return lambda *tensors: function(*tensors, statics)


def _kernel_gradient(tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]) -> Any:
    weight, P, SIG = tensors
    assert weight is not None and P is not None
    return _split(_gradient(grad, weight, P, SIG, *statics), P.shape[0])


def _gradient_gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> Any:
    return tuple(_pull(_by_statics(_packed, statics), tensors, grad))


def _tangent(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Tensor:
        return _push(_by_statics(function, statics), tensors, tangents)

    return tangent


def _fold(member: Callable[[], Callable[..., Tensor]], positions: int) -> Callable[..., tuple[Tensor, int]]:
    """The batch of vmap becomes the first leading size: of P and SIG, which come from ``positions`` on, behind d."""

    def fold(
        size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
    ) -> tuple[Tensor, int]:
        given: list[Maybe] = []
        for index, (tensor, axis) in enumerate(zip(tensors, axes, strict=True)):
            if tensor is None:
                given.append(None)
                continue
            front = tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
            given.append(front.movedim(0, 1) if index >= positions else front)
        return member()(*given, *statics), 0

    return fold


def _flat(tensor: Maybe, keep: int, positions: bool) -> Maybe:
    """Leading sizes as one; ``keep`` trailing ones, and the d in front of positions."""
    if tensor is None:
        return None
    tail = tensor.shape[tensor.dim() - keep :]
    head = tensor.shape[: 1 if positions else 0]
    middle = 1
    for part in tensor.shape[len(head) : tensor.dim() - keep]:
        middle *= part
    return dense(tensor).reshape(*head, middle, *tail)


def _settings(profile: str, base: float, axes: Sequence[int]) -> str:
    return words(profile=profile, base=base, axes=axes)


def _kernel_request(
    weight: Tensor, P: Tensor, SIG: Maybe, size: Sequence[int], profile: str, base: float, axes: Sequence[int]
) -> Request:
    operands = (_flat(weight, 1, False), _flat(P, 1, True), _flat(SIG, 1, True))
    result = weight.new_empty((math.prod(weight.shape[:-1]), *size))
    return "dcls_kernel", _settings(profile, base, axes), operands, result


def _gradient_request(
    grad: Tensor,
    weight: Tensor,
    P: Tensor,
    SIG: Maybe,
    size: Sequence[int],
    profile: str,
    base: float,
    axes: Sequence[int],
) -> Request:
    _, settings, operands, _ = _kernel_request(weight, P, SIG, size, profile, base, axes)
    rows, elements = 1 + len(size) * (1 if SIG is None else 2), weight.shape[-1]
    result = weight.new_empty((math.prod(weight.shape[:-1]), rows, elements))
    return "dcls_kernel_grad", settings, (_flat(grad, len(size), False), *operands), result


def _leading(kernel: Callable[..., Tensor], weight: int) -> Callable[..., Tensor]:
    """The kernel, whose result has the leading sizes of argument number ``weight``: rows know them as one."""

    def shaped(*args: Any) -> Tensor:
        made, tail = kernel(*args), 2 if weight else len(args[3])
        return made.reshape(*args[weight].shape[:-1], *made.shape[made.dim() - tail :])

    return shaped


def _composed_kernel(weight: Tensor, P: Tensor, SIG: Maybe, *statics: Any) -> Tensor:
    return formula(weight, P, SIG, statics).contiguous()


def _composed_gradient(grad: Tensor, weight: Tensor, P: Tensor, SIG: Maybe, *statics: Any) -> Tensor:
    return _packed(grad, weight, P, SIG, statics).contiguous()


def _fake_kernel(
    weight: Tensor, P: Tensor, SIG: Maybe, size: Sequence[int], profile: str, base: float, axes: Sequence[int]
) -> Tensor:
    return weight.new_empty((*weight.shape[:-1], *size))


def _fake_gradient(
    grad: Tensor,
    weight: Tensor,
    P: Tensor,
    SIG: Maybe,
    size: Sequence[int],
    profile: str,
    base: float,
    axes: Sequence[int],
) -> Tensor:
    rows = 1 + len(size) * (1 if SIG is None else 2)
    return weight.new_empty((*weight.shape[:-1], rows, weight.shape[-1]))


family = Family("striate")
_STATICS = "int[] size, str profile, float base, int[] axes) -> Tensor"

_kernel: Callable[..., Tensor] = family.add(
    Member(
        name="dcls_kernel",
        schema=f"(Tensor weight, Tensor P, Tensor? SIG, {_STATICS}",
        tensors=3,
        fake=_fake_kernel,
        flops=None,
        gradient=_kernel_gradient,
        tangent=_tangent(formula),
        fold=_fold(lambda: _kernel, 1),
        cpu=_leading(on_host(_kernel_request), 0),
        cuda=_leading(_cuda.row_or(_kernel_request, _composed_kernel), 0),
    )
)

_gradient: Callable[..., Tensor] = family.add(
    Member(
        name="dcls_kernel_grad",
        schema=f"(Tensor grad, Tensor weight, Tensor P, Tensor? SIG, {_STATICS}",
        tensors=4,
        fake=_fake_gradient,
        flops=None,
        gradient=_gradient_gradient,
        tangent=_tangent(_packed),
        fold=_fold(lambda: _gradient, 2),
        cpu=_leading(on_host(_gradient_request), 1),
        cuda=_leading(_cuda.row_or(_gradient_request, _composed_gradient), 1),
    )
)
