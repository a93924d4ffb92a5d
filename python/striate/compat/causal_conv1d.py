"""The functions of the package causal-conv1d, with their signatures, for filters of any width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..ops.causal import check_starts, states_at

__all__ = ["causal_conv1d_fn", "causal_conv1d_update", "causal_conv1d_varlen_states"]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """:func:`striate.causal_conv1d`; ``final_states_out`` receives the final states where it is given."""
    wanted = return_final_states or final_states_out is not None
    found = ops.causal_conv1d(
        x,
        weight,
        bias,
        activation=activation,
        initial_states=initial_states,
        return_final_states=wanted,
        seq_idx=seq_idx,
    )
    if final_states_out is None:
        return found
    y, states = found
    if final_states_out.shape != states.shape:
        raise RuntimeError(
            f"causal_conv1d_fn: expected final_states_out of size {list(states.shape)}, "
            f"but got {list(final_states_out.shape)}"
        )
    final_states_out.copy_(states)
    return (y, final_states_out) if return_final_states else y


@torch.no_grad()
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """:func:`striate.causal_conv1d_update`."""
    return ops.causal_conv1d_update(
        x,
        conv_state,
        weight,
        bias,
        activation=activation,
        cache_seqlens=cache_seqlens,
        conv_state_indices=conv_state_indices,
    )


@torch.no_grad()
def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last ``state_len`` inputs of every sequence of ``x [T, D]``, after zeros: ``[sequences, D, state_len]``."""
    if x.dim() != 2:
        raise RuntimeError(f"causal_conv1d_varlen_states: expected x of size [T, D], but got {list(x.shape)}")
    if state_len < 0:
        raise ValueError(
            f"causal_conv1d_varlen_states: expected state_len of at least 0, but got {state_len}"
        )
    check_starts("causal_conv1d_varlen_states", cu_seqlens, None)
    if int(cu_seqlens[-1]) > x.shape[0]:
        raise ValueError(
            f"causal_conv1d_varlen_states: expected cu_seqlens up to {x.shape[0]}, but got {cu_seqlens.tolist()}"
        )
    return states_at(x.t().unsqueeze(0), None, cu_seqlens, state_len)
