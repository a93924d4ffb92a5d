"""One time step of a layer of delays."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._call import Request, dense, on_host, words
from . import _cuda
from ._family import Family

Maybe = Tensor | None


def delay_step(ring: Tensor, weight: Tensor, delays: Tensor, bias: Maybe, head: int) -> Tensor:
    r"""A weighted sum of one remembered sample per input channel.

    .. math:: y[n, o] = b[o] + \sum_i w[o, i]\, x_{t - d[o, i]}[n, i]

    (Hammouamri, Khalfaoui-Hassani, Masquelier: Learning Delays in Spiking Neural Networks, arXiv 2306.17670, equation
    6, with every delay on a grid point.)

    Args:
        ring: ``[K, C, N]``; slot ``head`` holds the newest sample, the ones before it the older ones, in turn.
        weight: ``[O, C / groups]`` in the dtype of ring.
        delays: int32 like weight, at most K - 1 steps back.
        bias: ``[O]`` or None.
        head: the newest slot.

    Returns:
        ``[N, O]``. Where a gradient is asked for, torch's operators compute it, and on other devices unless a row of
        theirs takes it.
    """
    tensors = (ring, weight, delays) if bias is None else (ring, weight, delays, bias)
    direct = (
        (ring.is_cpu or ring.is_cuda)
        and all(tensor.device == ring.device for tensor in tensors)
        and ring.dtype in (torch.float32, torch.float64)
        and ring.is_contiguous()
        and not (torch.is_grad_enabled() and torch._C._any_requires_grad(*tensors))
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )
    if direct:
        made: Tensor = _step(ring, weight, delays, bias, head)
        return made
    return _formula(ring, weight, delays, bias, head)


def _formula(ring: Tensor, weight: Tensor, delays: Tensor, bias: Maybe, head: int) -> Tensor:
    outputs, inputs = weight.shape
    groups = ring.shape[1] // inputs
    group = torch.arange(outputs, device=weight.device) // (outputs // groups)
    channel = group.unsqueeze(1) * inputs + torch.arange(inputs, device=weight.device)
    met = ring[(head - delays.long().clamp(0, ring.shape[0] - 1)) % ring.shape[0], channel]
    output = torch.einsum("oin,oi->no", met, weight).contiguous()
    return output if bias is None else output + bias


def _fake(ring: Tensor, weight: Tensor, delays: Tensor, bias: Maybe, head: int) -> Tensor:
    return ring.new_empty(ring.shape[2], weight.shape[0])


def _request(ring: Tensor, weight: Tensor, delays: Tensor, bias: Maybe, head: int) -> Request:
    operands = (dense(ring), dense(weight), dense(delays), None if bias is None else dense(bias))
    return "delay_step", words(head=head), operands, _fake(ring, weight, delays, bias, head)


_family = Family("striate")
_family.define(
    "delay_step",
    "(Tensor ring, Tensor weight, Tensor delays, Tensor? bias, int head) -> Tensor",
    _fake,
    {"CPU": on_host(_request), "CUDA": _cuda.row_or(_request, _formula)},
    None,
)
_step = torch.ops.striate.delay_step.default
