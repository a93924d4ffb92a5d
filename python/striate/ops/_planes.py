"""The family of filters of small planes in the frequency domain: filter_planes and filter_planes_grad.

With F = rfft2, y = irfft2(w F x) is (1 / HW) Re sum c w F x exp(+i ...) over half a spectrum, where c is 2 for columns
that stand for two and 1 for the others: a sum over real numbers, whatever the imaginary parts of w are where a real
plane has none. So the input's gradient is the filter conj(w), dw = (c / HW) conj(F x) F dy, and the derivatives of both
are these two again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._call import call, dense, words
from .._listen import leave_to_torch
from .._rows import by_torch
from ._convolution import _into_channels, bilinear_tangent
from ._family import Family, Member, Statics
from ._fft import filtered_fold

Maybe = Tensor | None
# Planes of more would not stay in the second-level cache, a dozen and more at a time.
_LONGEST, _LARGEST_FACTOR = 64, 13


def _refusal(planes: Tensor) -> str:
    """Why planes are torch's to transform, or an empty string."""
    sizes = planes.shape[2:]
    if max(sizes) > _LONGEST or min(sizes) < 2:
        return f"planes of {list(sizes)}"
    for size in sizes:
        for factor in (2, 3, 5, 7, 11, _LARGEST_FACTOR):
            while size % factor == 0:
                size //= factor
        if size != 1:
            return f"planes of {list(sizes)} have a prime factor above {_LARGEST_FACTOR}"
    return ""


def _fake_filter(input: Tensor, weight: Tensor, conjugate: bool) -> Tensor:
    return input.new_empty(input.shape)


def _by_torch(input: Tensor, weight: Tensor, conjugate: bool) -> Tensor:
    values = torch.view_as_complex(weight.contiguous())
    spectrum = torch.fft.rfft2(input) * (values.conj() if conjugate else values)
    return torch.fft.irfft2(spectrum, s=tuple(input.shape[2:])).contiguous()


def _filter(input: Tensor, weight: Tensor, conjugate: bool) -> Tensor:
    if why := _refusal(input):
        leave_to_torch(why)
        return _by_torch(input, weight, conjugate)
    result = _fake_filter(input, weight, conjugate)
    if result.numel():
        call("filter_planes", words(conjugate=conjugate), (dense(input), dense(weight)), (result,))
    return result


def _spectra(input: Tensor) -> tuple[int, int, int, int]:
    return input.shape[1], input.shape[2], input.shape[3] // 2 + 1, 2


def _fake_grad(grad: Tensor, input: Tensor) -> Tensor:
    return input.new_empty(_spectra(input))


def _grad_by_torch(grad: Tensor, input: Tensor) -> Tensor:
    product = (torch.fft.rfft2(input).conj() * torch.fft.rfft2(grad)).sum(0)
    width = input.shape[3]
    twice = torch.full((width // 2 + 1, 1), 2.0, dtype=input.dtype, device=input.device)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return torch.view_as_real(product) * (twice / math.prod(input.shape[2:]))


def _grad(grad: Tensor, input: Tensor) -> Tensor:
    if why := _refusal(input):
        leave_to_torch(why)
        return _grad_by_torch(grad, input)
    result = _fake_grad(grad, input)
    if not input.numel():
        return result.zero_()
    call("filter_planes_grad", "", (dense(grad), dense(input)), (result,))
    return result


def _filter_gradient(tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]) -> Any:
    x, w = tensors
    assert x is not None and w is not None
    (conjugate,) = statics
    dx = filter_planes(grad, w, not conjugate) if wanted[0] else None
    dw = None
    if wanted[1]:
        dw = filter_planes_grad(x, grad) if conjugate else filter_planes_grad(grad, x)
    return dx, dw


def _grad_gradient(tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]) -> Any:
    g, x = tensors
    assert g is not None and x is not None
    return (
        filter_planes(x, grad, False) if wanted[0] else None,
        filter_planes(g, grad, True) if wanted[1] else None,
    )


def _grad_fold(
    size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
) -> tuple[Tensor, int]:
    g, x = tensors
    assert g is not None and x is not None
    folded = [_into_channels(t, axis, size) for t, axis in ((g, axes[0]), (x, axes[1]))]
    return filter_planes_grad(*folded).unflatten(0, (size, -1)), 0


def _flops(x: Sequence[int], *_: Any, **__: Any) -> int:
    """Two real transforms of a plane, counted as 2.5 n log2 n each, and the product."""
    n = math.prod(x[2:])
    return int(x[0] * x[1] * (5 * n * math.log2(max(n, 2)) + 3 * n))


family = Family("striate")

filter_planes: Callable[..., Tensor] = family.add(
    Member(
        name="filter_planes",
        schema="(Tensor input, Tensor weight, bool conjugate) -> Tensor",
        tensors=2,
        fake=_fake_filter,
        flops=_flops,
        gradient=_filter_gradient,
        tangent=bilinear_tangent(lambda: filter_planes),
        fold=filtered_fold(lambda: filter_planes),
        cpu=_filter,
        cuda=by_torch("filter_planes", "torch.fft.rfft2, the filter, irfft2")(_by_torch),
    )
)

filter_planes_grad: Callable[..., Tensor] = family.add(
    Member(
        name="filter_planes_grad",
        schema="(Tensor grad, Tensor input) -> Tensor",
        tensors=2,
        fake=_fake_grad,
        flops=_flops,
        gradient=_grad_gradient,
        tangent=bilinear_tangent(lambda: filter_planes_grad),
        fold=_grad_fold,
        cpu=_grad,
        cuda=by_torch("filter_planes_grad", "two torch.fft.rfft2, their product summed over samples")(
            _grad_by_torch
        ),
    )
)
