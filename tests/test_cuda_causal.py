"""The CUDA rows of the causal convolution: their real text, run on the host with the launches that a device would get,
and compiled for every architecture within a budget of registers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import cuda_nvrtc
import striate
from cuda_emulated import EmulatedCuda
from cuda_recipe import call_on_host, emulate
from oracle import integers
from strategies import BF16, F16, F32, F64
from striate import _call, _core
from test_causal import oracle
from test_cuda_conv import BUDGETS

pytestmark = pytest.mark.usefixtures("rows_on_host")
last = [False, True]


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int, channels_last: bool = False) -> Tensor:
    made = integers(shape, dtype, 32, seed)
    return made.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else made


def request(op: str, settings: str, operands: Any, results: Any) -> Any:
    described = [None if tensor is None else _call._given(tensor) for tensor in operands]
    return _core.cuda_call_recipe(op, settings, described, [_call._given(tensor) for tensor in results])


def check(x: Tensor, width: int, bias: bool = True, states: int = 0, **marks: Tensor) -> None:
    """Integers come out equal."""
    channels, kind = x.shape[1], x.dtype
    w = integers((channels, width), kind, 32, 1)
    b = integers((channels,), kind, 32, 2) if bias else None
    past = integers((states, channels, width - 1), kind, 32, 3) if states else None
    with EmulatedCuda() as mode:
        y = striate.causal_conv1d(x, w, b, initial_states=past, **marks)
    assert mode.ran == {"causal": 1} and y.stride() == striate.causal_conv1d(x, w).stride()
    assert torch.equal(y, oracle(x, w, b, past, **marks).to(kind))


@pytest.mark.parametrize("channels_last", last)
@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16])
def test_integers_come_out_equal(dtype: torch.dtype, channels_last: bool) -> None:
    # A length that packs divide, and one that they do not.
    for length in (64, 41):
        check(drawn((2, 6, length), dtype, 0, channels_last), 4, states=2)


@pytest.mark.parametrize("channels_last", last)
@pytest.mark.parametrize("width", [1, 2, 9, 17])
def test_every_width(width: int, channels_last: bool) -> None:
    check(drawn((3, 5, 33), BF16, 0, channels_last), width, bias=False)


@pytest.mark.parametrize("channels_last", last)
def test_sequences_do_not_see_each_other(channels_last: bool) -> None:
    x = drawn((1, 5, 40), F32, 0, channels_last)
    cuts = torch.tensor([0, 0, 3, 11, 11, 38, 40], dtype=torch.int32)
    check(x, 4, cu_seqlens=cuts)
    check(x, 4, states=6, cu_seqlens=cuts.long())
    numbers = torch.tensor([[0] * 5 + [-1] * 3 + [2] * 9 + [0] * 3] * 2, dtype=torch.int32)
    check(drawn((2, 5, 20), F32, 1, channels_last), 4, seq_idx=numbers)


def test_views_of_any_strides() -> None:
    wide = integers((2, 10, 70), F32, 32, 5)
    check(wide[:, ::2, 3:63:2], 4)
    check(wide.permute(1, 2, 0)[:4, :, :], 3)
    check(wide[:, :, 1:65], 4)  # rows that begin between packs


@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70), st.sampled_from([2, 4]), st.booleans())
def test_drawn_sizes(batch: int, channels: int, length: int, width: int, channels_last: bool) -> None:
    check(drawn((batch, channels, length), F32, 0, channels_last), width)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_silu_is_rounded_once(dtype: torch.dtype) -> None:
    x, w = torch.randn(2, 3, 50).to(dtype), torch.randn(3, 4).to(dtype)
    with EmulatedCuda():
        y = striate.causal_conv1d(x, w, activation="silu")
    exact = torch.nn.functional.silu(oracle(x, w))
    limit = exact.abs() * (2.0**-8 if dtype == BF16 else 1e-6) + 1e-5
    assert ((y.double() - exact).abs() <= limit).all()


def test_gradients_go_through_the_rows_of_convolutions() -> None:
    x, w = integers((2, 3, 30), F32, 32, 0), integers((3, 4), F32, 32, 1)
    g, cuts = integers((1, 3, 30), F32, 32, 2), torch.tensor([0, 7, 30])

    def gradients(function: Any) -> tuple[Tensor, ...]:
        leaves = x[:1].clone().requires_grad_(), w.clone().requires_grad_()
        return torch.autograd.grad(function(*leaves), leaves, g)

    with EmulatedCuda() as mode:
        got = gradients(lambda x, w: striate.causal_conv1d(x, w, cu_seqlens=cuts))
    want = gradients(lambda x, w: oracle(x, w, cu_seqlens=cuts).float())
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert mode.ran == {"causal": 1, "conv_grad_input": 1, "conv_grad_weight": 1}


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("ring", [False, True])
def test_steps_equal_those_of_the_host(ring: bool, length: int, dtype: torch.dtype) -> None:
    x, state = integers((3, 5, length), dtype, 32, 0), integers((4, 5, 6), dtype, 32, 1)
    w, b = integers((5, 4), dtype, 32, 2), integers((5,), dtype, 32, 3)
    options: dict[str, Tensor] = {"conv_state_indices": torch.tensor([2, -1, 0], dtype=torch.int32)}
    if ring:
        options["cache_seqlens"] = torch.tensor([0, 4, 17])
    here, there = state.clone(), state.clone()
    with torch.no_grad():
        want = striate.causal_conv1d_update(x, here, w, b, **options)
        with EmulatedCuda():
            got = striate.causal_conv1d_update(x, there, w, b, **options)
    assert torch.equal(got, want) and torch.equal(here, there)
    assert not torch.equal(here, state)


def test_nothing_outside_the_tensors_is_touched() -> None:
    for channels_last in last:
        x = drawn((2, 5, 21), BF16, 0, channels_last)
        w, past = integers((5, 4), BF16, 32, 1), integers((2, 5, 3), BF16, 32, 3)
        out = torch.full_like(x, torch.nan)
        operands = (x, w, None, past, None)
        emulate(request("causal", "silu=0 marks=none", operands, (out,)), operands, (out,), sanitize=True)
        assert torch.equal(out, oracle(x, w, None, past).to(BF16))


def test_what_registers_do_not_hold_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = integers((1, 3, 40), F32, 32, 0), integers((3, 18), F32, 32, 1)
    with pytest.raises(ValueError, match="at most 17 taps, got 18"):
        request("causal", "silu=0 marks=none", (x, w, None, None, None), (torch.empty_like(x),))
    monkeypatch.setattr(_call, "on_device", call_on_host)
    with EmulatedCuda():
        y = striate.causal_conv1d(x, w)
    assert torch.equal(y, oracle(x, w).float())


COSTS = {
    "plain bf16 k4": (BF16, False, 4, "none"),
    "channels bf16 k4": (BF16, True, 4, "none"),
    "numbers bf16 k4": (BF16, True, 4, "each"),
    "starts f32 k4": (F32, False, 4, "starts"),
    "plain f64 k17": (F64, False, 17, "none"),
    "channels f32 k17": (F32, True, 17, "none"),
}


@pytest.mark.parametrize("name", COSTS)
def test_kernels_compile_within_their_budget(name: str) -> None:
    dtype, channels_last, width, kind = COSTS[name]
    x = drawn((1, 8, 64), dtype, 0, channels_last)
    marks = {"none": None, "starts": torch.tensor([0, 64]), "each": torch.zeros(1, 64, dtype=torch.int32)}[
        kind
    ]
    w, budget = integers((8, width), dtype, 32, 1), json.loads(BUDGETS.read_text())
    made = [request("causal", f"silu=1 marks={kind}", (x, w, None, None, marks), (torch.empty_like(x),))]
    if name == "plain bf16 k4":
        state = torch.zeros(1, 8, 4, dtype=dtype)
        made.append(
            request("causal_update", "silu=1 marks=none", (x, w, None, None, None), (x.clone(), state))
        )
    for turn, recipe in enumerate(made, [*COSTS].index(name)):
        about = f"{recipe['row'].removeprefix('cuda.')} {name}"
        for arch in cuda_nvrtc.archs(kind == "none" and width == 4, turn):
            log = cuda_nvrtc.compile(recipe["launches"][0]["source"], arch)[1]
            assert log.spilled == 0 and log.registers <= budget[about], (about, arch, log)
