"""The CUDA rows of pooling: their real text, run on the host with the launches that a device would get, and compiled
for every architecture within a budget of registers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import cuda_nvrtc
import striate
import test_pool
from cuda_emulated import EmulatedCuda
from cuda_recipe import emulate
from oracle import integers
from strategies import BF16, F16, F32, F64, channels_last
from striate import _call, _core
from striate.ops import _pooling
from test_cuda_conv import BUDGETS
from test_pool import SPECIAL, check_extreme_gradients, check_max, check_sums, problems

ours = test_pool.ours
pytestmark = pytest.mark.usefixtures("one_thread", "own_rows")


def problem(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dtype: torch.dtype = F32,
    **more: Any,
) -> dict[str, Any]:
    made = {"dilation": (1,) * len(kernel), "ceil": False, "way": "dense"} | more
    made |= {"rank": len(kernel), "shape": shape, "kernel": kernel, "dtype": dtype}
    return made | {"args": (kernel, stride, padding, made["dilation"], made["ceil"])}


PROBLEMS = [
    problem((2, 3, 21, 19), (3, 3), (2, 2), (1, 1)),
    problem((2, 16, 9, 10), (3, 3), (2, 2), (1, 1), BF16, way="channels-last"),
    problem((1, 2, 40, 12), (33, 3), (1, 3), (16, 0), F64),
    problem((1, 2, 23, 22), (2, 4), (3, 2), (1, 1), F16, dilation=(3, 2), ceil=True),
    problem((1, 4, 5, 6, 7), (3, 2, 3), (1, 2, 3), (1, 0, 1), BF16, way="channels-last", ceil=True),
]
MORE = [
    problem((1, 6, 20, 17), (3, 5), (1, 1), (1, 2), F16, way="channels-last", ceil=True),
    problem((2, 3, 90), (3,), (5,), (1,), F16),
    problem((2, 4, 70), (17,), (1,), (8,), F32, way="channels-last"),
    problem((1, 3, 7, 8, 9), (2, 3, 2), (2, 1, 2), (1, 1, 0), F32, ceil=True),
    problem((2, 3, 40), (3,), (7,), (0,)),  # more residues than one launch serves
]
each_problem = pytest.mark.parametrize("p", PROBLEMS, ids=lambda p: f"{p['shape']} {p['args']}")


@each_problem
def test_extremes_positions_and_gradients(p: dict[str, Any]) -> None:
    for special in (None, math.nan):
        check_max(p, special)
    check_extreme_gradients(p, "max", p["way"])


@each_problem
def test_sums_averages_and_gradients(p: dict[str, Any]) -> None:
    check_sums(p, False, None)
    if p is PROBLEMS[0]:
        check_sums(p, True, None)
        check_sums(p, False, -2)


@pytest.mark.slow
@pytest.mark.parametrize("p", MORE, ids=lambda p: f"{p['shape']} {p['args']}")
def test_gradients_of_other_windows(p: dict[str, Any]) -> None:
    check_extreme_gradients(p, "min", p["way"])


@pytest.mark.slow
@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck))
@given(problems(), st.sampled_from(SPECIAL), st.booleans())
def test_drawn_problems(p: dict[str, Any], special: float | None, sums: bool) -> None:
    if sums:
        return check_sums(p, special is None, None)
    check_max(p, special)
    return check_extreme_gradients(p, "max", p["way"])


def test_only_rows_of_ours_ran(own_rows: EmulatedCuda) -> None:
    x = integers((1, 2, 9, 9), F32, 9).requires_grad_()
    striate.max_pool2d(x, 3, 1).sum().backward()
    striate.avg_pool2d(x, 3, 1).sum().backward()
    assert own_rows.ran == {"pool": 2, "pool_argmax": 1, "pool_scatter": 1, "pool_transpose": 1}


@pytest.mark.parametrize("last", [False, True])
def test_gathered_tangents(last: bool) -> None:
    x, tangent = (integers((2, 3, 8, 9), F32, 9, seed) for seed in (0, 1))
    x, tangent = (channels_last(t) if last else t for t in (x, tangent))
    made = [
        torch.func.jvp(lambda t, function=function: function(t, 3, 2), (x,), (tangent,))[1]
        for function in (striate.max_pool2d, torch.nn.functional.max_pool2d)
    ]
    assert torch.equal(*made)
    nowhere = torch.tensor([[[-1, 4, 1 << 40, 0]]])
    assert _pooling.gather(torch.tensor([[[5.0, 6.0]]]), nowhere, (1,), (1,), (0, 0), (1,)).tolist() == [
        [[0, 0, 0, 5]]
    ]


def request(op: str, words: str, operands: Any, results: Any) -> Any:
    return _core.cuda_call_recipe(op, words, [*map(_call._given, operands)], [*map(_call._given, results)])


def pooled(mode: str, pass_: str, kernel: int, stride: int, pad: int, size: int, divisor: int = 0) -> str:
    each = {"size": size, "kernel": kernel, "stride": stride, "dilation": 1, "ring": 0}
    pairs = {name: (value, value) for name, value in each.items()} | {"pad": (pad,) * 4}
    return _call.words(mode=mode, **{"pass": pass_}, **pairs, divisor=divisor)


@pytest.mark.parametrize("last", [False, True])
def test_nothing_outside_the_tensors_is_touched(last: bool) -> None:
    lay = channels_last if last else Tensor.contiguous
    x = lay(integers((2, 8, 11, 11), BF16, 9))
    made, places = (lay(torch.full((2, 8, 6, 6), -7, dtype=kind)) for kind in (BF16, torch.int32))
    back, words = torch.full_like(x, torch.nan), pooled("max", "fwd", 3, 2, 1, 11)
    emulate(request("pool", words, (x,), (made,)), (x,), (made,), sanitize=True)
    emulate(request("pool_argmax", words, (x,), (places,)), (x,), (places,), sanitize=True)
    want, where = torch.nn.functional.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert torch.equal(made, want) and torch.equal(places.long(), where)
    words = pooled("sum", "dx", 3, 2, 1, 11, 1)
    emulate(request("pool_scatter", words, (made, places), (back,)), (made, places), (back,), sanitize=True)
    flat = (
        x.flatten(2)
        .new_zeros(2, 8, 121, dtype=F64)
        .scatter_add(2, where.flatten(2), want.double().flatten(2))
    )
    assert torch.equal(back, flat.view(2, 8, 11, 11).to(BF16))


def test_views_that_begin_between_packs() -> None:
    """Torch aligns what it allocates; a view of it need not be."""
    wide = integers((4 * 9 * 9 * 8 + 1,), F32, 9)[1:].view(4, 9, 9, 8).permute(0, 3, 1, 2)
    assert torch.equal(striate.max_pool2d(wide, 3, 1), torch.nn.functional.max_pool2d(wide, 3, 1))


def test_bits_do_not_depend_on_the_order_of_threads() -> None:
    x = torch.randn(2, 5, 17, 18)
    made = []
    for seed in range(3):
        out = torch.full((2, 5, 17, 18), torch.nan)
        words = pooled("sum", "dx", 3, 1, 1, 17, 1).replace("17x17", "17x18")
        emulate(request("pool", words, (x,), (out,)), (x,), (out,), seed)
        made.append(out)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_what_is_too_large_is_left_to_torch() -> None:
    x, y = ((64, "f32", (1, 1, 1, size), (size, size, size, 1)) for size in (1 << 31, 1 << 30))
    words = "mode=max pass=fwd size=1x2147483648 kernel=1x2 stride=1x2 pad=0x0x0x0 dilation=1x1 ring=0x0 divisor=0"
    with pytest.raises(ValueError, match="less than 2\\^31 elements, got 2147483648"):
        _core.cuda_call_recipe("pool", words, [x], [y])


COSTS = {
    "3x3 s2 bf16 nhwc": (3, 2, 1, BF16, True),
    "3x3 s2 f64 nchw": (3, 2, 1, F64, False),
    "3x3 f32 nchw": (3, 1, 1, F32, False),
    "3x3 s3 f32 nchw": (3, 3, 1, F32, False),
    "13x13 bf16 nchw": (13, 1, 6, BF16, False),
}


def recipes(name: str) -> Iterator[tuple[str, Any]]:
    kernel, stride, pad, dtype, last = COSTS[name]
    lay = channels_last if last else Tensor.contiguous
    size = 1 + (56 + 2 * pad - kernel) // stride
    x, y = (lay(torch.empty(1, 64, side, side, dtype=dtype)) for side in (56, size))
    places, forth = y.to(torch.int32), (kernel, stride, pad, 56)
    yield "max", request("pool", pooled("max", "fwd", *forth), (x,), (y,))
    yield "avg", request("pool", pooled("avg", "fwd", *forth), (x,), (y,))
    yield "argmax", request("pool_argmax", pooled("max", "fwd", *forth), (x,), (places,))
    yield "avg back", request("pool", pooled("avg", "dx", *forth), (y,), (x,))
    yield "max back", request("pool_scatter", pooled("sum", "dx", *forth, 1), (y, places), (x,))


@pytest.mark.parametrize("name", COSTS)
def test_kernels_compile_within_their_budget(name: str) -> None:
    budget = json.loads(BUDGETS.read_text())
    for turn, (what, recipe) in enumerate(recipes(name), [*COSTS].index(name)):
        about = f"pool {what} {name}"
        for step in recipe["launches"]:
            for arch in cuda_nvrtc.archs("s2 bf16" in name, turn):
                log = cuda_nvrtc.compile(step["source"], arch)[1]
                assert log.spilled == 0 and log.registers <= budget[about], (about, arch, log)
