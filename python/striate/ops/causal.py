"""Causal 1-D convolution of every channel with its own filter, for whole sequences and step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._problem import DTYPE_WORDS
from . import _causal, _composed, _cuda
from ._family import autocast_args

Maybe = Tensor | None
_HALVES = (torch.bfloat16, torch.float16)
_INTEGERS = (torch.int32, torch.int64)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Any:
    """y[b, d, t] = act(bias[d] + sum_w weight[d, w] x[b, d, t - (W - 1) + w]), with zeros before the first position.

    Args:
        x: ``[B, D, L]`` with any strides; positions or channels (``[B, L, D]`` in memory) innermost are fastest.
            float32, float64, bfloat16 or float16, on the CPU or on CUDA.
        weight: ``[D, W]``, W >= 1; the dtype of x, or float32 beside half x.
        bias: ``[D]`` in the dtype of weight, or None.
        activation: None, ``"silu"`` or ``"swish"`` (the same).
        initial_states: ``[B, D, W - 1]`` in the dtype of x, what came before position 0, oldest first; with
            ``cu_seqlens``, ``[sequences, D, W - 1]``.
        return_final_states: also return what the next call would need as ``initial_states``.
        seq_idx: integers ``[B, L]``: a tap counts only where its number is that of the output's position; the result is
            0 where the number is negative. Not together with states.
        cu_seqlens: integers ``[sequences + 1]`` that ascend from 0 to L; needs B = 1. Sequence i is
            ``x[..., cu_seqlens[i]:cu_seqlens[i + 1]]``.

    Returns:
        y in the shape and memory order of x, and the final states where they are asked for. The bits of ``y[..., :t]``
        do not depend on what follows position t, nor on how a sequence is cut into calls that pass states on.

    Raises:
        RuntimeError, TypeError, ValueError: naming the argument, what was expected and what came.
    """
    name = "causal_conv1d"
    silu = _silu(name, activation)
    _check_tensors(name, {"x": x, "weight": weight}, {"bias": bias, "initial_states": initial_states})
    x_, (weight_, bias_) = _cast(x, weight, bias)
    _check_x(name, x_, weight_, bias_)
    marks = _marks(name, x_, seq_idx, cu_seqlens)
    states = (
        None if initial_states is None else initial_states.to(x_.dtype) if x_ is not x else initial_states
    )
    if states is not None:
        if seq_idx is not None:
            raise ValueError(f"{name}: initial_states cannot be combined with seq_idx; use cu_seqlens")
        rows = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
        _expect_shape(name, "initial_states", states, (rows, x.shape[1], weight.shape[1] - 1))
        _expect_dtype(name, "initial_states", states, x_)
    if not isinstance(return_final_states, bool):
        raise TypeError(f"{name}: return_final_states must be a bool, not {return_final_states!r}")
    if return_final_states and seq_idx is not None:
        raise ValueError(f"{name}: return_final_states cannot be combined with seq_idx; use cu_seqlens")
    y = _operator(x_)(x_, weight_, bias_, states, marks, silu)
    if not return_final_states:
        return y
    history = weight.shape[1] - 1
    if cu_seqlens is None:
        return y, _last(x_, states, history)
    return y, states_at(x_, states, cu_seqlens, history)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """One or several steps of :func:`causal_conv1d`, after what ``conv_state`` remembers; it is updated in place.

    Args:
        x: ``[B, D]`` or ``[B, D, L]``.
        conv_state: ``[N, D, S]`` with S >= W - 1, in the dtype of x. Without ``cache_seqlens`` its last steps came last
            and it is shifted left by L.
        weight, bias, activation: as in :func:`causal_conv1d`.
        cache_seqlens: integers ``[B]``, how many steps each sequence has had: the state is circular, and step t is
            written at ``(cache_seqlens + t) % S``.
        conv_state_indices: integers ``[B]``, which row of ``conv_state`` belongs to each sample; -1 is padding, whose
            result is 0 and which has no state. Without it, N = B.

    Returns:
        The result in the shape of x. There is no gradient: call it under ``torch.no_grad()``.

    Raises:
        RuntimeError, TypeError, ValueError, IndexError: naming the argument, what was expected and what came.
    """
    name = "causal_conv1d_update"
    silu = _silu(name, activation)
    tensors = {"x": x, "conv_state": conv_state, "weight": weight}
    _check_tensors(name, tensors, {"bias": bias})
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*tensors.values(), bias)):
        raise RuntimeError(f"{name}: there is no gradient, but an argument requires one; use torch.no_grad()")
    if x.dim() not in (2, 3):
        raise RuntimeError(f"{name}: expected x of 2 or 3 dimensions, but got {list(x.shape)}")
    steps = x if x.dim() == 3 else x.unsqueeze(-1)
    _check_x(name, steps, weight, bias)
    batch, channels, _ = steps.shape
    if conv_state.dim() != 3 or conv_state.shape[1] != channels or conv_state.shape[2] < weight.shape[1] - 1:
        raise RuntimeError(
            f"{name}: expected conv_state of size [N, {channels}, at least {weight.shape[1] - 1}], "
            f"but got {list(conv_state.shape)}"
        )
    _expect_dtype(name, "conv_state", conv_state, x)
    _check_lengths(name, conv_state, cache_seqlens, batch)
    _check_rows(name, conv_state, conv_state_indices, batch)
    y = _causal.update(steps, conv_state, weight, bias, cache_seqlens, conv_state_indices, silu)
    return y if x.dim() == 3 else y.squeeze(-1)


def states_at(x: Tensor, states: Maybe, cu_seqlens: Tensor, history: int) -> Tensor:
    """The last ``history`` inputs of every sequence of ``x [1, D, T]``, after ``states`` or zeros."""
    ends = cu_seqlens.to(torch.int64)
    starts, ends = ends[:-1], ends[1:]
    back = torch.arange(-history, 0, device=ends.device)
    at = ends[:, None] + back
    fresh = at >= starts[:, None]
    taken = x[0].index_select(1, at.clamp(0, max(x.shape[2] - 1, 0)).flatten()) if x.shape[2] else None
    shape = (starts.numel(), x.shape[1], history)
    if taken is None:
        return x.new_zeros(shape) if states is None else states.clone()
    taken = taken.unflatten(1, (starts.numel(), history)).transpose(0, 1)
    if states is None:
        return torch.where(fresh[:, None], taken, 0)
    # position `at` lies `at - start` before the start, which the state holds `history` further on
    older = (at - starts[:, None] + history).clamp(0, max(history - 1, 0))
    return torch.where(fresh[:, None], taken, states.gather(2, older[:, None].expand(shape)))


def _operator(x: Tensor) -> Callable[..., Tensor]:
    """On CUDA, unless our rows are asked for, torch's operators, which torch differentiates and fuses."""
    return _composed.causal if x.is_cuda and not _cuda.own_rows() else _causal.causal


def _last(x: Tensor, states: Maybe, history: int) -> Tensor:
    length = x.shape[2]
    if length >= history:
        return x[..., length - history :].clone(memory_format=torch.contiguous_format)
    past = x.new_zeros(x.shape[0], x.shape[1], history) if states is None else states
    return torch.cat([past[..., length:], x], -1)


def _silu(name: str, activation: Any) -> bool:
    if activation not in (None, "silu", "swish"):
        raise NotImplementedError(f"{name}: activation must be None, 'silu' or 'swish', not {activation!r}")
    return activation is not None


def _check_tensors(name: str, needed: dict[str, Any], optional: dict[str, Any]) -> None:
    for argument, value in {**needed, **optional}.items():
        if not isinstance(value, Tensor) and not (value is None and argument in optional):
            raise TypeError(f"{name}: {argument} must be a Tensor, not {type(value).__name__}")


def _cast(x: Tensor, weight: Tensor, bias: Maybe) -> tuple[Tensor, tuple[Tensor, Maybe]]:
    device = x.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        (x,), (weight, bias) = autocast_args(device, (x,), (weight, bias))  # type: ignore[assignment]
    return x, (weight, bias)


def _check_x(name: str, x: Tensor, weight: Tensor, bias: Maybe) -> None:
    if x.dim() != 3:
        raise RuntimeError(f"{name}: expected x of size [B, D, L], but got {list(x.shape)}")
    if weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] < 1:
        raise RuntimeError(
            f"{name}: expected weight of size [{x.shape[1]}, at least 1], but got {list(weight.shape)}"
        )
    if x.dtype not in DTYPE_WORDS:
        raise NotImplementedError(
            f"{name}: x must be float32, float64, bfloat16 or float16, but got {x.dtype}"
        )
    for argument, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.device.type not in ("cpu", "cuda", "meta"):
            raise NotImplementedError(
                f"{name}: {argument} must be on the CPU or a CUDA device, but is on {tensor.device}"
            )
        if tensor.device != x.device:
            raise RuntimeError(
                f"{name}: expected {argument} on {x.device} like x, but it is on {tensor.device}"
            )
    if weight.dtype != x.dtype and not (x.dtype in _HALVES and weight.dtype == torch.float32):
        raise RuntimeError(
            f"{name}: expected weight to have the dtype of x (or float32 beside half x), "
            f"but got x {x.dtype} and weight {weight.dtype}"
        )
    if bias is not None:
        _expect_shape(name, "bias", bias, (x.shape[1],))
        if bias.dtype != weight.dtype:
            raise RuntimeError(
                f"{name}: expected bias to have the dtype of weight, but got {weight.dtype} and {bias.dtype}"
            )


def _expect_shape(name: str, argument: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise RuntimeError(f"{name}: expected {argument} of size {list(shape)}, but got {list(tensor.shape)}")


def _expect_dtype(name: str, argument: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.dtype != x.dtype or tensor.device != x.device:
        raise RuntimeError(
            f"{name}: expected {argument} to be {x.dtype} on {x.device} like x, "
            f"but got {tensor.dtype} on {tensor.device}"
        )


def _check_integers(name: str, argument: str, value: Any, shape: tuple[int, ...] | None) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: {argument} must be a Tensor, not {type(value).__name__}")
    if value.dtype not in _INTEGERS:
        raise TypeError(f"{name}: {argument} must be int32 or int64, but got {value.dtype}")
    if shape is not None:
        _expect_shape(name, argument, value, shape)


def _marks(name: str, x: Tensor, seq_idx: Any, cu_seqlens: Any) -> Maybe:
    if seq_idx is not None and cu_seqlens is not None:
        raise ValueError(f"{name}: seq_idx and cu_seqlens cannot be combined")
    if seq_idx is not None:
        _check_integers(name, "seq_idx", seq_idx, (x.shape[0], x.shape[2]))
        return seq_idx
    if cu_seqlens is None:
        return None
    _check_integers(name, "cu_seqlens", cu_seqlens, None)
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1:
        raise RuntimeError(
            f"{name}: expected cu_seqlens of size [sequences + 1], but got {list(cu_seqlens.shape)}"
        )
    if x.shape[0] != 1:
        raise ValueError(f"{name}: cu_seqlens needs x of batch 1, but got x of size {list(x.shape)}")
    if _readable(cu_seqlens):
        check_starts(name, cu_seqlens, x.shape[2])
    return cu_seqlens


def _readable(numbers: Tensor) -> bool:
    """Whether looking at them costs nothing: what is on a device, or being traced, is taken at its word."""
    fake = isinstance(numbers, torch._subclasses.FakeTensor)
    return numbers.is_cpu and not fake and not torch.compiler.is_compiling()


def check_starts(name: str, cu_seqlens: Tensor, length: int | None) -> None:
    """Starts of sequences ascend from 0, to ``length`` where it is given."""
    starts = cu_seqlens.tolist()
    wrong = starts[0] != 0 or (length is not None and starts[-1] != length)
    if wrong or any(a > b for a, b in itertools.pairwise(starts)):
        end = "" if length is None else f" to {length}"
        raise ValueError(f"{name}: expected cu_seqlens to ascend from 0{end}, but got {starts}")


def _check_lengths(name: str, conv_state: Tensor, cache_seqlens: Any, batch: int) -> None:
    if cache_seqlens is None:
        return
    _check_integers(name, "cache_seqlens", cache_seqlens, (batch,))
    if batch and _readable(cache_seqlens) and int(cache_seqlens.min()) < 0:
        raise ValueError(f"{name}: expected cache_seqlens of at least 0, but got {cache_seqlens.tolist()}")


def _check_rows(name: str, conv_state: Tensor, rows: Any, batch: int) -> None:
    if rows is None:
        if conv_state.shape[0] != batch:
            raise RuntimeError(
                f"{name}: expected conv_state of {batch} rows, one a sample, or conv_state_indices, "
                f"but got conv_state of size {list(conv_state.shape)}"
            )
        return
    _check_integers(name, "conv_state_indices", rows, (batch,))
    if batch and _readable(rows):
        least, most = int(rows.min()), int(rows.max())
        if least < -1 or most >= conv_state.shape[0]:
            raise IndexError(
                f"{name}: expected conv_state_indices from -1 to {conv_state.shape[0] - 1}, but got {rows.tolist()}"
            )
