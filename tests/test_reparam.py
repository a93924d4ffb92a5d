"""Branches before and after merging."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import striate
from striate import nn
from striate.compat.replknet import DepthWiseConv2dImplicitGEMM
from striate.nn.reparam import DILATED_BRANCHES, centred, dilated

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(module: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    """With statistics, scales and shifts that nothing cancels, in evaluation."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            with torch.no_grad():
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-1, 1)
    for _ in range(2):
        module(x * 2 + 1)
    return module.eval()


BLOCKS = [
    *(pytest.param(lambda k=k: nn.DilatedReparamConv2d(3, k), id=f"dilated{k}") for k in DILATED_BRANCHES),
    pytest.param(lambda: nn.DilatedReparamConv2d(3, 19, ((5, 3), (3, 9))), id="dilated-own"),
    pytest.param(lambda: nn.RepLKBlockConv2d(3, 13), id="replk"),
    pytest.param(lambda: nn.RepLKBlockConv2d(3, 9, 3, stride=2), id="replk-stride"),
    pytest.param(lambda: nn.RepLKBlockConv2d(3, 9, None), id="replk-alone"),
    pytest.param(lambda: nn.SLaKConv2d(3, 21), id="slak"),
    pytest.param(lambda: nn.SLaKConv2d(3, 5), id="slak-square"),
]


@pytest.mark.parametrize("make", BLOCKS)
def test_merged_equals_branches(make: object) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 15, 14)
    block = trained(make(), x)  # type: ignore[operator]
    expected = block(x)
    merged = nn.merge(block)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in merged.modules())
    assert merged(x).shape == expected.shape and (merged(x) - expected).abs().max() < 1e-5
    assert not merged.training and all(p.requires_grad for p in merged.parameters())


def test_branches_are_the_published_ones() -> None:
    for kernel, branches in DILATED_BRANCHES.items():
        assert all((size - 1) * dilation + 1 <= kernel for size, dilation in branches)
    names = set(nn.DilatedReparamConv2d(2, 9).state_dict())
    assert {"lk_origin.weight", "origin_bn.running_var", "dil_conv_k5_2.weight", "dil_bn_k3_4.bias"} <= names
    assert {"lkb_origin.conv.weight", "small_conv.bn.bias"} <= set(nn.RepLKBlockConv2d(2, 9).state_dict())
    assert {"LoRA1.conv.weight", "LoRA2.bn.bias"} <= set(nn.SLaKConv2d(2, 9).state_dict())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_dilated_kernels_become_dense(height: int, width: int, down: int, across: int) -> None:
    generator = torch.Generator().manual_seed(height * width)
    kernel = torch.randint(-3, 4, (2, 1, height, width), generator=generator).float()
    x = torch.randint(-3, 4, (1, 2, 14, 13), generator=generator).float()
    dense = dilated(kernel, (down, across))
    assert torch.equal(F.conv2d(x, dense, groups=2), F.conv2d(x, kernel, dilation=(down, across), groups=2))
    larger = centred(dense, (dense.shape[2] + 2, dense.shape[3] + 4))
    assert torch.equal(F.conv2d(x, larger, padding=(1, 2), groups=2), F.conv2d(x, dense, groups=2))


def test_merge_walks_a_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {
            "stem": torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
            ),
            "body": torch.nn.Sequential(nn.RepLKBlockConv2d(4, 7), torch.nn.BatchNorm2d(4)),
            "dcls": nn.Dcls2d(4, 4, 3, padding=3, dilated_kernel_size=7, groups=4),
        }
    )

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers.values():
                x = layer(x)
            return x

    x = torch.randn(2, 3, 9, 9)
    whole = trained(Model(), x)
    expected = whole(x)
    assert nn.merge(whole) is whole
    assert (whole(x) - expected).abs().max() < 1e-5
    kinds = {type(layer) for layer in whole.modules()}
    assert torch.nn.BatchNorm2d not in kinds and nn.Dcls2d not in kinds and nn.RepLKBlockConv2d not in kinds


def test_merge_leaves_what_it_does_not_know() -> None:
    norm = torch.nn.BatchNorm2d(6)
    sequence = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.PixelShuffle(1), norm)
    assert nn.merge(sequence)[2] is norm
    free = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(RuntimeError, match="running statistics"):
        nn.merge(free)


@pytest.mark.parametrize("dilation", [1, 2])
def test_inception_is_a_convolution_with_zero_filled_kernels(dilation: int) -> None:
    torch.manual_seed(0)
    layer = nn.InceptionDWConv2d(16, dilation=dilation)
    x = torch.randn(2, 16, 13, 12)
    same = torch.zeros(10, 1, 11, 11)
    same[:, :, 5, 5] = 1
    kernels = [centred(c.weight, 11) for c in (layer.dwconv_hw, layer.dwconv_w, layer.dwconv_h)]
    biases = [c.bias for c in (layer.dwconv_hw, layer.dwconv_w, layer.dwconv_h)]
    expected = F.conv2d(
        x,
        torch.cat([same, *kernels]),
        torch.cat([torch.zeros(10), *biases]),
        padding=5 * dilation,
        dilation=dilation,
        groups=16,
    )
    assert (layer(x) - expected).abs().max() < 1e-5
    assert torch.equal(layer(x)[:, :10], x[:, :10])


def test_inception_loads_timm() -> None:
    block = pytest.importorskip("timm.models.inception_next").InceptionDWConv2d(24)
    mine = nn.InceptionDWConv2d(24)
    mine.load_state_dict(block.state_dict())
    x = torch.randn(1, 24, 14, 14)
    assert (mine(x) - block(x)).abs().max() < 1e-5


@pytest.mark.parametrize("kernel", [5, (3, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_implicit_gemm_drop_in_says_what_it_pads(kernel: int | tuple[int, int], dtype: torch.dtype) -> None:
    layer = DepthWiseConv2dImplicitGEMM(4, kernel, bias=True, dtype=dtype)
    size = layer.weight.shape[2:]
    assert layer.padding == (size[0] // 2, size[1] // 2)
    x = torch.randn(2, 4, 9, 10).to(dtype)
    expected = F.conv2d(
        x.double(), layer.weight.double(), layer.bias.double(), padding=layer.padding, groups=4
    )
    limit = 1e-5 if dtype == torch.float32 else 2**-7 * float(expected.detach().abs().max())
    assert layer(x).dtype == dtype and (layer(x) - expected).abs().max() < limit
    assert isinstance(layer, torch.nn.Conv2d) and striate.nn.Conv2d in type(layer).__mro__


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="kernel_size: expected a positive odd"):
        nn.RepLKBlockConv2d(4, 8)
    with pytest.raises(ValueError, match="small_kernel: expected at most"):
        nn.RepLKBlockConv2d(4, 3, 5)
    with pytest.raises(ValueError, match="expected one of 5, 7"):
        nn.DilatedReparamConv2d(4, 19)
    with pytest.raises(ValueError, match="branches: expected a reach"):
        nn.DilatedReparamConv2d(4, 7, ((5, 2),))
    with pytest.raises(ValueError, match="branch_ratio: expected"):
        nn.InceptionDWConv2d(4)
