"""Depthwise branches in one pass against torch's convolutions one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from strategies import host_rows
from striate import _core, nn
from striate.ops import branches as ops
from striate.ops.branches import Branch

ROWS = [row["name"] for row in host_rows("branches")]
FORMS = ["each", "sum", "split"]
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.fixture(autouse=True)
def every_row_again(one_thread: None) -> Iterator[None]:
    yield
    _core.set_kernels(None)


def exact(form: str, x: Tensor, branches: list[Branch]) -> tuple[Tensor, ...]:
    """Every branch by torch in float64, on the channels that it sees."""
    x = x.double()
    first = x.shape[1] - sum(branch.weight.shape[0] for branch in branches) if form == "split" else 0
    made = []
    for weight, bias, low, dilation in branches:
        count = weight.shape[0]
        part = x.narrow(1, first, count)
        high = [d * (k - 1) - lo for d, k, lo in zip(dilation, weight.shape[2:], low, strict=True)]
        pads = [side for pair in reversed(list(zip(low, high, strict=True))) for side in pair]
        bias = None if bias is None else bias.double()
        conv = CONVOLUTIONS[len(low)]
        made.append(conv(F.pad(part, pads), weight.double(), bias, dilation=dilation, groups=count))
        first += count if form == "split" else 0
    if form == "each":
        return tuple(made)
    rest = x.shape[1] - sum(y.shape[1] for y in made)
    return (sum(made[1:], made[0]) if form == "sum" else torch.cat([x[:, :rest], *made], 1),)


@st.composite
def problems(draw: st.DrawFn, forms: Sequence[str] = FORMS) -> tuple[str, Tensor, list[Branch]]:
    form, rank = draw(st.sampled_from(forms)), draw(st.sampled_from([1, 2, 2, 2, 3]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    weight_dtype = draw(st.sampled_from([dtype, torch.float32 if dtype.itemsize == 2 else dtype]))
    counts = [draw(st.integers(1, 20)) for _ in range(draw(st.integers(1, 3)))]
    channels = sum(counts) + draw(st.integers(0, 20)) if form == "split" else counts[0]
    size = [draw(st.integers(1, [40, 20, 6][rank - 1])) for _ in range(rank)]

    def integers(*shape: int) -> Tensor:
        # Sums of these are exact even in eight bits.
        return torch.randint(-1, 2, shape, generator=generator)

    x = integers(draw(st.integers(1, 3)), channels, *size).to(dtype)
    branches = []
    for count in counts:
        kernel = [draw(st.integers(1, [11, 7, 3][rank - 1])) for _ in range(rank)]
        weight = integers(count if form == "split" else channels, 1, *kernel).to(weight_dtype)
        bias = integers(weight.shape[0]).to(weight_dtype) if draw(st.booleans()) else None
        low = tuple(draw(st.integers(-1, k)) for k in kernel)
        branches.append(Branch(weight, bias, low, tuple(draw(st.integers(1, 2)) for _ in kernel)))
    return form, x, branches


def leaves(x: Tensor, branches: list[Branch]) -> list[Tensor]:
    weights = [branch.weight for branch in branches]
    return [x, *weights, *(branch.bias for branch in branches if branch.bias is not None)]


@pytest.mark.parametrize("row", ROWS)
@given(problems())
@settings(max_examples=40, deadline=None)
def test_integers_are_exact_in_every_pass(row: str, problem: tuple[str, Tensor, list[Branch]]) -> None:
    _core.set_kernels(f"^({row}|branches.reference)$")
    check_exact(*problem)


def check_exact(form: str, x: Tensor, branches: list[Branch]) -> None:
    """Results and all gradients equal :func:`exact`."""
    inputs = [tensor.requires_grad_() for tensor in leaves(x, branches)]
    assert ops._together(form, x, branches)
    expected = exact(form, x, branches)
    upstream = [torch.randint(-1, 2, y.shape).to(x.dtype) for y in expected]
    exact_gradients = torch.autograd.grad(expected, inputs, [g.double() for g in upstream])
    got = ops._run(form, x, branches)
    gradients = torch.autograd.grad(got, inputs, upstream)
    for mine, right in zip((*got, *gradients), (*expected, *exact_gradients), strict=True):
        assert torch.equal(mine, right.to(mine.dtype))


@pytest.mark.parametrize("form", FORMS)
def test_planes_of_one_position(form: str) -> None:
    """Their channels are neighbours in memory, yet pieces hold some of them only."""
    torch.manual_seed(0)
    x = torch.randint(-4, 5, (3, 200, 1, 1)).float()
    count = 100 if form == "split" else 200
    branches = [
        Branch(torch.randint(-4, 5, (count, 1, *k)).float(), torch.ones(count), low, (1, 1))
        for k, low in (((3, 3), (1, 1)), ((1, 5), (0, 2)))
    ]
    for got, true in zip(ops._run(form, x, branches), exact(form, x, branches), strict=True):
        assert torch.equal(got.double(), true)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [7, 30])
def test_bits_do_not_depend_on_threads(form: str, side: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 50, side, side, requires_grad=True)
    count = 12 if form == "split" else 50
    weights = [torch.randn(count, 1, *size, requires_grad=True) for size in ((3, 11), (11, 3), (3, 3))]
    branches = [ops.centred(weight) for weight in weights]
    found = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        got = ops._run(form, x, branches)
        found.append((*got, *torch.autograd.grad([y.square().sum() for y in got], [x, *weights])))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    apart = ops._apart(form, x, branches)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found[0], apart, strict=False))


@pytest.mark.parametrize("form", FORMS)
def test_derivatives(form: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    count = 2 if form == "split" else 4
    first = torch.randn(count, 1, 3, 1, dtype=torch.float64, requires_grad=True)
    second = torch.randn(1 if form == "split" else 4, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(count, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, first: Tensor, second: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return ops._run(form, x, [ops.centred(first, bias), ops.centred(second)])

    inputs = (x, first, second, bias)
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs)
    expected = run(*inputs)
    stacked = torch.func.vmap(run, in_dims=(0, None, None, None))(x.unsqueeze(1), first, second, bias)
    for mine, right in zip(stacked, expected, strict=True):
        assert torch.allclose(mine.squeeze(1), right)
    op = torch.ops.striate.branches.default
    torch.library.opcheck(
        op, (x.detach(), [first.detach(), second.detach()][:1], [None], [1, 0], [1, 1], form, 0)
    )
    with FlopCounterMode(display=False) as together:
        run(*(tensor.detach() for tensor in inputs))
    with FlopCounterMode(display=False) as apart:
        ops._apart(form, x.detach(), [ops.centred(first.detach()), ops.centred(second.detach())])
    assert together.get_total_flops() == apart.get_total_flops() > 0


def test_only_wanted_gradients_and_missing_ones() -> None:
    x = torch.randn(1, 3, 5, 5)
    first, second = (torch.randn(3, 1, 3, 3, requires_grad=True) for _ in range(2))
    y, _ = ops.each(x, [ops.centred(first), ops.centred(second)])
    y.sum().backward()
    assert x.grad is None and first.grad is not None and bool((first.grad != 0).any())
    assert second.grad is not None and not bool((second.grad != 0).any())


@pytest.mark.parametrize("form", FORMS)
def test_other_memory_orders_and_empty_batches(form: str) -> None:
    weights = [torch.randn(2 if form == "split" else 6, 1, 3, 3) for _ in range(2)]
    branches = [ops.centred(weight) for weight in weights]
    for x in (
        torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last),
        torch.randn(2, 12, 5, 4)[:, ::2],
        torch.randn(0, 6, 5, 4),
    ):
        for mine, right in zip(ops._run(form, x, branches), exact(form, x, branches), strict=True):
            assert torch.allclose(mine.double(), right, atol=1e-5)


def test_hooks_and_replaced_children_are_called() -> None:
    torch.manual_seed(0)
    layer, x = nn.InceptionDWConv2d(24), torch.randn(2, 24, 9, 9)
    expected, seen = layer(x), []
    handle = layer.dwconv_w.register_forward_hook(lambda *_: seen.append(1))
    assert torch.allclose(layer(x), expected, atol=1e-6) and seen == [1]
    handle.remove()
    layer.dwconv_h = torch.nn.Identity()
    layer.dwconv_h.in_channels = 3
    assert torch.equal(layer(x)[:, -3:], x[:, -3:])
