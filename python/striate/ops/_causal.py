"""The causal convolution as one operator, and its derivatives from operators that exist.

With z[t] = b + sum_w weight[w] x[t - (W - 1) + w] and y = silu(z), the upstream gradient of z goes through the
convolution family: a plain sequence is a depthwise convolution padded on the left, and sequences that must not see one
another are laid out with W - 1 positions before each, which hold its state, or zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import _call
from .._call import call, words
from .._problem import Config
from . import _composed, _cuda
from ._convolution import (
    _bias_gradient,
    _empty_like_layout,
    _front,
    _into_channels,
    _sum,
    conv_grad_input,
    conv_grad_weight,
    family,
)
from ._family import Member, Statics

Maybe = Tensor | None


def _empty(x: Tensor, weight: Tensor, bias: Maybe, states: Maybe, marks: Maybe, silu: bool) -> Tensor:
    return _empty_like_layout(x, tuple(x.shape), last=_is_last(x))


def _is_last(x: Tensor) -> bool:
    """Whether channels are innermost: what decides the layout of the result; x itself need not be dense."""
    return x.stride(1) == 1 and x.stride(2) != 1


def _settings(marks: Maybe, silu: bool) -> str:
    return words(silu=silu, marks="none" if marks is None else "starts" if marks.dim() == 1 else "each")


def _cpu(x: Tensor, weight: Tensor, bias: Maybe, states: Maybe, marks: Maybe, silu: bool) -> Tensor:
    result = _empty(x, weight, bias, states, marks, silu)
    call("causal", _settings(marks, silu), (x, weight, bias, states, marks), (result,))
    return result


def _on_cuda(x: Tensor, weight: Tensor, bias: Maybe, states: Maybe, marks: Maybe, silu: bool) -> Tensor:
    if x.numel() and _cuda.own_rows():
        result = _empty(x, weight, bias, states, marks, silu)
        if _call.on_device("causal", _settings(marks, silu), (x, weight, bias, states, marks), (result,)):
            return result
    return _composed.causal(x, weight, bias, states, marks, silu)


class Layout:
    """Sequences laid end to end with room for what came before each.

    ``source[i]`` is where position i of the layout comes from: a position of x (all samples end to end), then of the
    states, then one zero. ``place[t]`` is where position t of x lies. ``heard`` is 0 at positions of no sequence.
    """

    def __init__(self, x: Tensor, history: int, marks: Tensor, states: Maybe) -> None:
        length, device = x.shape[0] * x.shape[2], x.device
        positions = torch.arange(length, device=device)
        if marks.dim() == 1:
            starts = marks.to(torch.int64)
            run = torch.searchsorted(starts, positions, right=True) - 1
            first, self.heard = starts[:-1], None
            same = torch.full((first.numel(), history), -1, device=device)
        else:
            flat = marks.reshape(-1).to(torch.int64)
            changes = torch.ones(length, dtype=torch.bool, device=device)
            changes[1:] = (flat[1:] != flat[:-1]) | (positions[1:] % max(x.shape[2], 1) == 0)
            first, run = changes.nonzero().flatten(), changes.cumsum(0) - 1
            before = first[:, None] + torch.arange(-history, 0, device=device)
            inside = before >= (first // max(x.shape[2], 1) * x.shape[2])[:, None]
            same = torch.where(inside & (flat[before.clamp(0)] == flat[first][:, None]), before, -1)
            self.heard = (flat >= 0).view(x.shape[0], 1, x.shape[2]) if bool((flat < 0).any()) else None
        zero = length + (0 if states is None else states.shape[0] * history)
        if states is not None:
            same = length + torch.arange(states.shape[0] * history, device=device).view(
                states.shape[0], history
            )
        self.place = positions + (run + 1) * history
        self.source = torch.full((length + first.numel() * history,), zero, device=device)
        self.source[self.place] = positions
        starts = first + torch.arange(first.numel(), device=device) * history
        gaps = starts[:, None] + torch.arange(history, device=device)
        self.source[gaps] = torch.where(same < 0, zero, same)


def _flat(x: Tensor) -> Tensor:
    """[b, d, l] -> [1, d, b * l]."""
    return x.transpose(0, 1).flatten(1, 2).unsqueeze(0)


def _laid_out(x: Tensor, states: Maybe, layout: Layout) -> Tensor:
    parts = [_flat(x)] + ([] if states is None else [_flat(states)])
    return torch.cat([*parts, parts[0].new_zeros(1, x.shape[1], 1)], -1).index_select(-1, layout.source)


def _through_silu(grad: Tensor, z: Tensor) -> Tensor:
    """grad times the slope of silu at z: s (1 + z (1 - s)) with s the sigmoid of z."""
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward(grad, z)
    # torch's own operator has no derivative
    wide = z.float() if z.dtype.itemsize == 2 else z
    s = torch.sigmoid(wide)
    return (grad * (s * (1 + wide * (1 - s)))).to(grad.dtype)


def _gradient(
    tensors: Sequence[Maybe], statics: Statics, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Maybe, ...]:
    x, w, b, states, marks = tensors
    assert x is not None and w is not None
    if x.shape[0] == 0 or x.shape[2] == 0:  # convolutions know no empty space
        return *(None if t is None else torch.zeros_like(t) for t in (x, w, b, states)), None
    if statics[0]:
        grad = _through_silu(grad, causal(x, w, b, states, marks, False))
    history, channels = w.shape[1] - 1, w.shape[0]
    weight, wide = w.unsqueeze(1), w.dtype != x.dtype
    settings = Config((1,), (1,), ((0, 0),), channels)
    dx = dw = ds = None
    if marks is not None:
        layout = Layout(x, history, marks, states)
        if layout.heard is not None:
            grad = grad * layout.heard
        seen = _laid_out(x, states, layout)
        # A window begins at every position of the layout; only those that end at a position of x are wanted.
        room = grad.new_zeros(1, channels, seen.shape[2] - history)
        sent = room.index_copy(-1, layout.place - history, _flat(grad))
        if wanted[0] or wanted[3]:
            back = conv_grad_input(sent, weight, None, str(settings))
            total = x.shape[0] * x.shape[2] + (0 if states is None else states.shape[0] * history) + 1
            back = back.new_zeros(1, channels, total).index_add(-1, layout.source, back)
            dx = back[0, :, : x.shape[0] * x.shape[2]].unflatten(1, (x.shape[0], x.shape[2])).transpose(0, 1)
            if states is not None:
                ds = (
                    back[0, :, x.shape[0] * x.shape[2] : -1]
                    .unflatten(1, (states.shape[0], history))
                    .transpose(0, 1)
                )
        if wanted[1]:
            dw = conv_grad_weight(sent, seen, str(settings._replace(kernel=(w.shape[1],), wide=wide)))
    else:
        seen = x if states is None else torch.cat([states, x], -1)
        settings = settings._replace(padding=((history if states is None else 0, 0),))
        if wanted[0] or wanted[3]:
            dx = conv_grad_input(grad, weight, None, str(settings))
            if states is not None:
                ds, dx = dx[..., :history], dx[..., history:]
        if wanted[1]:
            dw = conv_grad_weight(grad, seen, str(settings._replace(kernel=(w.shape[1],), wide=wide)))
    dw = None if dw is None else dw.squeeze(1)
    return dx, dw, _bias_gradient(grad, b) if wanted[2] else None, ds, None


def _tangent(tensors: Sequence[Maybe], statics: Statics, tangents: Sequence[Maybe]) -> Tensor:
    x, w, _, states, marks = tensors
    tx, tw, tb, ts, _ = tangents
    assert x is not None and w is not None
    zero = torch.zeros_like
    parts = []
    if tx is not None or ts is not None:
        about = None if states is None else zero(states) if ts is None else ts
        parts.append(causal(zero(x) if tx is None else tx, w, None, about, marks, False))
    if tw is not None or tb is not None:
        parts.append(causal(x, zero(w) if tw is None else tw, tb, states, marks, False))
    total = _sum(parts)
    assert total is not None
    return _through_silu(total, causal(*tensors, False)) if statics[0] else total


def _fold(
    size: int, axes: Sequence[int | None], tensors: Sequence[Maybe], statics: Statics
) -> tuple[Tensor, int]:
    x, w, b, states, marks = tensors
    assert x is not None and w is not None
    if axes[4] is not None:
        raise RuntimeError("striate::causal: vmap over seq_idx or cu_seqlens is not supported")
    weights = [
        None if t is None else _front(t, axis, size).flatten(0, 1) for t, axis in ((w, axes[1]), (b, axes[2]))
    ]
    past = None if states is None else _into_channels(states, axes[3], size)
    y = causal(_into_channels(x, axes[0], size), *weights, past, marks, *statics)
    return y.unflatten(1, (size, -1)).movedim(1, 0), 0


causal: Callable[..., Tensor] = family.add(
    Member(
        name="causal",
        schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? states, Tensor? marks, bool silu) -> Tensor",
        tensors=5,
        fake=_empty,
        flops=None,
        gradient=_gradient,
        tangent=_tangent,
        fold=_fold,
        cpu=_cpu,
        cuda=_on_cuda,
    )
)


def _update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Maybe, at: Maybe, rows: Maybe, silu: bool
) -> Tensor:
    result = x.new_empty(x.shape)
    settings = words(silu=silu, marks="none")
    call("causal_update", settings, (x, weight, bias, at, rows), (result, state))
    return result


def _update_on_cuda(
    x: Tensor, state: Tensor, weight: Tensor, bias: Maybe, at: Maybe, rows: Maybe, silu: bool
) -> Tensor:
    if x.numel() and _cuda.own_rows():
        result = x.new_empty(x.shape)
        settings = words(silu=silu, marks="none")
        if _call.on_device("causal_update", settings, (x, weight, bias, at, rows), (result, state)):
            return result
    return _composed.causal_update(x, state, weight, bias, at, rows, silu)


_library = torch.library.Library("striate", "FRAGMENT")
if not torch._C._dispatch_has_kernel("striate::causal_update"):
    _library.define(
        "causal_update(Tensor x, Tensor(a!) state, Tensor weight, Tensor? bias, Tensor? at, Tensor? rows, bool silu)"
        " -> Tensor",
        tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
    )
    torch.library.register_fake("striate::causal_update", lambda x, *_: x.new_empty(x.shape), lib=_library)
    _library.impl("causal_update", _update, "CPU")
    _library.impl("causal_update", _update_on_cuda, "CUDA")

update: Callable[..., Tensor] = torch.ops.striate.causal_update.default
