"""The CUDA rows of long convolutions: their real text, run on the host with the launches that a device would get, and
compiled for every architecture within a budget of registers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import cuda_nvrtc
import striate
from cuda_emulated import EmulatedCuda
from cuda_recipe import emulate
from fft_oracle import direct, limit
from oracle import UNIT, accumulator, integers
from strategies import BF16, F16, F32, F64
from striate import _call, _core
from striate.ops import _cuda
from striate.ops._fft import wide
from test_cuda_conv import BUDGETS

pytestmark = pytest.mark.usefixtures("rows_on_host")
# Shared memory that holds a line of 2^8 numbers in float32, and no longer one.
SCARCE = 1088


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes through global memory for everything that is not very short."""
    monkeypatch.setattr(_cuda, "shared_bytes", lambda device: SCARCE)


def drawn(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return made.to(dtype)


def outcome(function: Any, x: Tensor, k: Tensor, g: Tensor) -> list[Tensor]:
    """The output and, upstream gradient g, both gradients."""
    leaves = x.detach().requires_grad_(), k.detach().requires_grad_()
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, g.to(y.dtype))]


def check(x: Tensor, k: Tensor, padding: str = "causal", order: str = "correlation") -> None:
    """The output and both gradients are as far from the definition as rounding explains."""
    rank, n = x.dim() - 2, math.prod(a + b for a, b in zip(x.shape[2:], k.shape[1:], strict=True))
    function = getattr(striate, f"fft_conv{rank}d")
    exact = direct(x, k, padding, order)
    g = drawn(*exact.shape, dtype=x.dtype, seed=9)
    with EmulatedCuda() as mode:
        got = outcome(lambda x, k: function(x, k, padding=padding, order=order), x, k, g)
    assert mode.ran == {"fft_conv": 2, "fft_conv_grad_kernel": 1}
    want = outcome(lambda x, k: direct(x, k, padding, order), x.double(), k.double(), g)
    rows = g.double().abs().flatten(2).sum(2).sum(0).max() * (x.shape[1] if k.shape[0] == 1 else 1)
    unit = 3 * math.sqrt(math.log2(n) + 1) * 2 * UNIT[accumulator(x.dtype)]
    stored = UNIT[k.dtype] if k.dtype != accumulator(x.dtype) else 0.0
    allowed = (
        limit(x, k, x.dtype, n),
        limit(g, k, x.dtype, n),
        float(x.double().abs().max() * rows) * (unit + stored),
    )
    for what, a, b, most in zip(("y", "dx", "dk"), got, want, allowed, strict=True):
        assert a.shape == b.shape and a.isfinite().all(), what
        error = float((a.double() - b).abs().max())
        assert error <= most, f"{what}: off by {error:.3g}, at most {most:.3g}"


@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16])
def test_every_type(dtype: torch.dtype) -> None:
    check(drawn(2, 3, 251, dtype=dtype), drawn(3, 241, dtype=wide(dtype), seed=1) / 241)


@pytest.mark.parametrize(("length", "taps"), [(1, 1), (7, 2), (500, 130), (1009, 997)])
def test_lengths(length: int, taps: int) -> None:
    check(drawn(2, 3, length), drawn(3, taps, seed=1) / taps)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_longest_that_a_block_holds(dtype: torch.dtype) -> None:
    """The longest lines exchange real and imaginary parts one after the other."""
    length = 8192 if dtype == F32 else 4096
    check(drawn(1, 1, 2 * length, dtype=dtype), drawn(1, length - 1, dtype=dtype, seed=1) / length)


@pytest.mark.parametrize("order", ["correlation", "convolution"])
@pytest.mark.parametrize("padding", ["causal", "same", "full", "circular"])
def test_placements(padding: str, order: str) -> None:
    check(drawn(2, 3, 121), drawn(3, 34, seed=1) / 34, padding, order)
    check(drawn(2, 3, 50), drawn(1, 171, seed=1) / 171, padding, order)


@pytest.mark.parametrize("padding", ["same", "full", "circular"])
def test_planes_and_volumes(padding: str) -> None:
    check(drawn(2, 2, 12, 11), drawn(2, 5, 9, seed=1) / 45, padding)
    check(drawn(1, 2, 3, 4, 7), drawn(1, 3, 6, 2, seed=1) / 36, padding, "convolution")


def test_short_kernels_take_overlapping_windows() -> None:
    x, k = drawn(2, 3, 4001), drawn(3, 21, seed=1) / 21
    for padding in ("causal", "same", "circular"):
        check(x, k, padding)
    check(drawn(1, 2, 30, 200), drawn(2, 3, 3, seed=1) / 9, "same")
    recipe = request("fft_conv", (x, k), (torch.empty_like(x),))
    source = recipe["launches"][-1]["source"]
    assert any(f"bits = {bits};" in source for bits in (8, 9, 10)), (
        source
    )  # one transform of all would need 11


@pytest.mark.parametrize(("length", "taps"), [(400, 700), (3001, 2999)])
@pytest.mark.usefixtures("scarce")
def test_long_lines_pass_through_global_memory(length: int, taps: int) -> None:
    x, k = drawn(2, 3, length), drawn(3, taps, seed=1) / taps
    assert passes(request("fft_conv", (x, k), (x,), shared=SCARCE))
    check(x, k)


@pytest.mark.slow
@pytest.mark.usefixtures("scarce")
def test_longer_lines_pass_twice() -> None:
    x, k = drawn(2, 3, 6100), drawn(3, 8300, seed=1) / 8300
    assert "tops = 2;" in request("fft_conv", (x, k), (x,), shared=SCARCE)["launches"][0]["source"]
    check(x, k)


@pytest.mark.slow
@pytest.mark.usefixtures("scarce")
def test_long_lines_of_planes() -> None:
    check(drawn(2, 2, 21, 30, dtype=BF16), drawn(2, 21, 25, seed=1) / 500, "same")
    check(drawn(1, 2, 400), drawn(1, 390, seed=1) / 390, "circular", "convolution")


@pytest.mark.parametrize("dtype", [F32, F64])
def test_integers_are_exact_after_rounding(dtype: torch.dtype) -> None:
    x, k = integers((2, 3, 300), dtype, 8, 0), integers((3, 90), dtype, 8, 1)
    g = integers((2, 3, 300), dtype, 8, 2)
    with EmulatedCuda():
        y = striate.fft_conv1d(x, k, padding="same")
        dk = torch.ops.striate.fft_conv_grad_kernel(g, x, [90], False, [45], True, False)
    exact = direct(x, k, "same", "correlation")
    assert torch.equal(y.round(), exact.to(dtype))
    want = outcome(lambda x, k: direct(x, k, "same", "correlation"), x.double(), k.double(), g.double())[2]
    assert torch.equal(dk.round(), want.to(dtype))


def test_gates_go_around_it() -> None:
    """The gates, the direct path and the activation are torch's own operators, with their gradients."""
    x, k = drawn(2, 3, 60), drawn(3, 60, seed=1)
    options: dict[str, Any] = {"pregate": drawn(2, 3, 60, seed=2), "postgate": drawn(2, 3, 60, seed=3)}
    options |= {"skip": drawn(3, seed=4), "bias": drawn(3, seed=5), "activation": "silu"}
    names = [name for name, value in options.items() if isinstance(value, Tensor)]

    def gradients(on: Any) -> tuple[Tensor, ...]:
        leaves = [t.clone().requires_grad_() for t in (x, k, *(options[name] for name in names))]
        named = dict(zip(names, leaves[2:], strict=True))
        with on:
            y = striate.fft_conv1d(*leaves[:2], **{**options, **named})
            return torch.autograd.grad(y.square().sum(), leaves)

    with EmulatedCuda() as mode:
        got = gradients(mode)
    for a, b in zip(got, gradients(torch.enable_grad()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_views_of_any_strides() -> None:
    wide_ = drawn(2, 6, 401)
    check(wide_[:, ::2, 3:303:2], drawn(50, 3, seed=1).t() / 50)
    check(wide_.permute(1, 2, 0)[:4, :150], drawn(1, 2, seed=1))
    check(wide_[:, :, :1].expand(2, 6, 90), drawn(6, 90, seed=1) / 90)


@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 600), st.integers(1, 600), st.booleans())
def test_drawn_sizes(batch: int, channels: int, length: int, taps: int, shared: bool) -> None:
    k = drawn(1 if shared else channels, taps, seed=1) / taps
    check(drawn(batch, channels, length), k, "same")


def request(op: str, operands: Sequence[Tensor], results: Sequence[Tensor], **more: int) -> Any:
    words = _call.words(**({"shift": 0, "flip": False, "periodic": False} | more))
    described = [_call._given(tensor) for tensor in operands]
    return _core.cuda_call_recipe(op, words, described, [_call._given(tensor) for tensor in results])


def passes(recipe: Any) -> bool:
    """Whether lines pass through global memory between launches."""
    return any("fft_top" in step["source"] for step in recipe["launches"])


@pytest.mark.parametrize("shared", [SCARCE, 68 << 10])
def test_nothing_outside_the_tensors_is_touched(shared: int) -> None:
    x, k = drawn(2, 3, 301), drawn(3, 500, seed=1)
    y, dk = torch.full_like(x, torch.nan), torch.full_like(k, torch.nan)
    for op, operands, out in (("fft_conv", (x, k), y), ("fft_conv_grad_kernel", (x, x), dk)):
        recipe = request(op, operands, (out,), shared=shared)
        assert passes(recipe) == (shared == SCARCE)
        emulate(recipe, operands, (out,), sanitize=True)
        assert out.isfinite().all()
    exact = direct(x, k, "causal", "convolution")
    assert (y.double() - exact).abs().max() <= limit(x, k, F32)


@pytest.mark.parametrize("shared", [SCARCE, 68 << 10])
def test_bits_do_not_depend_on_the_order_of_threads(shared: int) -> None:
    x, k = drawn(9, 2, 301), drawn(2, 500, seed=1)
    for op, operands, like in (("fft_conv", (x, k), x), ("fft_conv_grad_kernel", (x, x), k)):
        made = []
        for seed in range(3):
            out = torch.full_like(like, torch.nan)
            emulate(request(op, operands, (out,), shared=shared), operands, (out,), seed)
            made.append(out)
        assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shared", [SCARCE, 68 << 10])
def test_lines_take_turns(shared: int, channels: int) -> None:
    """However few numbers fit between passes, the output has the same bits, and the sums are right."""
    x, k = drawn(2, 3, 301), drawn(channels, 500, seed=1)
    y, dk = torch.empty_like(x), torch.empty_like(k)
    for op, operands, out in (("fft_conv", (x, k), y), ("fft_conv_grad_kernel", (x, x), dk)):
        whole = request(op, operands, (out,), shared=shared)
        emulate(whole, operands, (out,))
        for lines in (1, 4):
            again = torch.full_like(out, torch.nan)
            recipe = request(op, operands, (again,), shared=shared, between=lines * 4 << 10)
            assert (
                len(recipe["launches"]) >= len(whole["launches"])
                and recipe["workspace"] <= whole["workspace"]
            )
            emulate(recipe, operands, (again,))
            slack = 0 if op == "fft_conv" else 1e-6 * float(out.abs().max())
            torch.testing.assert_close(again, out, rtol=0, atol=slack)


def test_bits_do_not_depend_on_what_else_is_in_the_batch() -> None:
    x, k = drawn(5, 3, 300), drawn(3, 90, seed=1)
    with EmulatedCuda():
        together = striate.fft_conv1d(x, k)
        assert torch.equal(together[3:4], striate.fft_conv1d(x[3:4], k))
        assert torch.equal(together[:, 1:2], striate.fft_conv1d(x[:, 1:2], k[1:2]))


def test_explain_names_the_row_or_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no row takes is composed of torch's operators."""
    x, k = drawn(1, 2, 40), drawn(2, 7, seed=1)
    assert request("fft_conv", (x, k), (torch.empty_like(x),))["row"] == "cuda.fft_conv"
    assert request("fft_conv_grad_kernel", (x, x), (k,))["row"] == "cuda.fft_conv_grad_kernel"
    with pytest.raises(ValueError, match="leaves the product"):
        request("fft_conv", (x, k), (torch.empty(1, 2, 60),))
    with pytest.raises(ValueError, match="coefficients"):
        request(
            "fft_conv", (x[..., :1].expand(1, 2, 1 << 27), k), (torch.empty(1, 2, 1).expand(1, 2, 1 << 27),)
        )
    monkeypatch.setattr(_call, "on_device", lambda *_: False)
    with EmulatedCuda():
        y = striate.fft_conv1d(x, k)
    assert (y.double() - direct(x, k, "causal", "correlation")).abs().max() < 1e-5


# What a call's kernels are, by name: shape, taps, type.
COSTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], torch.dtype]] = {
    "1k": ((8, 4, 1024), (4, 1024), BF16),
    "4k": ((8, 4, 4096), (4, 4096), F32),
    "8k": ((8, 4, 8192), (4, 8192), F32),
    "16k": ((2, 4, 16384), (4, 16384), BF16),
    "8k f64": ((2, 4, 8192), (4, 8192), F64),
    "64k": ((2, 4, 65536), (4, 65536), F32),
    "14x14": ((8, 4, 14, 14), (4, 14, 14), F16),
}


@pytest.mark.parametrize("name", COSTS)
def test_kernels_compile_within_their_budget(name: str) -> None:
    shape, taps, dtype = COSTS[name]
    x, k = torch.zeros(shape, dtype=dtype), torch.zeros(shape[1], *taps[1:], dtype=wide(dtype))
    budget = json.loads(BUDGETS.read_text())
    where: dict[str, Any] = {"shift": (0,) * (len(shape) - 2)}
    calls = (("fft_conv", (x, k), x.clone()), ("fft_conv_grad_kernel", (x, x), k))
    for turn, (op, operands, result) in enumerate(calls, [*COSTS].index(name)):
        launches = request(op, operands, (result,), **where)["launches"]
        assert max(step["shared"] for step in launches) <= 68 << 10
        for arch in cuda_nvrtc.archs(name == "16k" and op == "fft_conv", turn):
            logs = [cuda_nvrtc.compile(source, arch)[1] for source in {step["source"] for step in launches}]
            spilled, registers = max(log.spilled for log in logs), max(log.registers for log in logs)
            assert spilled == 0 and registers <= budget[f"{op} {name}"], (op, name, arch, registers, spilled)
