"""Shift-wise convolution against its words: expand to nk maps, shift them, add them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import striate
from strategies import host_rows
from striate import _core, nn
from striate.compat.shiftwise import ShifthWiseConv2dImplicit
from striate.ops.shiftwise import Permutations

pytestmark = pytest.mark.usefixtures("one_thread")


def read(maps: Tensor, rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    """maps[..., y + rows, x + columns] for y, x over ``size``; zero where that is outside."""
    height, width = maps.shape[-2:]
    pad = (
        max(0, -columns),
        max(0, columns + size[1] - width),
        max(0, -rows),
        max(0, rows + size[0] - height),
    )
    wide = F.pad(maps, pad)
    return wide[..., rows + pad[2] :, columns + pad[0] :][..., : size[0], : size[1]]


def expand_shift_add(x: Tensor, weights: Tensor, big: int, permutations: Permutations) -> tuple[Tensor, ...]:
    """The operator as it is described and implemented by its authors, map by map."""
    channels, small, size = x.shape[1], weights.shape[-1], (x.shape[2], x.shape[3])
    slots, padding = math.ceil(big / small), small - 1
    extra = padding - small // 2
    maps = sum(F.conv2d(x, w, padding=padding, groups=channels) for w in weights)
    sums = [torch.zeros_like(x) for _ in range(3)]
    for repetition in range(permutations.identity.shape[0]):
        for channel in range(channels):
            for slot in range(slots):
                shift = big // 2 - slot * small - padding
                wide = maps[:, channel * slots + int(permutations.horizontal[repetition, channel, slot])]
                tall = maps[:, channel * slots + int(permutations.vertical[repetition, channel, slot])]
                sums[0][:, channel] += read(wide, extra, -shift, size)
                sums[1][:, channel] += read(tall, -shift, extra, size)
            same = maps[:, channel * slots + int(permutations.identity[repetition, channel])]
            sums[2][:, channel] += read(same, extra, extra, size)
    return tuple(sums)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, Permutations]:
    small = draw(st.sampled_from([1, 2, 3, 4, 5]))
    big = draw(st.integers(small, 17))
    batch, channels, paths, reps = (draw(st.integers(1, 3)) for _ in range(4))
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    permutations = striate.shiftwise_permutations(channels, big, small, reps, draw(st.integers(0, 9)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    maps = channels * math.ceil(big / small)
    x = torch.randint(-3, 4, (batch, channels, height, width), generator=generator).float()
    weights = torch.randint(-2, 3, (paths, maps, 1, small, small), generator=generator).float()
    return x, weights, big, permutations


@given(problems())
@settings(max_examples=40, deadline=None)
def test_equals_expand_shift_add_on_integers(problem: tuple[Tensor, Tensor, int, Permutations]) -> None:
    x, weights, big, permutations = problem
    x.requires_grad_()
    weights.requires_grad_()
    got = striate.shiftwise_conv2d(x, weights, big_kernel=big, permutations=permutations)
    expected = expand_shift_add(x, weights, big, permutations)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    factors = (1.0, 2.0, -1.0)
    total, exact = (
        sum(f * (y * y) for f, y in zip(factors, ys, strict=True)).sum() for ys in (got, expected)
    )
    pairs = zip(
        torch.autograd.grad(total, (x, weights)), torch.autograd.grad(exact, (x, weights)), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("big", "taps", "first"), [(51, 51, 25), (49, 51, 24), (47, 48, 23), (13, 15, 6)])
def test_strips_reach_as_far_as_published(big: int, taps: int, first: int) -> None:
    permutations = striate.shiftwise_permutations(1, big, 3, 1)
    weights = torch.ones(1, math.ceil(big / 3), 1, 3, 3)
    x = torch.zeros(1, 1, 1, 121)
    x[..., 60] = 1
    wide = striate.shiftwise_conv2d(x, weights, big_kernel=big, permutations=permutations)[0]
    hit = wide[0, 0, 0].nonzero().flatten()
    assert hit.tolist() == list(range(60 + first - taps + 1, 60 + first + 1))


def test_derivatives() -> None:
    permutations = striate.shiftwise_permutations(2, 7, 3, 2)
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 6, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        return striate.shiftwise_conv2d(x, weights, big_kernel=7, permutations=permutations)

    assert torch.autograd.gradcheck(run, (x, weights), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (x, weights))


def published_permutations(channels: int, slots: int, reps: int) -> list[list[Tensor]]:
    """As the published layer draws them: all horizontal, all vertical, then the identities, after one global seed."""
    state = torch.random.get_rng_state()
    torch.manual_seed(123)
    drawn = [
        [torch.stack([torch.randperm(slots) for _ in range(channels)]) for _ in range(reps)] for _ in range(2)
    ]
    drawn.append([torch.randint(0, slots, [channels]) for _ in range(reps)])
    torch.random.set_rng_state(state)
    return drawn


def test_permutations_follow_the_published_seed_and_leave_the_global_state() -> None:
    before = torch.random.get_rng_state()
    layer = nn.ShiftwiseConv2d(5, 17)
    fresh = torch.random.get_rng_state()
    torch.random.set_rng_state(before)
    for _ in range(2):  # the only draws are the initial weights
        torch.nn.Conv2d(5, 30, 3, groups=5, bias=False)
    assert torch.equal(torch.random.get_rng_state(), fresh)
    for mine, theirs in zip(layer.permutations, published_permutations(5, 6, 4), strict=True):
        assert torch.equal(mine, torch.stack(theirs))


@pytest.mark.parametrize("bn", [True, False])
@pytest.mark.parametrize(("big", "small"), [(9, 3), (13, 3), (9, 4), (10, 2)])
def test_layer_trains_and_merges(bn: bool, big: int, small: int) -> None:
    torch.manual_seed(0)
    layer = nn.ShiftwiseConv2d(4, big, small, n_path=3, bn=bn)
    x = torch.randn(3, 4, 11, 12)
    for _ in range(3):
        trained = layer(x)
    sums = expand_shift_add(x, layer.weights(), big, layer.permutations)
    if bn:
        sums = tuple(F.batch_norm(y, None, None, training=True) for y in sums)
    assert torch.allclose(trained, sum(sums) + x, atol=1e-4)
    if bn:
        with torch.no_grad():
            layer.bn_lora1.weight.uniform_(0.5, 1.5)
            layer.bn_small.bias.uniform_(-1, 1)
    layer.eval()
    expected = layer(x)
    keys = set(layer.state_dict())
    assert {"LoRAs.0.weight", "LoRAs.2.weight"} <= keys and not any("horizontal" in key for key in keys)
    merged = nn.merge(layer)
    assert isinstance(merged, nn.CrossConv2d) and not merged.training
    assert torch.allclose(merged(x), expected, atol=1e-5)
    dense = merged.dense_kernel()
    assert torch.allclose(
        F.conv2d(x, dense, merged.bias, padding=dense.shape[-1] // 2, groups=4), expected, atol=1e-5
    )
    layer.merge_paths()
    assert "LoRA.weight" in layer.state_dict() and torch.allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("big", "small"), [(51, 3), (13, 3), (9, 4), (10, 2)])
def test_reparameterized_is_one_cross_with_norms_folded(
    dtype: torch.dtype, limit: float, big: int, small: int
) -> None:
    torch.manual_seed(0)
    layer = nn.ShiftwiseConv2d(4, big, small, dtype=dtype)
    x = torch.randn(2, 4, 11, 60, dtype=dtype)
    for norm in (layer.bn_lora1, layer.bn_lora2, layer.bn_small):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -1, 1)
    layer(x)  # running statistics
    layer.eval()
    expected = layer(x)
    twin = nn.ShiftwiseConv2d(4, big, small, dtype=dtype)
    for other in (layer, twin):
        other.reparameterize()
        other.reparameterize()
        assert set(other.state_dict()) == {"cross.tall", "cross.wide", "cross.bias"}
    twin.load_state_dict(layer.state_dict())
    scale = expected.abs().max()
    assert (layer(x) - expected).abs().max() <= limit * scale and torch.equal(twin.train()(x), layer(x))
    dense = layer.cross.dense_kernel()
    once = F.conv2d(x, dense, layer.cross.bias, padding=dense.shape[-1] // 2, groups=4)
    assert dense.shape[:2] == (4, 1) and (once - expected).abs().max() <= limit * scale
    corner = dense.shape[-1] // 2 - small
    assert bool((dense[..., :corner, :corner] == 0).all()) and nn.merge(layer) is layer.cross
    with pytest.raises(RuntimeError, match="weights: expected a layer with small kernels"):
        layer.set_mask(None)


@given(problems())
@settings(max_examples=25, deadline=None)
def test_reparameterized_is_exact_on_integers(problem: tuple[Tensor, Tensor, int, Permutations]) -> None:
    x, weights, big, permutations = problem
    shape = (x.shape[1], big, weights.shape[-1], weights.shape[0], permutations.identity.shape[0])
    layer = nn.ShiftwiseConv2d(*shape, bn=False)
    with torch.no_grad():
        for conv, weight in zip(layer.LoRAs, weights, strict=True):
            conv.weight.copy_(weight)
        expected = sum(expand_shift_add(x, weights, big, layer.permutations)) + x
        layer.reparameterize()
        assert torch.equal(layer(x), expected)


def test_masks_take_filters_out() -> None:
    torch.manual_seed(0)
    layer = nn.ShiftwiseConv2d(3, 9, bn=False)
    mask = (torch.rand(9, 1, 1, 1) > 0.4).float()
    layer.set_mask(mask)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(nn.merge(layer)(x), layer(x), atol=1e-5)
    exact = expand_shift_add(x, torch.stack([c.weight for c in layer.LoRAs]) * mask, 9, layer.permutations)
    assert torch.allclose(layer(x), sum(exact) + x, atol=1e-5)
    layer(x).sum().backward()
    grad = layer.LoRAs[0].weight.grad
    assert grad is not None and bool((grad[mask.flatten() == 0] == 0).all()) and bool((grad != 0).any())
    with pytest.raises(RuntimeError, match="mask: expected"):
        layer.set_mask(torch.ones(4, 1, 1, 1))


@pytest.mark.parametrize("row", [row["name"] for row in host_rows("branches")])
@pytest.mark.parametrize("shape", [(2, 9, 28, 33), (1, 3, 35, 50), (1, 2, 3, 40)])
def test_masked_blocks_are_exact_in_every_row(row: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    channels = shape[1]
    permutations = striate.shiftwise_permutations(channels, 13, 3, 1)
    x = torch.randint(-3, 4, shape, generator=generator).float().requires_grad_()
    weights = torch.randint(-2, 3, (1, channels * 5, 1, 3, 3), generator=generator).float()
    weights *= torch.rand(1, channels * 5, 1, 1, 1, generator=generator) > 0.5
    upstream = [torch.randint(-3, 4, shape, generator=generator).float() for _ in range(3)]
    _core.set_kernels(f"^{row}$")
    try:
        mine = striate.shiftwise_conv2d(x, weights, big_kernel=13, permutations=permutations, sparse=True)
        (dx,) = torch.autograd.grad(mine, x, upstream)
    finally:
        _core.set_kernels(None)
    right = expand_shift_add(x, weights, 13, permutations)
    assert all(torch.equal(a, b) for a, b in zip(mine, right, strict=True))
    assert torch.equal(dx, torch.autograd.grad(right, x, upstream)[0])


def test_masked_blocks_are_not_computed() -> None:
    torch.manual_seed(0)
    layer = nn.ShiftwiseConv2d(4, 15, n_rep=1, bn=False)
    mask = torch.ones(4, 5, 1, 1, 1)
    mask[1] = 0
    x = torch.randn(1, 4, 20, 40)
    x[0, 1, 9, 9] = torch.inf  # times zero it would be NaN
    layer.set_mask(mask.flatten(0, 1))
    sums = striate.shiftwise_conv2d(
        x, layer.weights(), big_kernel=15, permutations=layer.permutations, sparse=True
    )
    assert all(torch.equal(y[0, 1], torch.zeros(20, 40)) for y in sums)
    mask[1, 1:] = 1
    layer.set_mask(mask.flatten(0, 1))
    assert not layer.sparse  # one block of twenty is too few
    layer.set_mask(torch.cat([torch.zeros(2, 5, 1, 1, 1), torch.ones(2, 5, 1, 1, 1)]).flatten(0, 1))
    assert layer.sparse and layer.merged().grain == 3
    assert torch.equal(layer(x.nan_to_num(posinf=2.0))[0, 0], x[0, 0])
    layer.set_mask(None)
    assert not layer.sparse


def test_drop_in_keeps_ghosts_behind() -> None:
    torch.manual_seed(0)
    layer = ShifthWiseConv2dImplicit(10, 10, 9).eval()
    assert len(layer.rep) == 6 and sorted([*layer.rep.tolist(), *layer.ghost.tolist()]) == list(range(10))
    assert layer.ghost.tolist() == sorted(layer.ghost.tolist())
    names = {name.split(".")[0] for name in layer.state_dict()}
    assert names == {"LoRAs", "bn_lora1", "bn_lora2", "bn_small"}
    x = torch.randn(2, 10, 9, 9)
    expected = layer(x)
    assert torch.equal(expected[:, 6:], x[:, layer.ghost])
    assert torch.allclose(nn.merge(layer)(x), expected, atol=1e-5)
    layer.merge_branches()
    assert "LoRA.weight" in layer.state_dict() and torch.allclose(layer(x), expected, atol=1e-5)
    layer.reparameterize()
    assert "cross.wide" in layer.state_dict() and torch.allclose(layer(x), expected, atol=1e-5)


def test_compiled() -> None:
    torch.manual_seed(0)
    layer = nn.ShiftwiseConv2d(3, 7)
    x = torch.randn(2, 3, 6, 6)
    expected = layer(x)
    assert torch.allclose(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_input_beside_full_weights(dtype: torch.dtype) -> None:
    permutations = striate.shiftwise_permutations(2, 8, 3, 1)
    x = torch.randint(-2, 3, (1, 2, 6, 7)).to(dtype)
    weights = torch.randint(-1, 2, (1, 6, 1, 3, 3)).float()
    got = striate.shiftwise_conv2d(x, weights, big_kernel=8, permutations=permutations)
    expected = expand_shift_add(x.float(), weights, 8, permutations)
    assert all(a.dtype == dtype and torch.equal(a.float(), b) for a, b in zip(got, expected, strict=True))


def test_bad_arguments() -> None:
    permutations = striate.shiftwise_permutations(2, 9, 3, 1)
    x, weights = torch.zeros(1, 2, 5, 5), torch.zeros(1, 6, 1, 3, 3)
    with pytest.raises(RuntimeError, match="weights: expected 10 filters"):
        striate.shiftwise_conv2d(x, weights, big_kernel=13, permutations=permutations)
    with pytest.raises(RuntimeError, match=r"permutations.horizontal: expected \[1, 2, 4\]"):
        striate.shiftwise_conv2d(x, torch.zeros(1, 8, 1, 3, 3), big_kernel=12, permutations=permutations)
    with pytest.raises(RuntimeError, match="expected x"):
        striate.shiftwise_conv2d(x[0], weights, big_kernel=9, permutations=permutations)
    with pytest.raises(ValueError, match="big_kernel: expected at least"):
        striate.shiftwise_conv2d(x, weights, big_kernel=2, permutations=permutations)
    with pytest.raises(ValueError, match="small_kernel: expected 1 to big_kernel 9, got 10"):
        nn.ShiftwiseConv2d(4, 9, 10)
    with pytest.raises(ValueError, match="as many out_channels"):
        ShifthWiseConv2dImplicit(4, 8, 9)
