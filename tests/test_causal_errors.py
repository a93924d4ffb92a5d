"""Wrong calls of the causal convolution: the class, the argument and what came; and a process that works after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import striate
from striate.compat import causal_conv1d as compat

R, T, V, N = RuntimeError, TypeError, ValueError, NotImplementedError
x, w, b = torch.randn(2, 4, 6), torch.randn(4, 3), torch.randn(4)
one = x[:1]
state = torch.randn(2, 4, 3)
idx = torch.zeros(2, 6, dtype=torch.int32)
f, u = striate.causal_conv1d, striate.causal_conv1d_update


def cu(*starts: int) -> torch.Tensor:
    return torch.tensor(starts, dtype=torch.int32)


WRONG: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("x matrix", lambda: f(x[0], w), R, ("[4, 6]",)),
    ("x 4-D", lambda: f(x[None], w), R, ("[1, 2, 4, 6]",)),
    ("x numpy", lambda: f(x.numpy(), w), T, ("x", "ndarray")),
    ("x integer", lambda: f(x.long(), w), N, ("x", "int64")),
    ("x complex", lambda: f(x + 0j, w), N, ("complex64",)),
    ("weight None", lambda: f(x, None), T, ("weight", "NoneType")),
    ("weight 3-D", lambda: f(x, w.unsqueeze(1)), R, ("weight", "[4, 1, 3]")),
    ("weight channels", lambda: f(x, torch.randn(5, 3)), R, ("weight", "[5, 3]")),
    ("weight empty", lambda: f(x, torch.randn(4, 0)), R, ("weight", "[4, 0]")),
    ("weight double", lambda: f(x, w.double()), R, ("weight", "float64")),
    ("weight half", lambda: f(x, w.half()), R, ("weight", "float16")),
    ("bias shape", lambda: f(x, w, torch.randn(3)), R, ("bias", "[3]")),
    ("bias matrix", lambda: f(x, w, torch.randn(4, 1)), R, ("bias", "[4, 1]")),
    ("bias dtype", lambda: f(x, w, b.double()), R, ("bias", "float64")),
    ("bias number", lambda: f(x, w, 1.0), T, ("bias", "float")),
    ("activation unknown", lambda: f(x, w, activation="relu"), N, ("activation", "'relu'")),
    ("activation bool", lambda: f(x, w, activation=True), N, ("activation", "True")),
    ("states short", lambda: f(x, w, initial_states=state[..., :1]), R, ("initial_states", "[2, 4, 1]")),
    ("states batch", lambda: f(x, w, initial_states=state[:1, :, :2]), R, ("initial_states", "[1, 4, 2]")),
    (
        "states dtype",
        lambda: f(x, w, initial_states=state[..., :2].double()),
        R,
        ("initial_states", "float64"),
    ),
    ("states list", lambda: f(x, w, initial_states=[0]), T, ("initial_states", "list")),
    (
        "states of sequences",
        lambda: f(one, w, initial_states=state[:1, :, :2], cu_seqlens=cu(0, 3, 6)),
        R,
        ("initial_states", "[2, 4, 2]"),
    ),
    ("states and seq_idx", lambda: f(x, w, initial_states=state[..., :2], seq_idx=idx), V, ("seq_idx",)),
    (
        "final and seq_idx",
        lambda: f(x, w, return_final_states=True, seq_idx=idx),
        V,
        ("return_final_states",),
    ),
    ("final word", lambda: f(x, w, return_final_states="yes"), T, ("return_final_states", "'yes'")),
    ("seq_idx float", lambda: f(x, w, seq_idx=idx.float()), T, ("seq_idx", "float32")),
    ("seq_idx shape", lambda: f(x, w, seq_idx=idx[:, :5]), R, ("seq_idx", "[2, 5]")),
    ("seq_idx vector", lambda: f(x, w, seq_idx=idx[0]), R, ("seq_idx", "[6]")),
    ("seq_idx list", lambda: f(x, w, seq_idx=[0]), T, ("seq_idx", "list")),
    ("seq_idx and cu_seqlens", lambda: f(one, w, seq_idx=idx[:1], cu_seqlens=cu(0, 6)), V, ("cu_seqlens",)),
    ("cu_seqlens of a batch", lambda: f(x, w, cu_seqlens=cu(0, 6)), V, ("cu_seqlens", "[2, 4, 6]")),
    ("cu_seqlens start", lambda: f(one, w, cu_seqlens=cu(1, 6)), V, ("cu_seqlens", "[1, 6]")),
    ("cu_seqlens end", lambda: f(one, w, cu_seqlens=cu(0, 5)), V, ("cu_seqlens", "[0, 5]")),
    ("cu_seqlens beyond", lambda: f(one, w, cu_seqlens=cu(0, 7)), V, ("cu_seqlens", "[0, 7]")),
    ("cu_seqlens back", lambda: f(one, w, cu_seqlens=cu(0, 4, 2, 6)), V, ("cu_seqlens", "4, 2")),
    ("cu_seqlens negative", lambda: f(one, w, cu_seqlens=cu(0, -1, 6)), V, ("cu_seqlens", "-1")),
    ("cu_seqlens matrix", lambda: f(one, w, cu_seqlens=cu(0, 6)[None]), R, ("cu_seqlens", "[1, 2]")),
    ("cu_seqlens empty", lambda: f(one, w, cu_seqlens=cu()), R, ("cu_seqlens", "[0]")),
    (
        "cu_seqlens float",
        lambda: f(one, w, cu_seqlens=torch.tensor([0.0, 6.0])),
        T,
        ("cu_seqlens", "float32"),
    ),
    ("update x", lambda: u(x[0, 0], state, w), R, ("x", "[6]")),
    ("update state short", lambda: u(x, state[..., :1], w), R, ("conv_state", "[2, 4, 1]")),
    ("update state channels", lambda: u(x, state[:, :3], w), R, ("conv_state", "[2, 3, 3]")),
    ("update state rank", lambda: u(x, state[0], w), R, ("conv_state", "[4, 3]")),
    ("update state rows", lambda: u(x, state[:1], w), R, ("conv_state", "[1, 4, 3]")),
    ("update state dtype", lambda: u(x, state.double(), w), R, ("conv_state", "float64")),
    ("update state None", lambda: u(x, None, w), T, ("conv_state", "NoneType")),
    ("update weight", lambda: u(x, state, torch.randn(5, 3)), R, ("weight", "[5, 3]")),
    ("update activation", lambda: u(x, state, w, activation="tanh"), N, ("'tanh'",)),
    ("update lengths", lambda: u(x, state, w, cache_seqlens=cu(1)), R, ("cache_seqlens", "[1]")),
    ("update lengths float", lambda: u(x, state, w, cache_seqlens=b[:2]), T, ("cache_seqlens", "float32")),
    ("update lengths negative", lambda: u(x, state, w, cache_seqlens=cu(1, -2)), V, ("cache_seqlens", "-2")),
    ("update index high", lambda: u(x, state, w, conv_state_indices=cu(0, 2)), IndexError, ("[0, 2]",)),
    ("update index low", lambda: u(x, state, w, conv_state_indices=cu(0, -2)), IndexError, ("-2",)),
    ("update index shape", lambda: u(x, state, w, conv_state_indices=cu(0)), R, ("conv_state_indices",)),
    ("update index float", lambda: u(x, state, w, conv_state_indices=b[:2]), T, ("conv_state_indices",)),
    ("update gradient", lambda: u(x, state, w.clone().requires_grad_()), R, ("gradient", "no_grad")),
    ("layer activation", lambda: striate.nn.CausalConv1d(4, 3, activation="gelu"), N, ("'gelu'",)),
    (
        "compat out",
        lambda: compat.causal_conv1d_fn(x, w, final_states_out=state),
        R,
        ("final_states_out", "[2, 4, 3]"),
    ),
    ("compat lengths", lambda: compat.causal_conv1d_varlen_states(x[0], cu(0, 9), 2), V, ("[0, 9]",)),
    ("compat x", lambda: compat.causal_conv1d_varlen_states(x, cu(0, 2), 2), R, ("[2, 4, 6]",)),
    ("compat negative", lambda: compat.causal_conv1d_varlen_states(x[0], cu(0, 2), -1), V, ("-1",)),
]


@pytest.mark.parametrize(("call", "kind", "words"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_wrong_calls_are_explained(
    call: Callable[[], Any], kind: type[Exception], words: tuple[str, ...]
) -> None:
    before = state.clone()
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert torch.equal(state, before)
    assert torch.isfinite(f(x, w, b)).all()
