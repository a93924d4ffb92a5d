"""Layers with learnable spacings on maps smaller than their grid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from striate import nn
from striate.ops.dcls import VERSIONS

# size of maps, grid, padding, stride
CASES = [(7, 17, 8, 1), (6, 17, 8, 1), (7, 12, 9, 2), (3, 9, 4, 3), (1, 5, 2, 1), (9, 5, 2, 1), (2, 9, 8, 1)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("rank", "size", "grid", "padding", "stride"),
    [(rank, *case) for rank in (1, 2, 3) for case in CASES if case[1] ** rank < 2000],
)
def test_small_maps_meet_the_middle_of_the_grid(
    rank: int, size: int, grid: int, padding: int, stride: int, version: str
) -> None:
    torch.manual_seed(2)
    layer = {1: nn.Dcls1d, 2: nn.Dcls2d, 3: nn.Dcls3d}[rank](
        4,
        4,
        5,
        stride=stride,
        padding=padding,
        dilated_kernel_size=grid,
        groups=4,
        version=version,
        dtype=torch.float64,
    )
    with torch.no_grad():
        layer.P.uniform_(-grid / 2 - 1, grid / 2 + 1)
    x = torch.randn(2, 4, *[size + axis for axis in range(rank)], dtype=torch.float64, requires_grad=True)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    mine = layer(x)
    right = convolve(x, layer.kernel(), layer.bias, stride, padding, 1, 4)
    assert torch.allclose(mine, right, atol=1e-12)
    wanted = [x, *layer.parameters()]
    upstream = torch.randn_like(right)
    pairs = zip(*(torch.autograd.grad(y, wanted, upstream) for y in (mine, right)), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)
    if (size, grid, stride) == (7, 17, 1):
        assert layer._met(x)[0].shape[2] == 13


def test_too_small_maps_are_refused_as_by_torch() -> None:
    layer = nn.Dcls2d(2, 2, 3, dilated_kernel_size=9, groups=2, version="v0")
    with pytest.raises(RuntimeError, match=r"9 x 9|[Kk]ernel size"):
        layer(torch.zeros(1, 2, 4, 4))
