"""The causal convolution: against a loop over taps in float64, bit by bit where bits are promised."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import striate
from oracle import UNIT, assert_equal, assert_within, integers
from strategies import F32, F64, MEMORY, any_way, host_rows
from striate import _core
from striate.compat.causal_conv1d import (
    causal_conv1d_fn,
    causal_conv1d_varlen_states,
)
from striate.compat.causal_conv1d import causal_conv1d_update as compat_update

ISAS = sorted({row["isa"] for row in host_rows("causal")})
FORCED = [f"^{op}[.]{isa}$" for op in ("causal(_update)?",) for isa in (*ISAS, "reference")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
every_row = pytest.mark.parametrize("rows", FORCED)


def forced(rows: str) -> Callable[..., Any]:
    """Calls a function while only these rows of the two operators run."""

    def run(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        _core.set_kernels(rows)
        try:
            return function(*args, **options)
        finally:
            _core.set_kernels(None)

    return run


def taps_seen(x: Tensor, states: Tensor | None, back: int, marks: Tensor | None) -> Tensor:
    """x[t - back] for every t, from the states before position 0, and 0 where another sequence is."""
    history = x.new_zeros(*x.shape[:2], back)
    if states is not None and back:
        history = states[..., states.shape[2] - back :]
    seen = torch.cat([history, x], -1)[..., : x.shape[2]]
    if marks is None:
        return seen
    earlier = torch.cat([marks.new_full((marks.shape[0], back), -7), marks], -1)[:, : marks.shape[1]]
    return torch.where((earlier == marks)[:, None], seen, 0)


def oracle(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """The sums z, in float64, tap by tap; no activation."""
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        pieces = [
            oracle(x[..., lo:hi], w, b, None if states is None else states[i : i + 1])
            for i, (lo, hi) in enumerate(itertools.pairwise(bounds))
        ]
        return torch.cat(pieces, -1) if pieces else x.double()
    x, w, total = x.double(), w.double(), torch.zeros(x.shape, dtype=F64)
    past = None if states is None else states.double()
    for tap in range(w.shape[1]):
        total = total + w[:, tap, None] * taps_seen(x, past, w.shape[1] - 1 - tap, seq_idx)
    if b is not None:
        total = total + b.double()[:, None]
    return total if seq_idx is None else total * (seq_idx >= 0)[:, None]


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    kind = draw(st.sampled_from(["plain", "states", "seq_idx", "cu_seqlens", "cu_states"]))
    width = draw(st.sampled_from([1, 2, 3, 4, 4, 5, 9, 17, 70]))
    channels = draw(st.sampled_from([1, 2, 5, 16, 17, 66]))
    length = draw(st.sampled_from([1, 2, 3, 7, 16, 17, 40, 129, 151]))
    batch = 1 if kind.startswith("cu") else draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(DTYPES))
    half = dtype.itemsize == 2
    made: dict[str, Any] = {
        "shape": (batch, channels, length),
        "width": width,
        "dtype": dtype,
        "weight_dtype": F32 if half and draw(st.booleans()) else dtype,
        "bias": draw(st.booleans()),
        "way": draw(any_way),
        "rows": batch if kind == "states" else None,
        "marks": {},
    }
    if kind == "seq_idx":
        marks = draw(st.lists(st.integers(-1, 2), min_size=batch * length, max_size=batch * length))
        if draw(st.booleans()):
            marks = sorted(marks)
        made["marks"] = {"seq_idx": torch.tensor(marks, dtype=torch.int32).view(batch, length)}
    elif kind.startswith("cu"):
        cuts = sorted(draw(st.lists(st.integers(0, length), max_size=6)))
        dtype_of_cuts = draw(st.sampled_from([torch.int32, torch.int64]))
        made["marks"] = {"cu_seqlens": torch.tensor([0, *cuts, length], dtype=dtype_of_cuts)}
        made["rows"] = len(cuts) + 1 if kind == "cu_states" else None
    return made


def operands(p: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    channels = p["shape"][1]
    terms = p["width"] + 1
    x = MEMORY[p["way"]](integers(p["shape"], p["dtype"], terms, 1))
    w = integers((channels, p["width"]), p["weight_dtype"], terms, 2)
    b = integers((channels,), p["weight_dtype"], terms, 3) if p["bias"] else None
    states = None
    if p["rows"] is not None:
        states = integers((p["rows"], channels, p["width"] - 1), p["dtype"], terms, 4)
    return x, w, b, states


@every_row
@given(problems())
def test_integers_are_exact(rows: str, p: dict[str, Any]) -> None:
    x, w, b, states = operands(p)
    got = forced(rows)(striate.causal_conv1d, x, w, b, initial_states=states, **p["marks"])
    assert_equal(got, oracle(x, w, b, states, **p["marks"]), str(p))
    assert got.dtype == x.dtype


@every_row
@given(problems(), st.sampled_from(["silu", "swish"]))
@settings(max_examples=25)
def test_silu_is_within_the_bound(rows: str, p: dict[str, Any], activation: str) -> None:
    x, w, b, states = (t if t is None else t.div(5).to(t.dtype) for t in operands(p))
    assert x is not None and w is not None
    got = forced(rows)(
        striate.causal_conv1d, x, w, b, initial_states=states, activation=activation, **p["marks"]
    )
    z = oracle(x, w, b, states, **p["marks"])
    past = None if states is None else states.abs()
    size = oracle(x.abs(), w.abs(), None if b is None else b.abs(), past, **p["marks"])
    # silu is 1.1 times as steep as its argument at most, and rounds thrice itself
    assert_within(got, torch.nn.functional.silu(z), 1.1 * size, p["width"] + 6, str(p))


@given(problems(), st.sampled_from(["dense", "expanded", "transposed", "sliced"]))
def test_gradients_of_integers_are_exact(p: dict[str, Any], way: str) -> None:
    if p["dtype"].itemsize == 2:
        p = p | {"dtype": F32, "weight_dtype": F32}
    inputs = [None if t is None else t.detach().clone().requires_grad_() for t in operands(p)]
    leaves = [t for t in inputs if t is not None]
    x, w, b, states = inputs
    assert x is not None and w is not None
    wants_final = "seq_idx" not in p["marks"]
    found = striate.causal_conv1d(
        x, w, b, initial_states=states, return_final_states=wants_final, **p["marks"]
    )
    y, final = found if wants_final else (found, None)
    gy = MEMORY[way](integers(tuple(y.shape), y.dtype, 4, 5))
    exact = [t.detach().double().requires_grad_() for t in leaves]
    named = dict(zip([i for i, t in enumerate(inputs) if t is not None], exact, strict=True))
    ex, ew, eb, es = (named.get(i) for i in range(4))
    assert ex is not None and ew is not None
    total = (oracle(ex, ew, eb, es, **p["marks"]) * gy).sum()
    loss = (y * gy).sum()
    if final is not None:
        gf = integers(tuple(final.shape), y.dtype, 4, 6)
        total = total + (final_states(ex, es, p) * gf).sum()
        loss = loss + (final * gf).sum()
        assert_equal(final.detach(), final_states(ex, es, p).detach())
    wanted = torch.autograd.grad(total, exact, allow_unused=True)
    for got, want in zip(torch.autograd.grad(loss, leaves), wanted, strict=True):
        assert_equal(got, torch.zeros(got.shape, dtype=F64) if want is None else want, str(p))


def final_states(x: Tensor, states: Tensor | None, p: dict[str, Any]) -> Tensor:
    history = p["width"] - 1
    bounds = p["marks"]["cu_seqlens"].tolist() if p["marks"] else None
    if bounds is None:
        past = x.new_zeros(x.shape[0], x.shape[1], history) if states is None else states
        joined = torch.cat([past, x], -1)
        return joined[..., joined.shape[2] - history :]
    made = []
    for i, (lo, hi) in enumerate(itertools.pairwise(bounds)):
        past = x.new_zeros(1, x.shape[1], history) if states is None else states[i : i + 1]
        joined = torch.cat([past, x[..., lo:hi]], -1)
        made.append(joined[..., joined.shape[2] - history :])
    return torch.cat(made)


def test_a_sum_has_an_expanded_gradient() -> None:
    for shape, states in (((2, 3, 9), None), ((2, 3, 2), torch.randn(2, 3, 3, dtype=F64))):
        x = torch.randn(shape, dtype=F64, requires_grad=True)
        w = torch.randn(3, 4, dtype=F64, requires_grad=True)
        got = torch.autograd.grad(striate.causal_conv1d(x, w, initial_states=states).sum(), (x, w))
        want = torch.autograd.grad(oracle(x, w, None, states).sum(), (x, w))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_nothing_to_do() -> None:
    """No positions, no samples, one tap, empty sequences."""
    for shape in ((2, 3, 0), (0, 3, 5), (1, 3, 0)):
        x, w = torch.randn(shape, requires_grad=True), torch.randn(3, 4, requires_grad=True)
        marks = [{}, {"seq_idx": torch.zeros(shape[0], shape[2], dtype=torch.int64)}]
        if shape[0] == 1:
            marks.append({"cu_seqlens": torch.tensor([0, 0, 0])})
        for options in marks:
            y = striate.causal_conv1d(x, w, activation="silu", **options)
            assert y.shape == shape
            assert all(not g.any() for g in torch.autograd.grad(y.sum(), (x, w)))
    x, states = real((1, 3, 4), F32).requires_grad_(), torch.zeros(2, 3, 0, requires_grad=True)
    y, final = striate.causal_conv1d(
        x,
        torch.ones(3, 1),
        initial_states=states,
        cu_seqlens=torch.tensor([0, 0, 4]),
        return_final_states=True,
    )
    assert torch.equal(y, x) and final.shape == (2, 3, 0)
    gx, gs = torch.autograd.grad(y.sum(), (x, states))
    assert (gx == 1).all() and gs.shape == states.shape


def real(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


@every_row
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_what_follows(rows: str, last: bool, dtype: torch.dtype) -> None:
    run = forced(rows)
    for width, length, cuts in ((4, 300, (1, 3, 17, 130)), (100, 150, (1, 64, 99, 100, 149))):
        x, w, b = real((2, 19, length), dtype), real((19, width), dtype, 1), real((19,), dtype, 2)
        x = MEMORY["channels-last"](x) if last else x
        whole = run(striate.causal_conv1d, x, w, b, activation="silu")
        for cut in cuts:
            head, states = run(
                striate.causal_conv1d, x[..., :cut], w, b, activation="silu", return_final_states=True
            )
            assert torch.equal(head, whole[..., :cut])
            tail = run(striate.causal_conv1d, x[..., cut:], w, b, activation="silu", initial_states=states)
            assert torch.equal(tail, whole[..., cut:])


@every_row
def test_layouts_threads_and_steps_give_the_same_bits(rows: str) -> None:
    run = forced(rows)
    x, w, b = real((2, 70, 90), F32), real((70, 5), F32, 1), real((70,), F32, 2)
    whole = run(striate.causal_conv1d, x, w, b, activation="silu")
    assert torch.equal(whole, run(striate.causal_conv1d, MEMORY["channels-last"](x), w, b, activation="silu"))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(whole, run(striate.causal_conv1d, x, w, b, activation="silu"))
    finally:
        torch.set_num_threads(threads)
    state = torch.zeros(2, 70, 4)
    for t in range(12):
        step = run(striate.causal_conv1d_update, x[..., t], state, w, b, activation="silu")
        assert torch.equal(step, whole[..., t])


def test_large_shapes_stay_within_the_bound() -> None:
    for shape, width in (((1, 3, 9000), 4096), ((2, 40, 5000), 4), ((1, 130, 300), 64)):
        for last in (False, True):
            x, w = real(shape, F32), real((shape[1], width), F32, 1)
            x = MEMORY["channels-last"](x) if last else x
            exact = oracle(x, w) if width < 100 else long_oracle(x, w)
            size = oracle(x.abs(), w.abs()) if width < 100 else long_oracle(x.abs(), w.abs())
            # Taps are summed in pieces of 64.
            assert_within(striate.causal_conv1d(x, w), exact, size, 64 + width // 64 + 1)


def long_oracle(x: Tensor, w: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(x.double(), (w.shape[1] - 1, 0))
    return torch.nn.functional.conv1d(padded, w.double().unsqueeze(1), groups=w.shape[0])


@every_row
@given(
    st.sampled_from([1, 2, 4, 5]),
    st.integers(0, 9),
    st.sampled_from([1, 2, 4, 5, 8]),
    st.sampled_from(["linear", "circular"]),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(["dense", "channels-last", "sliced"]),
)
def test_update_is_the_definition(
    rows: str, width: int, more: int, length: int, kind: str, indexed: bool, dtype: torch.dtype, way: str
) -> None:
    batch, channels, slots, size = 3, 67, 5, width - 1 + more
    state = MEMORY[way](integers((slots if indexed else batch, channels, size), dtype, 8, 1))
    x = MEMORY[way](integers((batch, channels, length), dtype, 8, 2))
    w, b = integers((channels, width), dtype, 8, 3), integers((channels,), dtype, 8, 4)
    index = torch.tensor([4, -1, 2], dtype=torch.int32) if indexed else None
    at = None
    if kind == "circular" and size >= max(length, 1):
        at = torch.tensor([0, 3, 2 * size + 1], dtype=torch.int32)
    wanted, expected = state.double().clone(), torch.zeros(x.shape, dtype=F64)
    for n in range(batch):
        row = n if index is None else int(index[n])
        if row < 0:
            continue
        old = wanted[row]
        if at is not None:
            old = old.roll(-int(at[n]), -1)
        joined = torch.cat([old, x[n].double()], -1)
        past = joined[None, :, size - width + 1 : size]
        expected[n] = oracle(x[n : n + 1], w, b, past)[0]
        fresh = joined[:, joined.shape[1] - size :]
        # `fresh` has the oldest step first; in a circular state that one stands where the next is written
        wanted[row] = fresh if at is None else fresh.roll(int(at[n]) + length, -1)
    got = forced(rows)(
        striate.causal_conv1d_update, x, state, w, b, cache_seqlens=at, conv_state_indices=index
    )
    assert_equal(got, expected)
    assert torch.equal(state.double(), wanted)


def test_update_of_vectors_and_the_layer() -> None:
    layer = striate.nn.CausalConv1d(6, 4, activation="silu")
    torchs = torch.nn.Conv1d(6, 6, 4, padding=3, groups=6)
    torchs.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 11)
    y, final = layer(x, return_final_states=True)
    torch.testing.assert_close(y, torch.nn.functional.silu(torchs(x)[..., :11]))
    state = layer.new_state(2)
    steps = torch.stack([layer.step(x[..., t], state) for t in range(11)], -1)
    assert torch.equal(steps, y) and torch.equal(state, final)
    assert "activation='silu'" in repr(layer)
    wide = layer.new_state(2, 7)
    for t in range(11):
        count = torch.full((2,), t, dtype=torch.int32)
        assert torch.equal(layer.step(x[..., t], wide, cache_seqlens=count), y[..., t])


def test_compatible_with_causal_conv1d() -> None:
    x, w, b = real((2, 5, 9), F32), real((5, 4), F32, 1), real((5,), F32, 2)
    out = torch.full((2, 5, 3), torch.nan)
    y, states = causal_conv1d_fn(x, w, b, return_final_states=True, final_states_out=out, activation="swish")
    assert states is out and torch.equal(out, x[..., 6:])
    assert torch.equal(y, striate.causal_conv1d(x, w, b, activation="silu"))
    assert torch.equal(causal_conv1d_fn(x, w, final_states_out=out), striate.causal_conv1d(x, w))
    seq_idx = torch.tensor([[0] * 4 + [1] * 5] * 2, dtype=torch.int32)
    assert_within(
        causal_conv1d_fn(x, w, b, seq_idx),
        oracle(x, w, b, seq_idx=seq_idx),
        oracle(x.abs(), w.abs(), b.abs(), seq_idx=seq_idx),
        5,
    )
    state = torch.zeros(2, 5, 3)
    w.requires_grad_()
    assert torch.equal(
        compat_update(x[..., 0], state, w, b, "silu"),
        causal_conv1d_fn(x[..., :1], w.detach(), b, activation="silu")[..., 0],
    )
    packed, cu = real((9, 5), F32), torch.tensor([0, 2, 2, 9])
    got = causal_conv1d_varlen_states(packed, cu, 4)
    want = torch.zeros(3, 5, 4)
    want[0, :, 2:], want[2] = packed[:2].t(), packed[5:].t()
    assert torch.equal(got, want)


def arguments(**options: Any) -> tuple[Callable[..., Tensor], list[Tensor]]:
    made = [real((1, 3, 5), F64), real((3, 3), F64, 1), real((3,), F64, 2)]
    return functools.partial(striate.causal_conv1d, **options), [t.requires_grad_() for t in made]


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "silu"},
        {"seq_idx": torch.tensor([[0, 1, 0, 0, -1]]), "activation": "silu"},
        {"cu_seqlens": torch.tensor([0, 2, 2, 5])},
    ],
    ids=lambda options: "-".join(options),
)
def test_derivatives(options: dict[str, Any]) -> None:
    function, inputs = arguments(**options)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, inputs)
    if "cu_seqlens" in options or "seq_idx" not in options:
        rows = 3 if "cu_seqlens" in options else 1
        states = real((rows, 3, 2), F64, 3).requires_grad_()

        def with_states(x: Tensor, w: Tensor, b: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            return function(x, w, b, initial_states=s, return_final_states=True)

        assert torch.autograd.gradcheck(with_states, [*inputs, states], check_forward_ad=True)
        assert torch.autograd.gradgradcheck(with_states, [*inputs, states])


def test_vmap_opcheck_and_compile() -> None:
    x, w = real((4, 2, 3, 6), F32), real((4, 3, 3), F32, 1)
    got = torch.func.vmap(lambda a, k: striate.causal_conv1d(a, k, activation="silu"))(x, w)
    want = torch.stack([striate.causal_conv1d(a, k, activation="silu") for a, k in zip(x, w, strict=True)])
    assert torch.equal(got, want)
    args = (x[0], w[0], None, None, None, True)
    torch.library.opcheck(torch.ops.striate.causal.default, args)
    last = MEMORY["channels-last"](x[0])
    torch.library.opcheck(torch.ops.striate.causal.default, (last, *args[1:]))
    state = torch.zeros(2, 3, 4)
    torch.library.opcheck(
        torch.ops.striate.causal_update.default, (x[0], state, w[0], None, None, None, True)
    )
    compiled = torch.compile(
        lambda a, k: striate.causal_conv1d(a, k, activation="silu", return_final_states=True),
        backend="aot_eager",
        fullgraph=True,
    )
    a, k = x[0].clone().requires_grad_(), w[0].clone().requires_grad_()
    found = torch.autograd.grad(sum(t.square().sum() for t in compiled(a, k)), (a, k))
    plain = striate.causal_conv1d(a, k, activation="silu", return_final_states=True)
    for one, other in zip(
        found, torch.autograd.grad(sum(t.square().sum() for t in plain), (a, k)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_autocast_keeps_the_weight() -> None:
    x, w = real((2, 3, 6), F32), real((3, 3), F32, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = striate.causal_conv1d(x, w, initial_states=real((2, 3, 2), F32))
    assert y.dtype == torch.bfloat16


def test_race_free() -> None:
    threads = torch.get_num_threads()
    x, w = real((3, 20, 700), F32), real((20, 4), F32, 1)
    try:
        torch.set_num_threads(4)
        first = striate.causal_conv1d(x, w, activation="silu")
        assert all(torch.equal(first, striate.causal_conv1d(x, w, activation="silu")) for _ in range(300))
    finally:
        torch.set_num_threads(threads)


def test_half_precision_rounds_once() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        x, w = real((2, 5, 40), dtype), real((5, 4), dtype, 1)
        error = (striate.causal_conv1d(x, w).double() - oracle(x, w)).abs()
        assert (error <= 1.01 * UNIT[dtype] * oracle(x, w).abs() + 1e-6).all()
