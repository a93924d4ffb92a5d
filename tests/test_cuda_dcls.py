"""The CUDA rows of learnable spacings: their real text, run on the host with the launches that a device would get, and
compiled for every architecture within a budget of registers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cuda_nvrtc
import striate
from cuda_emulated import EmulatedCuda
from cuda_recipe import emulate
from oracle import integers
from strategies import F32, F64
from striate import _call, _core
from striate.ops.dcls import VERSIONS, axes_of
from test_cuda_conv import BUDGETS
from test_dcls import Shape, check_definition, literal, operands, shapes

pytestmark = pytest.mark.usefixtures("one_thread", "own_rows")
PROFILES = {"v0": "scatter", "v1": "triangle", "max": "triangle", "gauss": "gauss"}


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_construction_and_gradients_follow_the_definition(
    version: str, dtype: torch.dtype, own_rows: EmulatedCuda
) -> None:
    grids: list[Shape] = [((3, 2), 5, (9,)), ((2, 1), 34, (17, 16)), ((5,), 3, (3, 5, 4)), ((1,), 2, (1, 40))]
    for seed, shape in enumerate(grids):
        check_definition(shape, version, dtype, seed)
    assert own_rows.ran == {"dcls_kernel": len(grids), "dcls_kernel_grad": len(grids)}


@pytest.mark.slow
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(shapes(), st.sampled_from(VERSIONS), st.sampled_from([F32, F64]), st.integers(0, 99))
def test_drawn_problems(shape: Shape, version: str, dtype: torch.dtype, seed: int) -> None:
    check_definition(shape, version, dtype, seed)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("size", [(9,), (7, 5), (3, 5, 4)], ids=str)
def test_quarter_positions_are_exact(size: tuple[int, ...], dtype: torch.dtype) -> None:
    """Products of quarters are exact, and so are their sums: equality, on and off the grid."""
    made = torch.Generator().manual_seed(len(size))
    shape = (len(size), 4, 3, 6)
    P = (torch.randint(-4 * max(size), 4 * max(size) + 1, shape, generator=made) / 4).to(dtype)
    weight = integers(shape[1:], dtype, 64, 1).requires_grad_()
    got = striate.dcls_kernel(weight, P, dilated_kernel_size=size, version="v0")
    exact = literal(weight.detach().double(), P.double(), None, size, "v0")
    assert torch.equal(got.detach(), exact.to(dtype))
    g = integers(tuple(got.shape), dtype, 64, 2)
    (found,) = torch.autograd.grad(got, weight, g)
    eye = torch.eye(6, dtype=F64)[:, None, None].expand(6, 4, 3, 6)
    each = torch.stack([literal(one, P.double(), None, size, "v0") for one in eye], -1)
    assert torch.equal(found, (each * g.double()[..., None]).flatten(2, -2).sum(2).to(dtype))


def test_many_elements_take_turns_in_shared_memory() -> None:
    check_definition(((2,), 90, (70, 80)), "gauss", F64, 1)
    check_definition(((1,), 2, (1500,)), "max", F32, 2)


def test_no_elements_make_an_empty_kernel() -> None:
    weight, P = torch.empty(3, 0), torch.empty(2, 3, 0)
    assert torch.equal(
        striate.dcls_kernel(weight, P, dilated_kernel_size=(4, 5), version="v1"), torch.zeros(3, 4, 5)
    )
    assert (
        striate.dcls_kernel(
            torch.empty(0, 2), torch.empty(2, 0, 2), dilated_kernel_size=3, version="v1"
        ).numel()
        == 0
    )


def request(version: str, slopes: bool, dtype: torch.dtype, *sizes: int) -> tuple[Any, Any, Any]:
    """A recipe, its operands and its result: filters, elements and the grid."""
    filters, elements, *grid = sizes
    given = [tensor.to(dtype) for tensor in operands((filters,), elements, tuple(grid), version)]
    packed = 1 + len(grid) * (len(given) - 1)
    given = [*given, None][:3]
    out = torch.full((filters, packed, elements) if slopes else (filters, *grid), torch.nan, dtype=dtype)
    if slopes:
        given = [torch.randn(filters, *grid, dtype=dtype), *given]
    base, axes = 0.27 if version == "gauss" else 1.0, axes_of(version, len(grid))
    words = _call.words(profile=PROFILES[version], base=base, axes=axes)
    described = [None if tensor is None else _call._given(tensor) for tensor in given]
    op = "dcls_kernel_grad" if slopes else "dcls_kernel"
    return _core.cuda_call_recipe(op, words, described, [_call._given(out)]), given, out


@pytest.mark.parametrize("slopes", [False, True])
def test_nothing_outside_the_tensors_is_touched(slopes: bool) -> None:
    for version in ("v0", "gauss"):
        recipe, given, out = request(version, slopes, F32, 3, 5, 6, 7)
        emulate(recipe, given, (out,), sanitize=True)
        assert out.isfinite().all()


@pytest.mark.parametrize("slopes", [False, True])
def test_bits_do_not_depend_on_the_order_of_threads(slopes: bool) -> None:
    recipe, given, out = request("max", slopes, F32, 3, 5, 9, 11)
    made = []
    for seed in range(3):
        emulate(recipe, given, (out,), seed)
        made.append(out.clone())
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_what_shared_memory_does_not_hold_is_left_to_torch() -> None:
    with pytest.raises(ValueError, match="an element of this grid has 48288"):
        request("gauss", True, F64, 1, 1, 2010, 1)
    assert request("gauss", False, F64, 1, 1, 2010, 1)[0]["row"] == "cuda.dcls_kernel"


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_kernels_compile_within_their_budget(version: str, dtype: torch.dtype) -> None:
    budget = json.loads(BUDGETS.read_text())
    for turn, slopes in enumerate((False, True), VERSIONS.index(version)):
        about = f"dcls {version} {'grad ' if slopes else ''}{str(dtype)[6:]}"
        (step,) = request(version, slopes, dtype, 768, 34, 17, 17)[0]["launches"]
        for arch in cuda_nvrtc.archs(version == "gauss", turn):
            log = cuda_nvrtc.compile(step["source"], arch)[1]
            assert log.spilled == 0 and log.registers <= budget[about], (about, arch, log)
