"""Built kernels: closed forms, gradients that reach the parameters, and the traps of the published layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from striate import nn

pytestmark = pytest.mark.usefixtures("one_thread")


LAYERS: list[Any] = [
    pytest.param(lambda **o: nn.SMPConv1d(4, 6, 7, 5, groups=2, padding=3, **o), id="smp1"),
    pytest.param(lambda **o: nn.SMPConv2d(4, 4, 5, groups=4, padding=2, **o), id="smp2-shared"),
    pytest.param(lambda **o: nn.SMPConv2d(4, 6, (5, 3), 4, stride=2, **o), id="smp2-own"),
    pytest.param(
        lambda **o: nn.WeightedConv1d(4, 6, 3, [0.5], trainable=True, padding=1, **o), id="weighted1"
    ),
    pytest.param(
        lambda **o: nn.WeightedConv2d(
            4, 6, 5, [0.3, 1.5], trainable=True, padding=2, padding_mode="reflect", **o
        ),
        id="weighted2",
    ),
    pytest.param(
        lambda **o: nn.WeightedConv3d(4, 4, 3, [0.7], trainable=True, groups=2, **o), id="weighted3"
    ),
    pytest.param(lambda **o: nn.GaborConv2d(4, 6, 5, bias=True, padding="same", **o), id="gabor"),
    pytest.param(lambda **o: nn.GaussianComposedConv2d(4, 6, 3, padding=1, sigma=1.2, **o), id="gauss"),
    pytest.param(
        lambda **o: nn.GaussianComposedConv2d(
            4, 4, 3, covariance="diagonal", sigma=0.8, groups=4, stride=2, padding=(0, 2), **o
        ),
        id="gauss-diagonal",
    ),
    pytest.param(
        lambda **o: nn.GaussianComposedConv2d(4, 6, (3, 1), covariance="full", sigma=0.7, **o),
        id="gauss-full",
    ),
    pytest.param(lambda **o: nn.ContinuousKernelConv1d(4, 6, 9, padding=4, **o), id="siren"),
    pytest.param(lambda **o: nn.ContinuousKernelConv2d(4, 4, 5, network="mfn", groups=2, **o), id="mfn"),
]


def sample(layer: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 4, *[9] * layer.rank, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.parametrize("make", LAYERS)
def test_every_parameter_learns_and_merging_changes_nothing(make: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    layer = make()
    x = sample(layer)
    expected = layer(x)
    expected.square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name
    merged = nn.merge(layer)
    assert type(merged) is getattr(nn, f"Conv{layer.rank}d")
    assert (merged(x) - expected).abs().max() < 1e-5 * max(1.0, float(expected.detach().abs().max()))
    again = make()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), expected)


@pytest.mark.parametrize("make", LAYERS)
def test_kernels_have_the_right_derivatives(make: Callable[..., Any]) -> None:
    torch.manual_seed(1)
    layer = make(dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters() if name != "bias"]
    values = [dict(layer.named_parameters())[name].detach().clone() for name in names]
    if "weight_coord" in names:  # off the grid: the cones have kinks there
        values[names.index("weight_coord")] += 0.0137
    inputs = tuple(value.requires_grad_() for value in values)

    class Kernel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self) -> Tensor:
            built: Tensor = self.layer.kernel()
            return built

    def build(*given: Tensor) -> Tensor:
        state = {f"layer.{name}": value for name, value in zip(names, given, strict=True)}
        return torch.func.functional_call(Kernel(), state, ())

    # one random number per tap: gradcheck in every tap of a dense kernel would take minutes
    mix = torch.randn(build(*inputs).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda *given: (build(*given) * mix).sum(), inputs, fast_mode=True)


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_parameters_build_in_float32(make: Callable[..., Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = make().to(dtype)
    exact = make().to(torch.float64)
    exact.load_state_dict(layer.state_dict())
    x = sample(layer, dtype)
    found, expected = layer.kernel(), exact.kernel()
    assert found.dtype == dtype and layer(x).dtype == dtype
    error = (found.double() - expected).abs().max() / expected.abs().max()
    assert error <= torch.finfo(dtype).eps  # rounded once
    slopes = torch.randint(-4, 5, found.shape, generator=torch.Generator().manual_seed(1))
    for kernel in (found, expected):
        kernel.backward(slopes.to(kernel.dtype))
    for (name, parameter), other in zip(layer.named_parameters(), exact.parameters(), strict=True):
        if other.grad is not None and other.grad.abs().max() > 0:
            apart = (parameter.grad.double() - other.grad).abs().max() / other.grad.abs().max()
            assert apart <= 4 * torch.finfo(dtype).eps, name


@pytest.mark.parametrize("make", LAYERS)
def test_autocast_builds_the_same_kernel(make: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    layer = make()
    x = sample(layer)
    seen = []
    built = layer.kernel
    layer.kernel = lambda: seen.append(built()) or seen[-1]
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    expected = built()
    assert all(torch.equal(kernel, expected) for kernel in seen)
    limit = 0.02 * layer(x).abs().max()
    assert (found.float() - layer(x)).abs().max() <= limit
    if not isinstance(layer, nn.GaussianComposedConv2d):  # the size of whose blur is a number
        layer.kernel = built
        assert layer.to("meta")(x.to("meta")).shape == found.shape  # a device without autocast


def test_smp_cone() -> None:
    layer = nn.SMPConv2d(1, 1, 5, 1, groups=1, shared=True)
    with torch.no_grad():
        layer.weight_coord.copy_(torch.tensor([[[0.0, 0.5]]]))
        layer.radius.fill_(0.8)
        layer.weights.fill_(1)
    plain = torch.zeros(5, 5)  # rows are the first coordinate, columns the second
    plain[2, 3] = 1
    for row, column in ((1, 3), (3, 3), (2, 2), (2, 4)):
        plain[row, column] = 0.375
    rotated = plain.t().flip(0)
    assert torch.allclose(layer.kernel().detach()[0, 0], rotated, atol=1e-6)


def test_smp_points_of_their_own_are_averaged() -> None:
    layer = nn.SMPConv1d(1, 1, 5, 2, shared=False)
    with torch.no_grad():
        layer.weight_coord.copy_(torch.tensor([[[0.0], [0.5]]]))
        layer.radius.fill_(0.75)
        layer.weights.fill_(1)
    cones = torch.tensor([[0, 1 / 3, 1, 1 / 3, 0], [0, 0, 1 / 3, 1, 1 / 3]])
    expected = (cones / torch.tensor([1, 1, 2, 2, 1])).sum(0)
    assert torch.allclose(layer.kernel().detach().flatten(), expected, atol=1e-5)
    layer.radius.data.fill_(7)
    layer.clamp_parameters()
    assert float(layer.radius.detach().max()) == 1


def test_smp_initial_values() -> None:
    torch.manual_seed(0)
    image, causal = nn.SMPConv2d(8, 8, 21, groups=8), nn.SMPConv1d(4, 4, 33, 50)
    assert image.n_points == 110 and image.shared and bool((image.radius == 4 / 21).all())
    assert not causal.shared and float(causal.weight_coord.detach().max()) <= 1
    assert float(causal.weight_coord.detach().median()) > 0.5  # near the newest tap
    assert set(image.state_dict()) == {"weight_coord", "radius", "weights", "bias"}


def test_weighted_density() -> None:
    torch.manual_seed(0)
    layer = nn.WeightedConv2d(2, 3, 7, [0.25, 0.15, 0.55])
    density = layer.kernel() / layer.weight
    assert density[0, 0, 0, 0].item() == pytest.approx(0.0625) and density[
        0, 0, 3, 3
    ].item() == pytest.approx(1)
    assert density[0, 0, 1, 5].item() == pytest.approx(0.15**2) and "density" in layer.state_dict()
    assert not any(name == "density" for name, _ in layer.named_parameters())
    plain = nn.WeightedConv2d(2, 3, 7)
    assert torch.equal(plain.kernel(), plain.weight)
    with pytest.raises(ValueError, match="density: expected 3 numbers"):
        nn.WeightedConv2d(2, 3, 7, [0.5])
    with pytest.raises(ValueError, match="kernel_size: expected the same odd"):
        nn.WeightedConv2d(2, 3, 4)


def test_gabor_closed_form_and_grids() -> None:
    layer = nn.GaborConv2d(1, 1, 5)
    with torch.no_grad():
        for parameter, value in (
            (layer.freq, math.pi / 2),
            (layer.theta, 0),
            (layer.sigma, 2),
            (layer.psi, 0),
        ):
            parameter.fill_(value)
    kernel = layer.kernel().detach()[0, 0]
    assert kernel[2, 2].item() == pytest.approx(0.0397887358, rel=1e-6)
    assert kernel[2, 3].item() == pytest.approx(0, abs=1e-8) and kernel[2, 4].item() < 0
    old = nn.GaborConv2d(1, 1, (5, 4), reference_grid=True)
    assert old._line(5).tolist() == pytest.approx([-2, -0.75, 0.5, 1.75, 3])
    assert old._line(4).tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize("covariance", ["spherical", "diagonal", "full"])
def test_composition_is_one_convolution(covariance: str) -> None:
    torch.manual_seed(0)
    layer = nn.GaussianComposedConv2d(3, 2, 3, covariance=covariance, sigma=1.3, padding=1)
    if covariance == "full":
        with torch.no_grad():
            layer.log_sigma[2] = 0.8
    g = layer.blur().detach()
    assert g.sum().item() == pytest.approx(1, abs=1e-6) and torch.allclose(g, g.flip(0, 1), atol=1e-7)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2.0 for n in g.shape), indexing="ij"))
    rows, lower, columns = (float(part.detach()) for part in layer._factor())
    factor = torch.tensor([[rows, 0], [lower, columns]])
    exact = torch.exp(-0.5 * torch.einsum("iyx,ij,jyx->yx", grid, torch.linalg.inv(factor @ factor.T), grid))
    assert torch.allclose(g, exact / exact.sum(), atol=1e-6)
    assert (
        g.shape[0] == 2 * math.ceil(2 * rows) + 1
        and g.shape[1] == 2 * math.ceil(2 * math.hypot(lower, columns)) + 1
    )
    x = torch.randn(1, 3, 8, 9)
    ry, rx = g.shape[0] // 2, g.shape[1] // 2
    expected = F.conv2d(x, layer.kernel(), layer.bias, padding=(1 + ry, 1 + rx))
    assert (layer(x) - expected).abs().max() < 1e-5


def test_blur_of_no_width_is_no_blur() -> None:
    torch.manual_seed(0)
    layer = nn.GaussianComposedConv2d(3, 2, 3, sigma=0.05, padding=1)
    x = torch.randn(1, 3, 8, 9)
    assert torch.allclose(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1), atol=1e-6)


def test_continuous_kernels_keep_the_scale_at_any_size() -> None:
    torch.manual_seed(0)
    for size in (9, 129):
        for network in ("siren", "mfn"):
            layer = nn.ContinuousKernelConv1d(64, 64, size, network=network, padding=size // 2)
            y = layer(torch.randn(4, 64, 300))
            assert 0.3 < float(y.detach().std()) < 3, (size, network)
            assert sum(p.numel() for n, p in layer.named_parameters() if not n.startswith("out")) < 6000


def test_smp_layers_compile() -> None:
    torch.manual_seed(0)
    layer = nn.SMPConv2d(4, 4, 5, groups=4, padding=2)
    x = torch.randn(1, 4, 6, 6)
    assert torch.allclose(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x), atol=1e-6)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="shared: expected"):
        nn.SMPConv2d(4, 8, 5, shared=True)
    with pytest.raises(ValueError, match="out_channels: expected a multiple of groups 2"):
        nn.GaborConv2d(4, 5, 3, groups=2)
    with pytest.raises(ValueError, match="padding_mode: expected"):
        nn.GaborConv2d(4, 4, 3, padding_mode="zero")
    with pytest.raises(ValueError, match="covariance: expected"):
        nn.GaussianComposedConv2d(4, 4, 3, covariance="diag")
    with pytest.raises(ValueError, match="network: expected"):
        nn.ContinuousKernelConv1d(4, 4, 3, network="mlp")
    with pytest.raises(TypeError, match="unexpected arguments dilation"):
        nn.SMPConv1d(4, 4, 3, dilation=2)
