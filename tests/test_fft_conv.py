"""Long convolutions: every row against the definition, the closed family, accuracy, threads, and the public surface."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import striate
from fft_oracle import direct, limit
from strategies import host_rows
from striate import _core
from striate.ops._fft import fft_conv, fft_conv_grad_kernel, wide

ROWS = [row["name"] for row in host_rows("fft_conv")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FUNCTION = {1: striate.fft_conv1d, 2: striate.fft_conv2d, 3: striate.fft_conv3d}
PADDINGS = {1: ["causal", "same", "full", "circular"], 2: ["same", "full", "circular"]}
PADDINGS[3] = PADDINGS[2]
ORDERS = ["correlation", "convolution"]


@contextmanager
def only(row: str) -> Iterator[None]:
    isa = row.split(".")[1]
    _core.set_kernels(rf"^fft_conv\w*\.{isa}$")
    try:
        yield
    finally:
        _core.set_kernels(None)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_close(got: Tensor, exact: Tensor, allowed: float, what: str = "") -> None:
    assert got.shape == exact.shape, f"{what}: {tuple(got.shape)}, expected {tuple(exact.shape)}"
    error = float((got.double() - exact).abs().max()) if got.numel() else 0.0
    assert error <= allowed, f"{what}: off by {error:.3g}, at most {allowed:.3g}"


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, str, str]:
    rank = draw(st.sampled_from([1, 1, 2, 3]))
    top = {1: 700, 2: 24, 3: 9}[rank]
    sizes = draw(st.tuples(*[st.integers(1, top)] * rank))
    taps = draw(st.tuples(*[st.integers(1, top)] * rank))
    samples, channels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from(DTYPES))
    x = random(samples, channels, *sizes, seed=draw(st.integers(0, 9)), dtype=dtype)
    form = draw(st.sampled_from(["dense", "sliced", "transposed", "expanded"]))
    if form == "sliced":
        x = torch.cat([x, x], -1)[..., 1 : sizes[-1] + 1]
    elif form == "transposed":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif form == "expanded":
        x = x[..., :1].expand_as(x)
    k = random(
        draw(st.sampled_from([1, channels])),
        *taps,
        seed=20,
        dtype=draw(st.sampled_from([dtype, wide(dtype)])),
    )
    return x, k, draw(st.sampled_from(PADDINGS[rank])), draw(st.sampled_from(ORDERS))


@pytest.mark.parametrize("row", ROWS)
@given(problems())
@settings(max_examples=60, deadline=None)
def test_every_row_is_the_definition(row: str, problem: tuple[Tensor, Tensor, str, str]) -> None:
    x, k, padding, order = problem
    if row.endswith("reference"):
        x, k = x[..., :9], k[..., :9]
    with only(row):
        got = FUNCTION[x.dim() - 2](x, k, padding=padding, order=order)
    assert got.dtype == x.dtype
    assert_close(got, direct(x, k, padding, order), limit(x, k, x.dtype), f"{padding} {order}")


@pytest.mark.parametrize("row", ROWS)
@given(problems())
@settings(max_examples=40, deadline=None)
def test_gradients_are_those_of_the_definition(row: str, problem: tuple[Tensor, Tensor, str, str]) -> None:
    x, k, padding, order = problem
    if row.endswith("reference"):
        x, k = x[..., :9], k[..., :9]
    x, k = x.detach().requires_grad_(), k.detach().requires_grad_()
    wide_x, wide_k = (t.detach().double().requires_grad_() for t in (x, k))
    exact = direct(wide_x, wide_k, padding, order)
    g = random(*exact.shape, seed=3, dtype=x.dtype)
    with only(row):
        y = FUNCTION[x.dim() - 2](x, k, padding=padding, order=order)
        dx, dk = torch.autograd.grad(y, (x, k), g)
    exact_dx, exact_dk = torch.autograd.grad(exact, (wide_x, wide_k), g.double())
    assert dx.dtype == x.dtype and dk.dtype == k.dtype
    assert_close(dx, exact_dx, limit(g, k, x.dtype), f"dx {padding} {order}")
    # What meets the input in a kernel's gradient is all that was produced with that kernel.
    met = g.movedim(1, 0).reshape(k.shape[0], -1)
    n = math.prod(a + b for a, b in zip(g.shape[2:], k.shape[1:], strict=True))
    assert_close(dk, exact_dk, limit(x, met, k.dtype, n), f"dk {padding} {order}")


@pytest.mark.parametrize("row", [row for row in ROWS if not row.endswith("reference")])
@pytest.mark.parametrize(("length", "taps"), [(100_003, 50), (100_003, 3000), (65_537, 65_537), (1, 70_000)])
def test_long_sequences(row: str, length: int, taps: int) -> None:
    x, k = random(2, 2, length), random(2, taps, seed=1)
    with only(row):
        y = striate.fft_conv1d(x, k, order="convolution")
        dk = fft_conv_grad_kernel(y, x, (taps,), False, (0,), False, False)
    n = length + taps
    spectra = [torch.fft.rfft(t.double(), n=n) for t in (x, k, y)]
    exact = torch.fft.irfft(spectra[0] * spectra[1], n=n)[..., :length]
    assert_close(y, exact, limit(x, k, x.dtype))
    exact_dk = torch.fft.irfft((spectra[0].conj() * spectra[2]).sum(0), n=n)[..., :taps]
    norm = float(x.double().norm(dim=-1).max() * y.double().norm(dim=-1).max())
    assert_close(dk, exact_dk, 2.0**-23 * 17**0.5 * norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [33, 1000, 4096, 60_000])
def test_accuracy_with_large_dynamic_range(dtype: torch.dtype, length: int) -> None:
    x, k = random(1, 3, length, dtype=dtype), random(3, length, seed=1, dtype=dtype)
    x = x * torch.logspace(-12, 12, length, dtype=dtype).roll(length // 3)
    k = k * torch.logspace(0, -9, length, dtype=dtype)
    got = striate.fft_conv1d(x, k, order="convolution").double()
    n = 2 * length
    if dtype == torch.float32:
        exact = torch.fft.irfft(torch.fft.rfft(x.double(), n=n) * torch.fft.rfft(k.double(), n=n), n=n)[
            ..., :length
        ]
        assert_close(got, exact, limit(x, k, dtype))
    elif length <= 4096:
        assert_close(got, direct(x, k, "causal", "convolution"), 2 * limit(x, k, dtype))


def test_bits_do_not_depend_on_threads() -> None:
    threads, found = torch.get_num_threads(), []
    cases = [(3, 5, 3000, 3000), (2, 1, 40_000, 100), (9, 2, 700, 700), (1, 40, 900, 900)]
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            results = []
            for samples, channels, length, taps in cases:
                x, k = random(samples, channels, length), random(channels, taps, seed=1)
                y = striate.fft_conv1d(x, k)
                results += [y, fft_conv_grad_kernel(y, x, (taps,), False, (0,), True, False)]
                results.append(fft_conv_grad_kernel(y, x, (taps,), True, (0,), True, False))
            found.append(results)
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_samples_do_not_depend_on_their_batch() -> None:
    x, k = random(4, 3, 500), random(3, 500, seed=1)
    y = striate.fft_conv1d(x, k)
    assert torch.equal(y[1:2], striate.fft_conv1d(x[1:2], k))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [((5,), (3,)), ((3, 4), (2, 3)), ((2, 2, 3), (2, 1, 2))])
def test_the_family_is_closed(
    shape: tuple[tuple[int, ...], tuple[int, ...]], shared: bool, periodic: bool
) -> None:
    sizes, taps = shape
    x = random(2, 2, *sizes, dtype=torch.float64).requires_grad_()
    k = random(1 if shared else 2, *taps, seed=1, dtype=torch.float64).requires_grad_()
    shift, grow = tuple(t // 2 for t in taps), (0,) * len(taps)
    for flip in (False, True):
        arguments = (shift, grow, flip, periodic)
        check = lambda a, b, rest=arguments: fft_conv(a, b, *rest)  # noqa: E731
        assert torch.autograd.gradcheck(check, (x, k), check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(check, (x, k))
        rest = (taps, shared, shift, flip, periodic)
        grad = lambda a, b, rest=rest: fft_conv_grad_kernel(a, b, *rest)  # noqa: E731
        g = random(2, 2, *sizes, seed=2, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(grad, (g, x), check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(grad, (g, x))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("shared", [False, True])
def test_vmap_is_a_loop(axes: tuple[int | None, int | None], shared: bool) -> None:
    x, k = random(2, 3, 10), random(1 if shared else 3, 4, seed=1)
    more = [
        t if axis is None else torch.stack([t, 2 * t, t - 1], axis)
        for t, axis in zip((x, k), axes, strict=True)
    ]
    one = lambda a, b: fft_conv(a, b, (1,), (0,), False, False)  # noqa: E731
    got = torch.func.vmap(one, in_dims=axes)(*more)
    each = [
        one(*[t if axis is None else t.select(axis, i) for t, axis in zip(more, axes, strict=True)])
        for i in range(3)
    ]
    assert torch.allclose(got, torch.stack(each), atol=1e-5)
    if None not in axes:
        grad = lambda a, b: fft_conv_grad_kernel(a, a * 2, (4,), shared, (1,), False, False)  # noqa: E731
        got = torch.func.vmap(grad, in_dims=axes)(*more)
        each = [grad(more[0].select(axes[0] or 0, i), None) for i in range(3)]
        assert torch.allclose(got, torch.stack(each), atol=1e-3)


def test_torch_knows_the_operators() -> None:
    x, k = random(2, 3, 20).requires_grad_(), random(3, 7, seed=1).requires_grad_()
    torch.library.opcheck(torch.ops.striate.fft_conv.default, (x.detach(), k.detach(), [0], [6], True, False))
    torch.library.opcheck(
        torch.ops.striate.fft_conv_grad_kernel.default, (x.detach(), x.detach(), [7], False, [0], False, True)
    )
    striate.fft_conv1d(x, k).sum().backward()
    assert x.grad is not None and k.grad is not None


@pytest.mark.slow
def test_compiles_with_gradients_and_changing_lengths() -> None:
    compiled = torch.compile(
        lambda a, b: striate.fft_conv1d(a, b, padding="causal").square().sum(), fullgraph=True
    )
    for length in (20, 31, 47):
        x, k = random(2, 3, length).requires_grad_(), random(3, 7, seed=1).requires_grad_()
        got = torch.autograd.grad(compiled(x, k), (x, k))
        expected = torch.autograd.grad(striate.fft_conv1d(x, k).square().sum(), (x, k))
        assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("activation", [None, "gelu", "silu", "relu"])
def test_gates_skip_bias_and_activation(rank: int, order: str, shared: bool, activation: str | None) -> None:
    sizes, taps = (9, 5, 4)[:rank], (4, 5, 2)[:rank]
    f64 = torch.float64
    x, pre, post = (random(2, 3, *sizes, seed=seed, dtype=f64) for seed in range(3))
    k = random(1 if shared else 3, *taps, seed=4, dtype=f64)
    bias, skip = random(3, seed=5, dtype=f64), random(3, seed=6, dtype=f64)
    column = (slice(None), *[None] * rank)
    for padding in PADDINGS[rank]:
        with_skip = None if padding == "full" else skip
        gate = None if padding == "full" else post
        got = FUNCTION[rank](
            x,
            k,
            bias,
            padding=padding,
            order=order,
            pregate=pre,
            postgate=gate,
            skip=with_skip,
            activation=activation,
        )
        y = direct(x * pre, k, padding, order) + bias[column]
        y = y if with_skip is None else y + skip[column] * x * pre
        y = y if activation is None else getattr(F, activation)(y)
        assert torch.allclose(got, y if gate is None else y * gate, rtol=0, atol=1e-12)
    assert torch.equal(FUNCTION[rank](x[0], k, order=order), FUNCTION[rank](x, k, order=order)[0])


@pytest.mark.parametrize("padding", ["causal", "circular"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_reversed_kernel_looks_ahead(padding: str, skip: bool) -> None:
    f64 = torch.float64
    x, k, ahead = random(2, 3, 11, dtype=f64), random(3, 5, dtype=f64), random(1, 7, seed=2, dtype=f64)
    d = random(3, seed=3, dtype=f64) if skip else None
    got = striate.fft_conv1d(x, k, padding=padding, order="convolution", kernel_reversed=ahead, skip=d)
    backwards = direct(x.flip(-1), ahead, padding, "convolution").flip(-1)
    expected = direct(x, k, padding, "convolution") + backwards
    if d is not None:
        expected = expected + d[:, None] * x
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", ["causal", "same", "full", "circular"])
def test_meta_tensors_have_the_shapes(padding: str) -> None:
    x, k = torch.randn(2, 3, 21, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    y = striate.fft_conv1d(x, k, padding=padding)
    far = [t.detach().to("meta").requires_grad_() for t in (x, k)]
    z = striate.fft_conv1d(*far, padding=padding)
    z.sum().backward()
    assert z.device.type == "meta" and z.shape == y.shape and z.dtype == y.dtype
    assert [t.grad.shape for t in far if t.grad is not None] == [x.shape, k.shape]


def test_autocast_computes_halves() -> None:
    x, k = random(2, 3, 50), random(3, 50, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = striate.fft_conv1d(x, k, pregate=x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, striate.fft_conv1d(x.bfloat16(), k, pregate=x.bfloat16()))


@pytest.mark.parametrize("shape", [(0, 3, 8), (2, 0, 8)])
def test_nothing_to_convolve(shape: tuple[int, ...]) -> None:
    x, k = torch.zeros(shape, requires_grad=True), torch.ones(shape[1], 5, requires_grad=True)
    y = striate.fft_conv1d(x, k)
    y.sum().backward()
    assert y.shape == shape and torch.equal(k.grad, torch.zeros_like(k)) and x.grad.shape == shape


def test_errors_name_the_argument() -> None:
    x, k = torch.zeros(2, 3, 8), torch.zeros(3, 5)
    wrong: list[tuple[type[Exception], str, dict[str, object]]] = [
        (TypeError, "kernel must be a Tensor, not int", {"kernel": 3}),
        (TypeError, "skip must be a Tensor", {"skip": 1.0}),
        (ValueError, "padding: expected one of", {"padding": "valid"}),
        (ValueError, "order: expected one of", {"order": "fir"}),
        (ValueError, "activation: expected one of", {"activation": "tanh"}),
        (ValueError, "skip: expected None", {"skip": torch.zeros(3), "padding": "full"}),
        (ValueError, "kernel_reversed: expected order", {"kernel_reversed": k}),
        (RuntimeError, r"input: expected a floating CPU or CUDA tensor", {"input": x.int()}),
        (RuntimeError, r"input: expected positive sizes", {"input": x[..., :0]}),
        (RuntimeError, r"kernel: expected \[3, ...\] or \[1, ...\]", {"kernel": torch.zeros(2, 5)}),
        (RuntimeError, r"kernel: expected torch.float32", {"kernel": k.double()}),
        (RuntimeError, r"kernel: expected \[3, ...\]", {"kernel": torch.zeros(3, 0)}),
        (RuntimeError, r"pregate: expected torch.float32 \(2, 3, 8\)", {"pregate": x[:1]}),
        (RuntimeError, r"postgate: expected torch.float32 \(2, 3, 12\)", {"postgate": x, "padding": "full"}),
        (RuntimeError, r"bias: expected \[3\]", {"bias": torch.zeros(1)}),
    ]
    for kind, message, change in wrong:
        arguments = {"input": x, "kernel": k} | change
        with pytest.raises(kind, match=message):
            striate.fft_conv1d(**arguments)
    with pytest.raises(ValueError, match="padding: expected one of"):
        striate.fft_conv2d(x[None], k[None], padding="causal")


def test_inputs_are_not_written() -> None:
    x, k = random(2, 3, 400), random(3, 300, seed=1)
    copies = x.clone(), k.clone()
    y = striate.fft_conv1d(x, k, padding="full")
    assert torch.isfinite(y).all() and torch.equal(x, copies[0]) and torch.equal(k, copies[1])


def test_tables_can_be_forgotten() -> None:
    x, k = random(2, 3, 400), random(3, 300, seed=1)
    y = striate.fft_conv1d(x, k)
    striate.cache_clear()
    assert torch.equal(striate.fft_conv1d(x, k), y)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_children_convolve() -> None:
    x, k = random(4, 8, 4096), random(8, 4096, seed=1)
    expected = striate.fft_conv1d(x, k).numpy().tobytes()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if striate.fft_conv1d(x, k).numpy().tobytes() == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
