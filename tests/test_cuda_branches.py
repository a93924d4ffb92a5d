"""The CUDA row of branches: its real text, run on the host with the launches that a device would get, and compiled for
every architecture within a budget of registers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import cuda_nvrtc
from cuda_emulated import EmulatedCuda
from cuda_recipe import emulate
from oracle import integers
from strategies import BF16, F32, F64
from striate import _call, _core
from striate.ops import branches as ops
from striate.ops.branches import Branch
from test_branches import check_exact, exact, problems
from test_cuda_conv import BUDGETS

pytestmark = pytest.mark.usefixtures("one_thread", "own_rows")
STRIPS = ((5, 21), (21, 5), (5, 5))


def ones(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Numbers whose sums every type holds."""
    return (integers(shape, F64, 64, seed).sign() * (integers(shape, F64, 64, seed + 50) > 4)).to(dtype)


def strips(channels: int, dtype: torch.dtype) -> list[Branch]:
    weights = [ones((channels, 1, *size), dtype, seed) for seed, size in enumerate(STRIPS, 1)]
    biases = [ones((channels,), dtype, 9), None, None]
    even = Branch(ones((channels, 1, 4, 2), dtype, 8), ones((channels,), dtype, 7), (1, 1), (2, 1))
    return [*map(ops.centred, weights, biases), even]


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("spare", [2, 0])
def test_shares_of_the_channels_are_exact(dtype: torch.dtype, spare: int, own_rows: EmulatedCuda) -> None:
    """Branches read and write their channels where they lie; those before them are copied."""
    shapes = ((2, (5, 21)), (1, (21, 5)), (3, (3, 3)))
    branches = [
        ops.centred(ones((count, 1, *size), dtype, seed), ones((count,), dtype, 9) if seed < 3 else None)
        for seed, (count, size) in enumerate(shapes, 1)
    ]
    check_exact("split", ones((3, 6 + spare, 14, 15), dtype, 0), branches)
    assert own_rows.ran == {"branches": 1, "branches_grad_input": 1, "branches_grad_weight": 1}


@pytest.mark.parametrize(("dtype", "form"), [(F32, "each"), (BF16, "each"), (BF16, "sum")], ids=str)
def test_strips_are_exact_in_every_pass(dtype: torch.dtype, form: str, own_rows: EmulatedCuda) -> None:
    check_exact(form, ones((2, 3, 14, 15), dtype, 0), strips(3, dtype))
    assert own_rows.ran == {"branches": 1, "branches_grad_input": 1, "branches_grad_weight": 1}


def test_lines_volumes_and_wide_weights() -> None:
    line = Branch(ones((4, 1, 7), F32, 1), None, (2,), (3,))
    check_exact("each", ones((2, 4, 40), BF16, 0), [line, ops.centred(ones((4, 1, 3), F32, 2))])
    block = ops.centred(ones((2, 1, 3, 1, 3), F64, 1), ones((2,), F64, 3))
    check_exact("sum", ones((1, 2, 5, 6, 4), F64, 0), [block])


@pytest.mark.slow
@settings(deadline=None, max_examples=3, suppress_health_check=list(HealthCheck))
@given(problems())
def test_drawn_problems(problem: tuple[str, Tensor, list[Branch]]) -> None:
    check_exact(*problem)


def squares(channels: int, dtype: torch.dtype) -> list[Branch]:
    """Three branches whose kernels are the same text, and compile once."""
    return [
        ops.centred(ones((channels, 1, 3, 3), dtype, seed), ones((channels,), dtype, 9)) for seed in (1, 2, 3)
    ]


def request(pass_: str, form: str, channels: int, side: int, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """A recipe, its operands and its results, for three branches; shares leave a channel over."""
    all_of_them = 3 * channels + 1 if form == "split" else channels
    x, branches = ones((2, all_of_them, side, side), dtype, 0), squares(channels, dtype)
    weights, count = [branch.weight for branch in branches], 3 if form == "each" else 1
    maps = [torch.full_like(x, torch.nan) for _ in range(count)]
    grads = [ones(tuple(x.shape), dtype, seed) for seed in range(20, 20 + count)]
    sums = [torch.full_like(w, torch.nan) for w in weights] + [
        w.new_full((channels,), torch.nan) for w in weights
    ]
    given, results = {
        "fwd": ([x, *weights, *(branch.bias for branch in branches)], maps),
        "dx": ([*grads, *weights], maps[:1]),
        "dw": ([*grads, x], sums),
    }[pass_]
    low, dilation = [part for branch in branches for part in branch.low], [1] * 6
    words = _call.words(form=form, low=low, dilation=dilation, grain=0) + " pass=" + pass_
    described = [None if tensor is None else _call._given(tensor) for tensor in given]
    return _core.cuda_call_recipe("branches", words, described, [*map(_call._given, results)]), given, results


@pytest.mark.parametrize("pass_", ["fwd", "dx", "dw"])
def test_nothing_outside_the_tensors_is_touched(pass_: str) -> None:
    """Those of the convolutions on tensor cores are held to that by themselves."""
    for form in ("each", "sum", "split"):
        recipe, given, results = request(pass_, form, 2, 7, F32)
        emulate(recipe, given, results, sanitize=True)
        assert all(result.isfinite().all() for result in results)
        if pass_ == "fwd":
            want = exact(form, given[0], squares(2, F32))
            assert all(torch.equal(y, right.to(F32)) for y, right in zip(results, want, strict=True))


@pytest.mark.parametrize("dtype", [F32, BF16, F64], ids=str)
def test_kernels_compile_within_their_budget(dtype: torch.dtype) -> None:
    """Those of the convolutions have budgets of their own; these follow them."""
    budget = json.loads(BUDGETS.read_text())
    for pass_, form, name in (
        ("dx", "each", "sum_maps"), ("dw", "each", "sum_channels"), ("fwd", "split", "copy_channels")
    ):  # fmt: skip
        sources = {step["source"] for step in request(pass_, form, 8, 16, dtype)[0]["launches"]}
        (own,) = (source for source in sources if name in source)
        for arch in cuda_nvrtc.ARCHS if dtype == BF16 else (80, 90):
            log = cuda_nvrtc.compile(own, arch)[1]
            about = f"branches {name} {str(dtype)[6:]}"
            assert log.spilled == 0 and log.registers <= budget[about], (about, arch, log)
