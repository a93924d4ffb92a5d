"""The CUDA row of steps of delays: its real text, run on the host with the launches that a device would get, and
compiled for every architecture within a budget of registers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import cuda_nvrtc
from cuda_emulated import EmulatedCuda
from cuda_recipe import emulate
from oracle import integers
from strategies import F32, F64
from striate import _call, _core
from striate.ops.delays import _formula
from test_cuda_conv import BUDGETS

pytestmark = pytest.mark.usefixtures("one_thread")
# Slots, groups, inputs and outputs of a group, samples: one warp for a sample, two inputs at a time, whole warps.
SIZES = [(7, 1, 5, 9, 1), (25, 2, 40, 3, 3), (4, 3, 1, 2, 16), (1, 1, 6, 4, 33), (300, 1, 70, 2, 2)]


def operands(size: tuple[int, ...], dtype: torch.dtype, bias: bool = True) -> list[Tensor | None]:
    slots, groups, inputs, outputs, batch = size
    made = torch.Generator().manual_seed(inputs)
    where = torch.randint(0, slots, (groups * outputs, inputs), generator=made, dtype=torch.int32)
    return [
        integers((slots, groups * inputs, batch), dtype, 2 * inputs),
        integers((groups * outputs, inputs), dtype, 2 * inputs, 1),
        where,
        integers((groups * outputs,), dtype, 2 * inputs, 2) if bias else None,
    ]


def exact(given: list[Any], head: int) -> Tensor:
    ring, weight, where, bias = given
    wide = None if bias is None else bias.double()
    return _formula(ring.double(), weight.double(), where, wide, head).to(ring.dtype)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_integers_come_out_equal(size: tuple[int, ...], dtype: torch.dtype, own_rows: EmulatedCuda) -> None:
    for head in {0, size[0] // 2, size[0] - 1}:
        given = operands(size, dtype, head > 0)
        assert torch.equal(torch.ops.striate.delay_step(*given, head), exact(given, head))
    assert set(own_rows.ran) == {"delay_step"}


def request(size: tuple[int, ...], dtype: torch.dtype) -> tuple[Any, list[Any], Tensor]:
    """A recipe, its operands and its result."""
    given = operands(size, dtype)
    out = torch.full((size[4], size[1] * size[3]), torch.nan, dtype=dtype)
    described = [_call._given(tensor) for tensor in given if tensor is not None]
    return _core.cuda_call_recipe("delay_step", "head=0", described, [_call._given(out)]), given, out


def test_nothing_outside_the_tensors_is_touched() -> None:
    """Delays beyond the ring meet its oldest sample, as they do on the host."""
    recipe, given, out = request(SIZES[1], F32)
    given[2][0, :2] = torch.tensor([-5, 1 << 30])
    emulate(recipe, given, (out,), sanitize=True)
    assert torch.equal(out, exact(given, 0)) and torch.equal(out, torch.ops.striate.delay_step(*given, 0))


def test_bits_do_not_depend_on_the_order_of_threads() -> None:
    recipe, given, out = request(SIZES[4], F32)
    given[1] = torch.randn_like(given[1])
    made = []
    for seed in range(3):
        emulate(recipe, given, (out,), seed)
        made.append(out.clone())
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("batch", [1, 64])
def test_kernels_compile_within_their_budget(batch: int, dtype: torch.dtype) -> None:
    budget = json.loads(BUDGETS.read_text())[f"delay_step {str(dtype)[6:]}"]
    (step,) = request((25, 1, 256, 8, batch), dtype)[0]["launches"]
    for turn, arch in enumerate(cuda_nvrtc.ARCHS):
        if (turn + batch) % 2:  # half of them each
            continue
        log = cuda_nvrtc.compile(step["source"], arch)[1]
        assert log.spilled == 0 and log.registers <= budget, (arch, log)
