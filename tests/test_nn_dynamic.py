"""Layers whose kernels depend on the input, the position or a mask, against unfold and closed forms."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from striate.nn import dynamic as dyn


def integers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).double()


def by_unfold(x: Tensor, w: Tensor, stride: int, dilation: int, interleaved: bool) -> Tensor:
    """The definition, with every window in memory."""
    n, c = x.shape[:2]
    g, kh, kw, h, v = w.shape[1:]
    pad = (dilation * (kh // 2), dilation * (kw // 2))
    windows = F.unfold(x, (kh, kw), dilation, pad, stride).view(n, c, kh * kw, h, v)
    kernels = w.flatten(2, 3).expand(n, -1, -1, -1, -1)
    spread = kernels.repeat(1, c // g, 1, 1, 1) if interleaved else kernels.repeat_interleave(c // g, 1)
    return (windows * spread).sum(2)


@pytest.mark.parametrize("grouping", ["blocked", "interleaved"])
@pytest.mark.parametrize(
    ("stride", "dilation", "kernel"), [(1, 1, (3, 3)), (2, 1, (7, 5)), (1, 2, (3, 3)), (3, 2, (1, 3))]
)
@pytest.mark.parametrize("batch", [1, 2])
def test_spatially_varying_equals_unfold(
    grouping: str, stride: int, dilation: int, kernel: tuple[int, int], batch: int
) -> None:
    x = integers(2, 6, 9, 11).requires_grad_()
    extents = ((9 - 1) // stride + 1, (11 - 1) // stride + 1)
    w = integers(batch, 3, *kernel, *extents, seed=1).requires_grad_()
    got = dyn.spatially_varying_conv2d(x, w, stride=stride, dilation=dilation, grouping=grouping)
    want = by_unfold(x, w, stride, dilation, grouping == "interleaved")
    assert torch.equal(got, want)
    dy = integers(*want.shape, seed=2)
    for a, b in zip(torch.autograd.grad(got, (x, w), dy), torch.autograd.grad(want, (x, w), dy), strict=True):
        assert torch.equal(a, b)


def test_spatially_varying_with_one_kernel_is_depthwise_convolution() -> None:
    x, kernel = integers(2, 4, 8, 8), integers(4, 1, 3, 3, seed=1)
    w = kernel.view(1, 4, 3, 3, 1, 1).expand(1, 4, 3, 3, 8, 8)
    assert torch.equal(dyn.spatially_varying_conv2d(x, w), F.conv2d(x, kernel, padding=1, groups=4))
    reflected = dyn.spatially_varying_conv2d(x, w, pad="reflect")
    assert torch.equal(reflected, F.conv2d(F.pad(x, (1,) * 4, "reflect"), kernel, groups=4))


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        ((2, 4, 3, 3, 8, 8), {}, "G dividing 6"),
        ((2, 3, 2, 3, 8, 8), {}, "odd"),
        ((2, 3, 3, 3, 4, 8), {}, r"extents \(8, 8\)"),
        ((2, 3, 3, 3, 8, 8), {"grouping": "mixed"}, "grouping"),
    ],
)
def test_spatially_varying_refuses(weight: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dyn.spatially_varying_conv2d(torch.zeros(2, 6, 8, 8), torch.zeros(weight), **options)


@pytest.mark.parametrize("stride", [1, 2])
def test_involution_with_constant_kernel_is_shared_depthwise_convolution(stride: int) -> None:
    layer = dyn.Involution2d(32, 5, stride).double().eval()
    with torch.no_grad():
        layer.span.weight.zero_()
        layer.span.bias.copy_(integers(50))
    x = integers(2, 32, 8, 8, seed=1)
    kernel = layer.span.bias.detach().view(2, 1, 5, 5).repeat_interleave(16, 0)
    assert torch.equal(layer(x), F.conv2d(x, kernel, padding=2, stride=stride, groups=32))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_condconv_equals_one_convolution_for_each_sample(groups: int) -> None:
    torch.manual_seed(0)
    layer = dyn.CondConv2d(4, 8, 3, num_experts=3, stride=2, padding=1, groups=groups).double()
    with torch.no_grad():
        layer.weight.copy_(integers(*layer.weight.shape))
        assert layer.bias is not None
        layer.bias.copy_(integers(*layer.bias.shape, seed=1))
    x, routing = integers(5, 4, 7, 7, seed=2), integers(5, 3, seed=3)
    got = layer(x, routing)
    for n in range(5):
        kernels = [routing[n, e] * layer.weight[e].view(layer.shape) for e in range(3)]
        want = F.conv2d(x[n : n + 1], sum(kernels[1:], kernels[0]), routing[n] @ layer.bias, 2, 1, 1, groups)
        assert torch.equal(got[n : n + 1], want)
    with pytest.raises(ValueError, match="routing must have shape"):
        layer(x, routing[:, :2])
    with pytest.raises(TypeError, match="paddding"):
        dyn.CondConv2d(4, 8, 3, paddding=1)


def test_space_to_depth_order() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    y = dyn.SpaceToDepth(2)(x)
    assert y[0, :, 0, 0].tolist() == [0, 4, 1, 5]
    unshuffled = F.pixel_unshuffle(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), 2)
    back = F.pixel_shuffle(unshuffled, 2)
    order = [c * 4 + q for q in (0, 2, 1, 3) for c in range(3)]
    assert torch.equal(dyn.SpaceToDepth(2)(back), unshuffled[:, order])
    with pytest.raises(ValueError, match="multiples of 2"):
        dyn.SpaceToDepth(2)(torch.zeros(1, 1, 3, 4))


def test_partial_channels_are_a_block_diagonal_convolution() -> None:
    layer = dyn.PartialChannelConv2d(8).double()
    x = integers(2, 8, 5, 5)
    whole = torch.zeros(8, 8, 3, 3, dtype=torch.double)
    whole[:2, :2] = layer.weight.detach()
    for c in range(2, 8):
        whole[c, c, 1, 1] = 1
    torch.testing.assert_close(layer(x), F.conv2d(x, whole, padding=1), atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("channels", [1, 3])
def test_partial_convolution_equals_its_definition(channels: int) -> None:
    torch.manual_seed(0)
    layer = dyn.PartialConv2d(3, 4, 3, 2, 1).double()
    x, mask = integers(2, 3, 7, 7), (torch.rand(2, channels, 7, 7) < 0.3).double()
    mask[:, :, :4, :4] = 0
    y, seen = layer(x, mask)
    xs, ms = F.pad(x * mask, (1,) * 4), F.pad(mask, (1,) * 4)
    for n in range(2):
        for i in range(4):
            for j in range(4):
                at = (n, slice(None), slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 3))
                valid = ms[at].sum()
                assert seen[n, 0, i, j] == (valid > 0)
                full = (
                    torch.einsum("ocij,cij->o", layer.weight, xs[at]) * (9 * channels / valid.clamp(min=1))
                    + layer.bias
                )
                torch.testing.assert_close(y[n, :, i, j], full * (valid > 0), atol=1e-12, rtol=1e-12)
    with pytest.raises(ValueError, match="mask must be"):
        layer(x, mask[:, :, 1:])


def test_partial_padding_keeps_a_constant_image_constant() -> None:
    layer = dyn.PartialPaddingConv2d(1, 1, 3, padding=1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(1)
    x = torch.full((1, 1, 6, 6), 2.0, dtype=torch.double)
    assert torch.equal(layer(x), torch.full((1, 1, 6, 6), 18.0, dtype=torch.double))
    x = integers(1, 1, 6, 6)
    assert torch.equal(layer(x)[..., 1:-1, 1:-1], F.conv2d(x, layer.weight))


@pytest.mark.parametrize(
    ("direction", "dim", "flipped"), [("D", 2, False), ("U", 2, True), ("R", 3, False), ("L", 3, True)]
)
def test_slice_recurrence_of_identity_is_a_cumulative_sum(direction: str, dim: int, flipped: bool) -> None:
    layer = dyn.SliceRecurrent2d(3, 5, direction).double()
    with torch.no_grad():
        layer.weight[0].copy_(torch.eye(3).view(3, 3, 1) * torch.tensor([0.0, 0, 1, 0, 0]))
    x = integers(2, 3, 5, 6).abs()
    want = x.flip(dim).cumsum(dim).flip(dim) if flipped else x.cumsum(dim)
    assert torch.equal(layer(x), want)


def test_slice_recurrence_equals_a_literal_loop() -> None:
    layer = dyn.SliceRecurrent2d(2, 3).double()
    x = want = integers(1, 2, 4, 5).clone()
    for direction, weight in zip("DURL", layer.weight, strict=True):
        want = want.clone()
        rows = direction in "DU"
        order = range(want.shape[2 if rows else 3])
        order = list(order) if direction in "DR" else list(order)[::-1]
        for a, b in pairwise(order):
            old = want[:, :, a] if rows else want[..., a]
            message = F.conv1d(old, weight, padding=1).relu()
            if rows:
                want[:, :, b] = want[:, :, b] + message
            else:
                want[..., b] = want[..., b] + message
    torch.testing.assert_close(layer(x), want, atol=1e-13, rtol=1e-13)
    with pytest.raises(ValueError, match="directions"):
        dyn.SliceRecurrent2d(2, 3, "DX")
