"""Layers and drop-ins built on long convolutions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import striate
from striate import compat, nn
from striate.nn._projections import from_rows, into_rows
from striate.nn.modal import hankel_singular_values

F64 = torch.float64


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def toeplitz(kernel: Tensor, length: int) -> Tensor:
    """``[C, length, length]`` matrices of causal convolutions in convolution order."""
    lag = torch.arange(length)[:, None] - torch.arange(length)
    taps = F.pad(kernel, (0, max(0, length - kernel.shape[-1])))
    return torch.where(lag >= 0, taps[:, lag.clamp(min=0)], 0)


def apply(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("cts,ncs->nct", matrix, x)


def layers() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [
        nn.LongConv(4, 32, squash=0.01),
        nn.SGConv1d(4, 32, 4),
        nn.MultiresConv1d(4, 3, 32),
        nn.ModalConv1d(4, 5),
    ]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_layers_do_not_look_ahead_and_train(layer: torch.nn.Module) -> None:
    layer = layer.double()
    x = random(2, 4, 32).requires_grad_()
    y = layer(x)
    assert y.shape == x.shape
    (past,) = torch.autograd.grad(y[..., 11].sum(), x, retain_graph=True)
    assert past[..., 11].abs().min() > 0 and past[..., 12:].abs().max() < 1e-13
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


def test_long_conv_is_its_toeplitz_matrix() -> None:
    layer = nn.LongConv(3, 20, bidirectional=True, squash=0.05).double()
    x = random(2, 3, 20)
    k, ahead = (torch.sign(w) * F.relu(w.abs() - 0.05) for w in (layer.weight, layer.weight_reversed))
    matrix = toeplitz(k, 20) + toeplitz(ahead, 20).mT
    assert torch.allclose(layer(x), apply(matrix, x) + layer.skip[:, None] * x, atol=1e-12)
    assert (layer.weight.abs() < 0.05).any()
    assert layer(random(2, 3, 33)).shape == (2, 3, 33)


def test_sgconv_kernels_double_and_decay() -> None:
    layer = nn.SGConv1d(3, 1024, 64, activation=None, pointwise=False).double()
    assert len(layer.kernel_list) == 5 and layer.kernels(5000).shape == (1, 3, 1024)
    assert torch.allclose(layer.kernels(1024).norm(dim=-1), torch.ones(1, 3, dtype=F64), rtol=1e-6)
    short = nn.SGConv1d(3, 16, 16, activation=None, pointwise=False).double()
    x, (taps,) = random(2, 3, 16), short.kernel_list[0]
    expected = apply(toeplitz(taps / short.kernel_norm[0], 16), x) + short.D[:, None] * x
    assert torch.allclose(short(x), expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(short.kernel_norm, torch.ones(()))
    with pytest.raises(ValueError, match="input: expected at most 16 positions, got 17"):
        short(random(2, 3, 17))


def test_sgconv_looks_both_ways() -> None:
    layer = nn.SGConv1d(2, 12, 4, bidirectional=True, activation=None, pointwise=False).double()
    x, (behind, ahead) = random(1, 2, 12), layer.kernels(12)
    # The second kernel begins one sample ahead.
    matrix = toeplitz(behind, 12) + toeplitz(F.pad(ahead, (1, 0))[:, :12], 12).mT
    assert torch.allclose(layer(x), apply(matrix, x) + layer.D[:, None] * x, atol=1e-10)


def test_multires_is_the_published_tree() -> None:
    layer = nn.MultiresConv1d(1, depth=3, wavelet="haar", activation=None).double()
    with torch.no_grad():
        layer.w.copy_(torch.tensor([[1.0, 2, 3, 4, 5]]))
        layer.h0.copy_(torch.tensor([1.0, 1.0], dtype=F64) / math.sqrt(2))
        layer.h1.copy_(torch.tensor([-1.0, 1.0], dtype=F64) / math.sqrt(2))
    impulse = F.one_hot(torch.tensor([[0]]), 12).double()
    low, high = math.sqrt(0.5), 0.5
    first = 5 + 4 * low + 3 * high + (2 + 1) * high * low
    second = -4 * low + 3 * high + 3 * high * low
    third = -3 * high + 3 * high * low
    last = -2 * high * low + high * low
    expected = torch.tensor([first, second, third, third, *[last] * 4, *[0.0] * 4], dtype=F64)
    assert torch.allclose(layer(impulse)[0, 0], expected, atol=1e-12)
    assert abs(first - 10.389087296526) < 1e-11
    # Linear and shift-invariant: one causal convolution with this response.
    x = random(2, 1, 40)
    kernel = layer(F.one_hot(torch.tensor([[0]]), 40).double())[0]
    assert torch.allclose(layer(x), apply(toeplitz(kernel, 40), x), atol=1e-10)


@pytest.mark.parametrize("order", [2, 3])
def test_hyena_is_its_matrices(order: int) -> None:
    torch.manual_seed(1)
    layer = nn.HyenaOperator(4, 24, order, filter_order=8).double()
    u = random(2, 17, 4).requires_grad_()
    y = layer(u)
    z = layer.in_proj(u).transpose(1, 2)
    z = F.conv1d(z, layer.short_filter.weight, layer.short_filter.bias, padding=2, groups=z.shape[1])[
        ..., :17
    ]
    *gates, v = z.split(4, dim=1)
    kernels = layer.filter_fn.filter(17)
    for i, gate in enumerate(reversed(gates[1:])):
        channels = slice(4 * i, 4 * i + 4)
        matrix = toeplitz(kernels[channels], 17) + torch.diag_embed(
            layer.filter_fn.bias[channels, None].expand(-1, 17)
        )
        v = apply(matrix, v * gate)
    assert torch.allclose(y, layer.out_proj((v * gates[0]).transpose(1, 2)), atol=1e-10)
    (past,) = torch.autograd.grad(y[:, 10].sum(), u)
    assert past[:, 10].abs().min() > 0 and past[:, 11:].abs().max() < 1e-12


def test_hyena_has_the_standalone_names() -> None:
    names = set(nn.HyenaOperator(4, 24).state_dict())
    assert {"in_proj.weight", "short_filter.weight", "out_proj.bias", "filter_fn.bias"} <= names
    assert {"filter_fn.pos_emb.z", "filter_fn.pos_emb.t", "filter_fn.modulation.deltas"} <= names
    assert {f"filter_fn.implicit_filter.{i}.freq" for i in (1, 3, 5)} <= names
    assert "filter_fn.implicit_filter.6.weight" in names
    layer = nn.HyenaFilter(4, seq_len=24)
    x, gate = random(1, 4, 9, dtype=torch.float32), random(1, 4, 9, seed=1, dtype=torch.float32)
    assert torch.allclose(layer(x * gate), layer(x, gate))


def test_modal_recurrence_is_convolution() -> None:
    torch.manual_seed(2)
    layer = nn.ModalConv1d(3, 4).double()
    x = random(2, 3, 50)
    y, state = layer.recurrence(x)
    assert torch.allclose(layer(x), y, atol=1e-11)
    assert torch.allclose(layer.prefill(x[..., :30]), layer.recurrence(x[..., :30])[1], atol=1e-11)
    rest, end = layer.recurrence(x[..., 30:], layer.prefill(x[..., :30]))
    assert torch.allclose(rest, y[..., 30:], atol=1e-11) and torch.allclose(end, state, atol=1e-11)


def test_distilling_an_oscillation_recovers_it() -> None:
    poles = torch.polar(torch.tensor([0.9, 0.7], dtype=F64), torch.tensor([0.3, 1.1], dtype=F64))
    residues = torch.tensor([[1 + 0.5j, -0.3 + 2j], [0.2 - 1j, 1.5 + 0j]], dtype=torch.complex128)
    kernel = (residues[..., None] * poles[:, None] ** torch.arange(60)).real.sum(1)
    kernel[:, 0] += torch.tensor([2.0, -1.0], dtype=F64)
    layer = striate.distill_modal(kernel, 2)
    found = layer.kernel(60)
    found[:, 0] += layer.D
    assert torch.allclose(found, kernel, atol=1e-9)
    values = hankel_singular_values(kernel)
    assert (values[:, 4:] < 1e-12 * values[:, :1]).all() and (values[:, 3] > 1e-6 * values[:, 0]).all()
    x = random(1, 2, 60)
    assert torch.allclose(layer(x), apply(toeplitz(kernel, 60), x), atol=1e-8)


def test_distilling_tells_real_poles_and_approximates() -> None:
    steps = torch.arange(200, dtype=F64)
    real = 0.95**steps - 2 * 0.5**steps
    layer = striate.distill_modal(real[None], 2)
    assert torch.allclose(layer.kernel(200)[0] + F.pad(layer.D, (0, 199)), real, atol=1e-9)
    smooth = (torch.exp(-steps / 30) * torch.cos(0.1 * steps) / (1 + steps / 50))[None]
    errors = []
    for modes in (1, 2, 4):
        layer = striate.distill_modal(smooth, modes)
        fit = layer.kernel(200) + F.pad(layer.D[:, None], (0, 199))
        errors.append(float((fit - smooth).detach().norm() / smooth.norm()))
    assert errors[0] > 4 * errors[1] > 16 * errors[2] and errors[2] < 1e-4
    with pytest.raises(ValueError, match="kernel: expected"):
        striate.distill_modal(steps, 2)
    with pytest.raises(ValueError, match="modes: expected at least 1"):
        striate.distill_modal(smooth, 0)


def test_global_filter_is_a_circular_convolution() -> None:
    layer = nn.GlobalFilter2d(3, 7, 6).double()
    x = random(2, 3, 7, 6)
    kernel = torch.fft.irfft2(torch.view_as_complex(layer.complex_weight), s=(7, 6))
    expected = torch.zeros_like(x)
    for i in range(7):
        for j in range(6):
            expected += kernel[:, i, j, None, None] * x.roll((i, j), (2, 3))
    assert torch.allclose(layer(x), expected, atol=1e-12)
    layer(x).square().sum().backward()
    assert layer.complex_weight.grad[:, 0, 0, 1].abs().max() < 1e-12  # a real mean has no phase
    assert layer(random(1, 3, 9, 12)).shape == (1, 3, 9, 12)
    assert layer.float()(x.bfloat16()).dtype == torch.bfloat16


def test_adaptive_filter_closed_forms() -> None:
    layer = nn.AdaptiveFrequencyFilter2d(16).double()
    x = random(2, 16, 7, 6)
    assert layer(x).shape == x.shape
    with torch.no_grad():
        layer.w2.zero_()
        layer.b2.zero_()
        assert torch.allclose(layer(x), x, atol=1e-12)
        layer.b2[0] = 1 + layer.sparsity
        assert torch.allclose(layer(x), 2 * x, atol=1e-12)
    with pytest.raises(ValueError, match="blocks: expected a divisor"):
        nn.AdaptiveFrequencyFilter2d(12)


def test_adaptive_filter_is_a_complex_network() -> None:
    layer = nn.AdaptiveFrequencyFilter2d(6, blocks=3, sparsity=0.001, hidden_factor=2).double()
    x = random(1, 6, 4, 5)
    spectrum = torch.fft.rfft2(x, norm="ortho")
    w1, w2 = (torch.complex(w[0], w[1]) for w in (layer.w1, layer.w2))
    b1, b2 = (torch.complex(b[0], b[1]) for b in (layer.b1, layer.b2))
    mask = torch.zeros_like(spectrum)
    for block in range(3):
        mine = slice(2 * block, 2 * block + 2)
        h = torch.einsum("nihw,io->nohw", spectrum[:, mine], w1[block]) + b1[block][:, None, None]
        h = torch.complex(h.real.relu(), h.imag.relu())
        m = torch.einsum("nihw,io->nohw", h, w2[block]) + b2[block][:, None, None]
        mask[:, mine] = torch.complex(F.softshrink(m.real, 0.001), F.softshrink(m.imag, 0.001))
    expected = torch.fft.irfft2(mask * spectrum, s=(4, 5), norm="ortho") + x
    assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 6), (4, 4), (7, 3), (8, 9)])
def test_spectral_pooling_resamples_exactly(size: tuple[int, int]) -> None:
    def plane(rows: int, columns: int) -> Tensor:
        i, j = torch.arange(rows, dtype=F64)[:, None] / rows, torch.arange(columns, dtype=F64) / columns
        return (2 + torch.cos(2 * math.pi * (i + 0.1)) - torch.sin(2 * math.pi * (j - i)))[None, None]

    assert torch.allclose(nn.SpectralPooling2d(size)(plane(8, 9)), plane(*size), atol=1e-12)
    with pytest.raises(ValueError, match="output_size: expected at most"):
        nn.SpectralPooling2d((9, 9))(plane(8, 9))


@pytest.mark.parametrize(("seqlen", "length", "taps"), [(64, 32, 33), (40, 40, 40), (50, 37, 50), (7, 7, 3)])
@pytest.mark.parametrize("gated", [False, True])
def test_flashfftconv_is_circular(seqlen: int, length: int, taps: int, gated: bool) -> None:
    u, k = random(2, 3, length), random(3, taps, seed=1)
    pre, post = (random(2, 3, length, seed=2 + i) if gated else None for i in range(2))
    module = compat.FlashFFTConv(seqlen, dtype=torch.bfloat16)
    v = u if pre is None else u * pre
    spectrum = torch.fft.rfft(v, n=seqlen) * torch.fft.rfft(k, n=seqlen)
    y = torch.fft.irfft(spectrum, n=seqlen)[..., :length]
    assert torch.allclose(module(u, k, pre, post), y if post is None else y * post, atol=1e-12)
    assert not module.state_dict()
    half = module(u.bfloat16(), k.float())
    assert half.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="u, k: expected at most seqlen"):
        module(random(1, 3, seqlen + 1), k)


def test_partial_and_frequency_sparse_are_their_definitions() -> None:
    x, k = random(2, 3, 41), random(3, 41, seed=1)
    n = 82
    x_f, k_f = torch.fft.rfft(x, n=n), torch.fft.rfft(k, n=n)
    partial = torch.fft.irfft(x_f * torch.fft.rfft(k[..., :9], n=n), n=n)[..., :41]
    assert torch.allclose(compat.PartialFFTConv(9)(x, k), partial, atol=1e-12)
    for kept in (0, 10, 84):
        masked = k_f.clone()
        masked[..., kept // 2 :] = 0
        expected = torch.fft.irfft(x_f * masked, n=n)[..., :41]
        assert torch.allclose(compat.FrequencySparseFFTConv(kept)(x, k), expected, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_projections_leave_gradients_in_the_order_of_their_input(bias: bool) -> None:
    layer = torch.nn.Linear(5, 3, bias=bias, dtype=F64)
    for function, x, turned in (
        (from_rows, random(2, 5, 7), lambda x: layer(x.transpose(1, 2))),
        (into_rows, random(2, 7, 5), lambda x: layer(x).transpose(1, 2)),
    ):
        x.requires_grad_()
        wanted = [x, *layer.parameters()]
        y, expected = function(layer, x), turned(x)
        grad = torch.randn_like(y, memory_format=torch.contiguous_format)
        found = torch.autograd.grad(y, wanted, grad)
        assert torch.allclose(y, expected, atol=1e-12) and y.is_contiguous() and found[0].is_contiguous()
        for ours, theirs in zip(found, torch.autograd.grad(expected, wanted, grad), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-12)
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(layer, x).square(), (x,))
        assert torch.allclose(torch.func.vmap(lambda x, f=function: f(layer, x))(x[None]), y[None])


def test_frequency_sparse_kernels_are_kept_until_they_change() -> None:
    x, k, module = random(1, 3, 41), random(3, 41, seed=1), compat.FrequencySparseFFTConv(10)
    with torch.no_grad():
        first = module(x, k)
        low = module._kept[-1]
        assert torch.equal(module(x, k), first) and module._kept[-1] is low
        k.data.mul_(2)
        assert torch.allclose(module(x, k), 2 * first) and module._kept[-1] is not low
        assert module(x[..., :30], k).shape == (1, 3, 30)
    k.requires_grad_()
    (slope,) = torch.autograd.grad(module(x, k).sum(), k)
    assert torch.allclose((slope * k).sum(), 2 * first.sum())
    assert not module.state_dict()


def test_projections_that_are_more_than_their_layer_are_called() -> None:
    operator, x = striate.nn.HyenaOperator(6, 20), torch.randn(2, 20, 6)
    plain, heard = operator(x), []
    for name in ("in_proj", "short_filter", "out_proj"):
        layer = getattr(operator, name)
        layer.register_forward_hook(lambda module, _, y: heard.append(type(module)))
    assert torch.allclose(operator(x), plain, atol=1e-5) and len(heard) == 3
    structured = striate.nn.SGConv1d(6, 128)
    plain = structured(x := torch.randn(2, 6, 100))
    structured.output_linear.register_forward_hook(lambda module, _, y: 2 * y)
    assert torch.allclose(structured(x), 2 * plain, atol=1e-5)
