"""Statistics that launches of branches leave behind: the text of the CUDA kernels, run on the host with the launches
that a device would get and compiled within budgets of registers, and the BatchNorms that take them, against torch's."""

from __future__ import annotations

import copy
import json
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import cuda_nvrtc
from cuda_emulated import EmulatedCuda
from cuda_recipe import emulate
from oracle import UNIT, accumulator, gamma
from strategies import BF16, F16, F32, F64
from striate import _call, _core, nn
from striate.nn import _normed
from striate.ops import branches as ops
from striate.ops.branches import Branch
from test_branches import exact
from test_cuda_conv import BUDGETS

pytestmark = pytest.mark.usefixtures("one_thread")
# Additions on the way of a number into a mean: those of a thread, a warp, a block, then of three in each merge.
TERMS = 60 + 5 + 4 + 3 * (4 + 5)
# Taps along each axis of each branch: Toeplitz rows and columns in half types, and the direct kernel.
STRIPS = ((3, 21), (21, 3), (3, 3))


def drawn(
    x: tuple[int, ...], sizes: Any, dtype: torch.dtype, offset: float = 0
) -> tuple[Tensor, list[Branch]]:
    """Small integers, and biases that move the results by the offset."""
    made = torch.Generator().manual_seed(math.prod(x))
    weights = [torch.randint(-1, 2, (x[1], 1, *size), generator=made).to(dtype) for size in sizes]
    biases = [torch.full((x[1],), offset, dtype=dtype) if offset else None for _ in sizes]
    return torch.randint(-1, 2, x, generator=made).to(dtype), [*map(ops.centred, weights, biases)]


def request(x: Tensor, branches: list[Branch], tf32: bool = False) -> tuple[Any, list[Any], list[Tensor]]:
    """The recipe of a call, its operands and its results."""
    low, dilation = ([part for branch in branches for part in branch[axis]] for axis in (2, 3))
    words = _call.words(form="each", low=low, dilation=dilation, grain=0) + " pass=fwd statistics=1"
    given = [x, *(branch.weight for branch in branches), *(branch.bias for branch in branches)]
    results = [torch.full_like(tensor, torch.nan) for tensor in ops._fake_statistics(x, branches)]
    described = [None if tensor is None else _call._given(tensor) for tensor in given]
    words += " tf32=1" if tf32 else ""
    return _core.cuda_call_recipe("branches", words, described, [*map(_call._given, results)]), given, results


def check_statistics(maps: list[Tensor], found: Tensor) -> None:
    """Mean and variance of the maps as they are stored.

    With k roundings a mean is off by at most d = gamma_k mean|y|. Deviations from a mean that is off by d add d^2 to a
    block's variance, and means of blocks that are off by d each move their spread s <= sigma to at most s + 2 d.
    """
    kind = accumulator(maps[0].dtype)
    off = gamma(TERMS, UNIT[kind]) * 2
    assert found.dtype == kind
    for y, mean, variance in zip(maps, *found.double(), strict=True):
        right, true = (
            value.double() for value in torch.var_mean(y.double(), (0, *range(2, y.dim())), correction=0)
        )
        apart = off * y.double().abs().mean((0, *range(2, y.dim())))
        assert ((mean - true).abs() <= apart).all(), (mean - true, apart)
        limit = off * right + 4 * apart * right.sqrt() + 5 * apart.square()
        assert ((variance - right).abs() <= limit).all(), (variance - right, limit)


def check(x: Tensor, branches: list[Branch], tf32: bool = False, **options: Any) -> Tensor:
    recipe, given, results = request(x, branches, tf32)
    emulate(recipe, given, results, **options)
    *maps, found = results
    for y, want in zip(maps, exact("each", x, branches), strict=True):
        assert torch.equal(y, want.to(y.dtype))
    check_statistics(maps, found)
    return found


@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 13, 17), (3, 5, 28, 27)], ids=str)
def test_maps_are_exact_and_statistics_within_rounding(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check(*drawn(shape, STRIPS, dtype), seed=1)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_lines_and_volumes(dtype: torch.dtype) -> None:
    check(*drawn((2, 3, 700), ((64,), (5,)), dtype), seed=2)
    check(*drawn((2, 3, 5, 6, 9), ((3, 1, 3),), dtype), seed=2)


def test_every_ending_is_among_them() -> None:
    """Direct, and Toeplitz rows along rows, along columns and along the one line of a signal."""
    ends = set()
    for call in (drawn((1, 3, 13, 17), STRIPS, BF16), drawn((2, 3, 700), ((64,), (5,)), BF16)):
        *steps, last = request(*call)[0]["launches"]
        assert "merge_moments" in last["source"] and all("WithMoments" in step["source"] for step in steps)
        found = [re.search(r" (mode|reg) = \d", step["source"]) for step in steps]
        ends |= {match[0] for match in found if match is not None}
    assert ends == {" mode = 0", " mode = 1", " mode = 2", " reg = 1", " reg = 2"}


def test_planes_of_few_positions() -> None:
    """Several channels to a warp, and blocks with more threads than channels have results."""
    for shape in ((2, 5, 3, 3), (3, 37, 2, 1), (1, 1, 1, 2)):
        for dtype in (F32, F16):
            check(*drawn(shape, STRIPS, dtype), seed=3)


def test_large_planes_and_many_samples() -> None:
    """More than one tile of a plane along each axis, and more parts of a channel than lanes of a warp."""
    for dtype in (F32, BF16):
        check(*drawn((1, 2, 70, 85), STRIPS, dtype), seed=1)
        check(*drawn((75, 1, 9, 10), STRIPS[:1] + STRIPS[2:], dtype))


def test_rounded_products_of_tensor_cores() -> None:
    x, branches = drawn((3, 2, 20, 22), ((3, 51), (51, 3)), F32)
    assert all("toeplitz" in step["source"] for step in request(x, branches, tf32=True)[0]["launches"][:2])
    check(x, branches, tf32=True, seed=1)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_nothing_cancels(dtype: torch.dtype) -> None:
    """A mean of a thousand beside a deviation of one: squares of a million less a million squared would be noise."""
    torch.manual_seed(0)
    x = torch.randn(3, 2, 28, 28, dtype=dtype)
    one = torch.ones(2, 1, 1, 1, dtype=dtype)
    branch = ops.centred(one, torch.full((2,), 1000.0, dtype=dtype))
    recipe, given, results = request(x, [branch])
    emulate(recipe, given, results)
    check_statistics(results[:1], results[1])
    assert (results[1][1].double() - x.double().var((0, 2, 3), correction=0)).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_bits_do_not_depend_on_the_order_of_threads(dtype: torch.dtype) -> None:
    x, branches = drawn((3, 2, 13, 40), STRIPS, dtype, 3)
    x = x + 0.3
    made = [run(x, branches, seed) for seed in range(4)]
    assert all(torch.equal(made[0], other) for other in made[1:])


def run(x: Tensor, branches: list[Branch], seed: int) -> Tensor:
    recipe, given, results = request(x, branches)
    emulate(recipe, given, results, seed)
    return results[-1]


def test_nothing_outside_the_tensors_is_touched() -> None:
    for dtype in (F32, BF16):
        check(*drawn((2, 3, 9, 11), ((3, 21), (3, 3)), dtype), sanitize=True)


def test_the_slow_truth_knows_them() -> None:
    """Rows of the host leave them to the definition."""
    for dtype in (F64, BF16):
        x, branches = drawn((2, 3, 9, 11), STRIPS, dtype, 2)
        _, given, results = request(x, branches)
        low, dilation = ([part for branch in branches for part in branch[axis]] for axis in (2, 3))
        words = _call.words(form="each", low=low, dilation=dilation, grain=0) + " pass=fwd statistics=1"
        assert _call.call("branches", words, given, results) == "branches.reference"
        check_statistics(results[:-1], results[-1])
        for wrong in (words.replace("each", "sum"), words.replace("fwd", "dx")):
            with pytest.raises(ValueError, match="statistics: expected form each"):
                _call.call("branches", wrong, given, results)


@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16], ids=str)
def test_operator(dtype: torch.dtype) -> None:
    """In torch's operators and as composed for devices: the same maps, statistics, shapes and types."""
    x, branches = drawn((2, 3, 9, 11), STRIPS, dtype, 2)
    weights, biases = [branch.weight for branch in branches], [branch.bias for branch in branches]
    statics = [part for branch in branches for part in branch.low], [1] * 6, 0
    op = torch.ops.striate.branches_statistics.default
    torch.library.opcheck(op, (x, weights, biases, *statics))
    *maps, found = op(x, weights, biases, *statics)
    check_statistics(maps, found)
    composed = op.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), x, weights, biases, *statics)
    assert all(torch.equal(mine, other) for mine, other in zip(maps, composed, strict=False))
    torch.testing.assert_close(composed[-1], found, rtol=1e-6, atol=1e-6)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls whose statistics are found by the branches, as where a row finds them."""
    calls: list[int] = []

    def finds(x: Tensor, branches: Any) -> bool:
        calls.append(len(branches))
        return ops._together("each", x, branches)

    monkeypatch.setattr(ops, "finds_statistics", finds)
    return calls


def norms(channels: int, dtype: torch.dtype, **options: Any) -> list[Any]:
    made = [torch.nn.BatchNorm2d(channels, dtype=dtype, **options) for _ in STRIPS]
    with torch.no_grad():
        for norm in made:
            for parameter in norm.parameters():
                parameter.normal_()
    made[0].momentum = options.get("momentum", 0.3)
    return made


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"eps": 0.1, "momentum": 0.7}], ids=str
)
def test_norms_are_torchs(options: dict[str, Any], found: list[int]) -> None:
    """Results, gradients, gradients of gradients and running statistics over three steps."""
    torch.manual_seed(0)
    weights = [torch.randn(3, 1, *size, dtype=F64, requires_grad=True) for size in STRIPS]
    branches = [*map(ops.centred, weights)]
    mine = norms(3, F64, **options)
    theirs = copy.deepcopy(mine)
    for step in range(3):
        x = torch.randn(1 + step, 3, 7, 9, dtype=F64, requires_grad=True)
        upstream = [torch.randn_like(x, requires_grad=True) for _ in STRIPS]
        pairs = []
        for kept in (mine, theirs):
            if kept is mine:
                made = _normed.normed_branches(x, branches, kept)
            else:
                made = tuple(norm(y) for norm, y in zip(kept, ops.each(x, branches), strict=True))
            parameters = [part for norm in kept for part in norm.parameters()]
            inputs = [x, *weights, *parameters]
            first = torch.autograd.grad(made, inputs, upstream, create_graph=True)
            second = torch.autograd.grad(
                [part.square().sum() for part in first], [*inputs, *upstream], allow_unused=True
            )
            buffers = [tensor.clone() for norm in kept for tensor in norm.buffers()]
            pairs.append((*made, *first, *second, *buffers))
        for got, want in zip(*pairs, strict=True):
            assert (got is None) == (want is None)
            if got is not None:
                torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert len(found) == 3


def test_gradients_know_that_statistics_are_of_the_map() -> None:
    torch.manual_seed(0)
    y = torch.randn(3, 2, 4, 3, dtype=F64, requires_grad=True)
    weight, bias = (torch.randn(2, dtype=F64, requires_grad=True) for _ in range(2))

    def run(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        variance, mean = torch.var_mean(y.detach(), (0, 2, 3), correction=0)
        moments = ops.Moments(mean, variance, (variance + 1e-5).rsqrt(), 1e-5)
        return ops.normalised(y, moments, weight, bias)

    assert torch.autograd.gradcheck(run, (y, weight, bias))
    assert torch.autograd.gradgradcheck(run, (y, weight, bias))


LAYERS = {
    "shiftwise": lambda: nn.ShiftwiseConv2d(3, 13, n_rep=2),
    "slak": lambda: nn.SLaKConv2d(3, 13, 3),
    "replk": lambda: nn.RepLKBlockConv2d(3, 13),
    "dilated": lambda: nn.DilatedReparamConv2d(3, 7),
}


@pytest.mark.parametrize(("name", "dtype"), [
    ("shiftwise", F32), ("shiftwise", BF16), ("shiftwise", F16), ("slak", BF16), ("replk", F32), ("dilated", F32),
], ids=str)  # fmt: skip
def test_a_layer_trains_the_same(
    name: str, dtype: torch.dtype, found: list[int], own_rows: EmulatedCuda
) -> None:
    """The kernels, run on the host, below a whole layer; the other layer's BatchNorms read its maps."""
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    other = copy.deepcopy(layer)
    *_, last = (module for module in other.modules() if isinstance(module, torch.nn.BatchNorm2d))
    last.register_forward_hook(lambda *_: None)  # a module that has one is called
    x = torch.randn(3, 3, 11, 14).to(dtype)
    made = []
    for model in (layer, other):
        y = model(x)
        y.float().square().mean().backward()
        parts = [y, *(p.grad for p in model.parameters()), *model.buffers()]
        made.append([part.detach().double() for part in parts])
    assert own_rows.ran["branches_statistics"] == own_rows.ran["branches"] == 1
    step = 4e-6 if dtype == F32 else 4 * UNIT[dtype]
    for got, want in zip(*made, strict=True):
        assert (got - want).abs().max() <= step * max(float(want.abs().max()), 1)


def test_modules_are_called_where_they_differ(found: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation, other modules, no running statistics, transforms and one number per channel."""
    torch.manual_seed(0)
    monkeypatch.setattr(ops, "each_with_statistics", None)
    x = torch.randn(2, 3, 9, 9)
    for change in (
        lambda layer: layer.eval(),
        lambda layer: setattr(layer, "bn_lora1", torch.nn.SyncBatchNorm(3).eval()),
        lambda layer: setattr(layer, "bn_lora2", torch.nn.BatchNorm2d(3, track_running_stats=False)),
        lambda layer: setattr(layer, "bn_small", torch.nn.Identity()),
        lambda layer: layer.bn_small.register_forward_pre_hook(lambda *_: None),
        lambda layer: setattr(layer, "bn_small", layer.bn_lora1),
        lambda layer: setattr(layer.bn_small, "eps", 1e-3),
    ):
        layer = nn.ShiftwiseConv2d(3, 7)
        change(layer)
        layer(x)
    layer = nn.ShiftwiseConv2d(3, 7)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.randn(1, 3, 1, 1))
    assert len(found) == 8
    monkeypatch.undo()
    bare = nn.ShiftwiseConv2d(3, 7, bn=False)
    assert torch.equal(bare(x), sum(ops.each(x, bare_branches(bare, x))) + x)


def bare_branches(layer: nn.ShiftwiseConv2d, x: Tensor) -> Any:
    from striate.ops.shiftwise import branches_of

    return branches_of(x, layer.weights(), layer.big_kernel, layer.permutations)


@pytest.mark.parametrize("dtype", [F32, BF16, F64], ids=str)
def test_kernels_compile_within_their_budget(dtype: torch.dtype) -> None:
    """The branches of a shift-wise layer on 28 x 28, and what puts moments together."""
    budget = json.loads(BUDGETS.read_text())
    recipe = request(*drawn((8, 160, 28, 28), ((3, 51), (51, 3), (3, 3)), dtype))[0]
    for name, step in zip(("wide", "tall", "square", "merge"), recipe["launches"], strict=True):
        for arch in cuda_nvrtc.ARCHS if dtype == BF16 else (80, 90):
            log = cuda_nvrtc.compile(step["source"], arch)[1]
            about = f"statistics {name} {str(dtype)[6:]}"
            assert log.spilled == 0 and log.shared <= 256, (about, arch, log)
            assert log.registers <= budget[about], (about, arch, log.registers)
            assert log.shared + step["shared"] <= 48 << 10
