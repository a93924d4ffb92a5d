"""The row named ``torch``: what torch gets wrong, or slowly, comes out right.

The half-precision calls here hang, crash or return garbage when torch runs them on an AMX machine; they are made
through striate only, with a float64 reference.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import striate
from striate.ops import _torch_row

# (input, weight, options, channels last): wrong, crashing or endless in torch 2.13 or 2.15 with oneDNN on AMX
DOCUMENTED = [
    ((3, 8, 9, 4), (8, 2, 3, 3), {"stride": (1, 3), "padding": (2, 0), "groups": 4}, False),
    ((1, 2, 19, 3), (7, 2, 4, 4), {"stride": 3, "padding": (2, 1)}, True),
    ((3, 96, 25, 11), (64, 48, 11, 11), {"stride": (1, 2), "padding": (5, 0), "groups": 2}, True),
    (
        (1, 128, 1, 13),
        (64, 8, 9, 7),
        {"stride": 3, "dilation": (3, 1), "padding": (16, 0), "groups": 16},
        True,
    ),
    ((2, 16, 6, 24), (16, 16, 5, 4), {"stride": (2, 4), "padding": (2, 0)}, True),
    ((2, 24, 15, 20), (96, 24, 1, 4), {"stride": (1, 4)}, False),
    ((8, 32, 9, 3), (17, 32, 3, 3), {"stride": 2, "padding": (1, 0)}, True),
    ((1, 16, 16, 1), (32, 1, 9, 9), {"stride": (1, 2), "padding": (2, 4), "groups": 16}, False),
    ((2, 4, 26, 28), (4, 1, 5, 7), {"dilation": (2, 3), "padding": (0, 15), "groups": 4}, True),
    ((8, 16, 31, 14), (16, 1, 31, 31), {"padding": (0, 25), "groups": 16}, True),
    ((1, 8, 28, 28), (8, 1, 31, 31), {"padding": 15, "groups": 8}, False),
    ((1, 8, 28, 28), (8, 1, 5, 51), {"padding": (2, 25), "groups": 8}, True),
    ((1, 8, 3, 40), (8, 1, 1, 15), {"padding": (0, 7), "groups": 8}, False),
    ((2, 16, 243), (16, 1, 31), {"padding": 15, "groups": 16}, True),
    ((3, 8, 126), (8, 1, 31), {"groups": 8}, False),
    (
        (2, 64, 9, 1, 11),
        (64, 8, 3, 3, 3),
        {"stride": (3, 3, 4), "dilation": 3, "padding": (6, 4, 3), "groups": 8},
        False,
    ),
    ((1, 12, 1, 12, 3), (3, 12, 5, 5, 5), {"padding": (4, 2, 2)}, False),
    ((3, 16, 11, 10, 3), (2, 16, 3, 3, 3), {"stride": 2, "padding": (0, 1, 0)}, False),
]


def _layout(tensor: torch.Tensor, last: bool) -> torch.Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1) if last else tensor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize(("size", "weight", "options", "last"), DOCUMENTED)
def test_half_precision_is_right(
    size: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], last: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    name = f"conv{len(size) - 2}d"
    x = _layout(torch.randn(size).to(dtype), last).requires_grad_()
    w = torch.randn(weight).to(dtype).requires_grad_()
    y = getattr(striate, name)(x, w, **options)
    a, b = x.detach().double().contiguous().requires_grad_(), w.detach().double().requires_grad_()
    exact = getattr(F, name)(a, b, **options)
    upstream = _layout(torch.randn(y.shape).to(dtype), last)
    got = (y, *torch.autograd.grad(y, (x, w), upstream))
    want = (exact, *torch.autograd.grad(exact, (a, b), upstream.double()))
    for ours, true in zip(got, want, strict=True):
        assert ours.dtype == dtype
        scale = true.abs().max().item()
        torch.testing.assert_close(
            ours.double(), true, rtol=2 * torch.finfo(dtype).eps, atol=1e-4 * scale + 1e-6
        )


def test_transposed_half_precision_is_right() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 48, 7, 16).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(48, 16, 5, 4).bfloat16()
    y = striate.conv_transpose2d(x, w, None, (2, 4), (2, 0))
    upstream = torch.randn(y.shape).bfloat16().contiguous(memory_format=torch.channels_last)
    (got,) = torch.autograd.grad(y, x, upstream)
    want = F.conv2d(upstream.double(), w.double(), None, (2, 4), (2, 0))
    torch.testing.assert_close(got.double(), want, rtol=0.02, atol=0.05)


def test_the_common_dense_layers_stay_in_half_precision() -> None:
    def shape(kernel: int, stride: int, pad: int) -> _torch_row.Shape:
        out = (56 + 2 * pad - kernel) // stride + 1
        two = lambda v: (v, v)  # noqa: E731
        return _torch_row.Shape(
            "conv", 2, two(56), two(out), two(kernel), two(stride), two((pad, pad)), two(1), (64, 64)
        )

    for kernel, stride, pad in ((1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2), (7, 2, 3), (2, 2, 0)):
        assert _torch_row.trusts_half(shape(kernel, stride, pad), torch.bfloat16)
    if _torch_row._faulty_machine():
        assert not _torch_row.trusts_half(shape(4, 4, 0), torch.bfloat16)


def test_autocast_takes_the_same_way() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 16, 6, 24), torch.randn(16, 16, 5, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = striate.conv2d(x, w, None, (2, 4), (2, 0))
    exact = F.conv2d(x.bfloat16().double(), w.bfloat16().double(), None, (2, 4), (2, 0))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-7, atol=1e-4 * exact.abs().max().item())
    y.float().sum().backward()
    assert w.grad is not None and w.grad.dtype == torch.float32


def test_f32_weights_beside_half_input_on_a_dense_shape() -> None:
    x, w, b = torch.randn(2, 4, 8, 8).half(), torch.randn(6, 4, 3, 3, requires_grad=True), torch.randn(6)
    y = striate.conv2d(x, w, b, 1, 1)
    torch.testing.assert_close(
        y.double(), F.conv2d(x.double(), w.double(), b.double(), 1, 1), rtol=2e-3, atol=2e-3
    )
    y.float().sum().backward()
    assert y.dtype == torch.float16 and w.grad is not None and w.grad.dtype == torch.float32


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_input_channels_gives_the_shape_of_the_weight(rank: int) -> None:
    x = torch.randn(2, 0, *[6] * rank, requires_grad=True)
    w = torch.randn(5, 0, *[3] * rank, requires_grad=True)
    b = torch.randn(5, requires_grad=True)
    y = getattr(striate, f"conv{rank}d")(x, w, b, 2, 1)
    assert y.shape == (2, 5, *[3] * rank)
    torch.testing.assert_close(y, b.reshape(1, 5, *[1] * rank).expand_as(y))
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape and w.grad is not None and w.grad.shape == w.shape
    torch.testing.assert_close(b.grad, torch.full((5,), 2.0 * 3**rank))


@pytest.mark.parametrize(
    ("size", "weight", "options"),
    [
        ((1, 16, 8, 16, 16), (16, 16, 3, 3, 3), {"padding": 1}),
        ((1, 16, 16, 20, 16), (16, 16, 3, 3, 2), {"stride": (1, 2, 1), "dilation": (2, 1, 1)}),
        ((1, 16, 32, 32), (16, 16, 3, 3), {"padding": 2, "dilation": 2}),
    ],
)
def test_single_samples_through_onednn_keep_their_gradients(
    size: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, calls = f"conv{len(size) - 2}d", []
    original = torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *args: calls.append(1) or original(*args))
    tensors = [torch.randn(s, requires_grad=True) for s in (size, weight, weight[:1])]
    y = getattr(striate, name)(*tensors, **options)
    assert calls == [1]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    z = getattr(F, name)(*exact, **options)
    torch.testing.assert_close(y.double(), z, rtol=1e-4, atol=1e-4)
    ours = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
    true = torch.autograd.grad(z.square().sum(), exact, create_graph=True)
    second = torch.autograd.grad(sum(g.sum() for g in ours), tensors)
    for a, b in zip(
        (*ours, *second), (*true, *torch.autograd.grad(sum(g.sum() for g in true), exact)), strict=True
    ):
        scale = b.abs().max().item()
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5 * scale)
    jvp = torch.func.jvp(
        lambda x: getattr(striate, name)(x, *tensors[1:], **options), (tensors[0],), (tensors[0],)
    )
    torch.testing.assert_close(jvp[0], y, rtol=1e-4, atol=1e-4)
