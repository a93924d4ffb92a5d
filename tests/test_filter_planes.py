"""Filters of small planes in the frequency domain: every row against torch.fft in float64, and the closed family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import striate
from strategies import host_rows
from striate import _core
from striate.ops._planes import _by_torch, _grad_by_torch, filter_planes, filter_planes_grad

F32, F64 = torch.float32, torch.float64
ROWS = [row["name"] for row in host_rows("filter_planes")]
SIZES = [(7, 7), (14, 14), (2, 2), (3, 8), (28, 5), (13, 22), (64, 64), (56, 30), (9, 49), (16, 24)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def spectra(channels: int, height: int, width: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    return random(channels, height, width // 2 + 1, 2, seed=seed, dtype=dtype)


def close(got: Tensor, exact: Tensor, terms: Tensor) -> None:
    """Within a small multiple of eps of the largest number that could have come out."""
    assert got.shape == exact.shape
    assert (got - exact).abs().max() <= 8 * torch.finfo(got.dtype).eps * float(terms)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("size", SIZES)
def test_rows_do_what_torch_does_in_float64(row: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    if row.endswith("reference") and size[0] * size[1] > 200:
        pytest.skip("the definition takes seconds")
    for samples, channels in ((2, 3), (1, 17), (3, 8)):
        x, g = (random(samples, channels, *size, seed=seed, dtype=dtype) for seed in (2, 3))
        w = spectra(channels, *size, dtype=dtype)
        _core.set_kernels(rf"^filter_planes\w*\.{row.split('.')[1]}$")
        try:
            y, back, dw = filter_planes(x, w, False), filter_planes(g, w, True), filter_planes_grad(g, x)
        finally:
            _core.set_kernels(None)
        n = size[0] * size[1]
        reach = x.abs().flatten(2).sum(-1).max() * w.norm(dim=-1).flatten(1).sum(1).max() * 2 / n
        close(y, _by_torch(x.double(), w.double(), False), reach)
        close(back, _by_torch(g.double(), w.double(), True), reach * 2)
        both = 2 / n * samples * x.abs().flatten(2).sum(-1).max() * g.abs().flatten(2).sum(-1).max()
        close(dw, _grad_by_torch(g.double(), x.double()), both)


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (1, 6), (6, 1)])
def test_the_family_is_closed(size: tuple[int, int]) -> None:
    x, g, w = (
        random(2, 3, *size).requires_grad_(),
        random(2, 3, *size, seed=5),
        spectra(3, *size).requires_grad_(),
    )
    g.requires_grad_()
    for conjugate in (False, True):
        check = lambda a, b, c=conjugate: filter_planes(a, b, c)  # noqa: E731
        assert torch.autograd.gradcheck(check, (x, w), check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(check, (x, w))
    assert torch.autograd.gradcheck(
        filter_planes_grad, (g, x), check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(filter_planes_grad, (g, x))


def test_vmap_is_a_loop() -> None:
    xs, ws = random(3, 2, 4, 6, 8), torch.stack([spectra(4, 6, 8, seed=seed) for seed in range(3)])
    got = torch.func.vmap(lambda x, w: filter_planes(x, w, True))(xs, ws)
    assert torch.allclose(got, torch.stack([filter_planes(x, w, True) for x, w in zip(xs, ws, strict=True)]))
    one = torch.func.vmap(lambda x: filter_planes(x, ws[0], False), in_dims=1)(xs)
    assert torch.allclose(one, torch.stack([filter_planes(xs[:, i], ws[0], False) for i in range(2)]))


def test_torch_knows_the_operators() -> None:
    x, w = random(2, 3, 4, 6, dtype=F32), spectra(3, 4, 6, dtype=F32)
    torch.library.opcheck(torch.ops.striate.filter_planes.default, (x, w, False))
    torch.library.opcheck(torch.ops.striate.filter_planes_grad.default, (x, x))


def test_bits_do_not_depend_on_threads_or_batch() -> None:
    x, w = random(4, 40, 14, 14, dtype=F32), spectra(40, 14, 14, dtype=F32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append((filter_planes(x, w, False), filter_planes_grad(x, x)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for more in found[1:] for a, b in zip(found[0], more, strict=True))
    assert torch.equal(filter_planes(x[1:2], w, False), found[0][0][1:2])


@pytest.mark.parametrize("size", [(14, 14), (74, 6)])
def test_global_filters_take_it(size: tuple[int, int]) -> None:
    layer, x = striate.nn.GlobalFilter2d(5, *size), random(2, 5, *size, dtype=F32).requires_grad_()
    y = layer(x)
    true = torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(layer.complex_weight), s=size)
    assert torch.allclose(y, true, rtol=1e-4, atol=1e-6)
    for got, expected in zip(
        torch.autograd.grad(y.square().sum(), (x, layer.complex_weight)),
        torch.autograd.grad(true.square().sum(), (x, layer.complex_weight)),
        strict=True,
    ):
        assert torch.allclose(got, expected, rtol=1e-3, atol=1e-5)
    assert ("filter_planes" in striate.explain(layer, x).row) == (size == (14, 14))
    half = layer.bfloat16()(x.bfloat16()) if size == (14, 14) else y
    assert torch.isfinite(half).all()


def test_nothing_to_filter() -> None:
    for shape in ((0, 3, 7, 7), (2, 0, 7, 7)):
        x = torch.zeros(shape, requires_grad=True)
        w = torch.ones(shape[1], 7, 4, 2, requires_grad=True)
        filter_planes(x, w, False).sum().backward()
        assert x.grad.shape == shape and torch.equal(w.grad, torch.zeros_like(w))
