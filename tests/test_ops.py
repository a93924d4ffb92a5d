"""Values, gradients and torch's own systems, for every public function."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import striate
from ops_cases import CASES, Case, every_case
from raw import settings

close = torch.testing.assert_close
RAW = torch.ops.striate


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_match_torch_in_f64(case: Case, dtype: torch.dtype) -> None:
    tensors = case.tensors(dtype)
    expected = case.torchs(*(t.double() for t in tensors))
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).eps}
    close(case.ours(*tensors).double(), expected, **tolerance)


@every_case
def test_channels_last_goes_in_and_comes_out(case: Case) -> None:
    x, *rest = case.tensors()
    if "unbatched" in case.name:
        pytest.skip("no batch axis")
    y = case.ours(channels_last(x), *rest)
    close(y, case.torchs(x, *rest))
    if case.weight[1] == 1 or "depthwise" in case.name:
        assert y.movedim(1, -1).is_contiguous()


@every_case
def test_gradients_of_first_and_second_order(case: Case) -> None:
    tensors = case.tensors(grad=True)
    assert torch.autograd.gradcheck(case.ours, tensors, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(case.ours, tensors, check_fwd_over_rev=True)


@every_case
def test_gradients_are_none_exactly_where_not_asked(case: Case) -> None:
    for wanted in itertools.product((False, True), repeat=3):
        tensors = [t.requires_grad_(w) for t, w in zip(case.tensors(), wanted, strict=False)]
        y = case.ours(*tensors)
        assert y.requires_grad == any(t.requires_grad for t in tensors)
        if y.requires_grad:
            y.sum().backward()
        assert [t.grad is not None for t in tensors] == [t.requires_grad for t in tensors]


@every_case
def test_torch_func(case: Case) -> None:
    x, w, *bias = case.tensors()
    v = torch.ones_like(x) + x

    def run(function: Any) -> list[torch.Tensor]:
        def square(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return function(x, w, *bias).square().sum()

        def each(x: torch.Tensor) -> torch.Tensor:
            return function(x, w, *bias).sin()

        _, pull = torch.func.vjp(each, x)
        batch = torch.stack([x, 2 * x])
        return [
            *torch.func.grad(square, argnums=(0, 1))(x, w),
            *pull(each(x)),
            torch.func.jvp(each, (x,), (v,))[1],
            torch.func.jacrev(lambda w: function(x, w, *bias).sum(-1))(w),
            torch.func.jacfwd(lambda w: function(x, w, *bias).sum(-1))(w),
            torch.vmap(torch.func.grad(square, argnums=1), in_dims=(0, None))(batch, w),
            torch.func.hessian(lambda w: square(x, w))(w),
        ]

    for ours, torchs in zip(run(case.ours), run(case.torchs), strict=True):
        close(ours, torchs)


@every_case
def test_vmap_over_every_set_of_arguments(case: Case) -> None:
    tensors = case.tensors()
    for axes in itertools.product((None, 0, -1), repeat=len(tensors)):
        if axes == (None,) * len(tensors):
            continue
        batched = [
            t if axis is None else torch.stack([t, t * 2, t - 1], dim=axis)
            for t, axis in zip(tensors, axes, strict=True)
        ]
        ours = torch.vmap(case.ours, in_dims=axes)(*batched)
        close(ours, torch.vmap(case.torchs, in_dims=axes)(*batched))


@every_case
def test_forward_mode_without_requires_grad(case: Case) -> None:
    tensors = case.tensors()
    tangents = [torch.ones_like(t) for t in tensors]
    found = []
    for function in (case.ours, case.torchs):
        with forward_ad.dual_level():
            dual = function(*(forward_ad.make_dual(t, v) for t, v in zip(tensors, tangents, strict=True)))
            tangent = forward_ad.unpack_dual(dual).tangent
            assert tangent is not None
            found.append(tangent)
    close(*found)


def _raw_calls(last: bool) -> list[tuple[Any, tuple[Any, ...]]]:
    x, w, b = torch.randn(2, 3, 7, 6), torch.randn(6, 1, 3, 2), torch.randn(6)
    line, taps = torch.randn(2, 3, 9), torch.randn(3, 1, 4)
    g = torch.randn(2, 6, 4, 6)
    volume, cube = torch.randn(1, 2, 4, 4, 4), torch.randn(2, 1, 2, 2, 3)
    if last:
        x, line, g, volume = (channels_last(t) for t in (x, line, g, volume))
    weigh = settings([2, 1], [1, 1, 0, 1], [1, 1], 3, kernel=(3, 2), wide=True)
    return [
        (RAW.conv, (x, w, b, settings([2, 1], [1, 1, 0, 1], [1, 1], 3))),
        (RAW.conv, (line, taps, None, settings([1], [3, 0], [1], 3))),
        (RAW.conv, (line, taps, None, settings([2], [-1, 2], [1], 3))),
        (RAW.conv, (volume, cube, None, settings([1, 1, 2], [1, 0, 1], [1, 1, 1], 2))),
        (RAW.conv, (x.bfloat16(), w, b, settings([2, 1], [1, 1], [1, 1], 3))),
        (RAW.conv_grad_input, (g, w, b[:3], settings([2, 1], [1, 1, 0, 1], [1, 1], 3))),
        (RAW.conv_grad_weight, (g, x, settings([2, 1], [1, 1, 0, 1], [1, 1], 3, kernel=(3, 2)))),
        (RAW.conv_grad_weight, (g.half(), x.half(), weigh)),
    ]


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_opcheck_of_the_raw_operators(last: bool) -> None:
    for op, args in _raw_calls(last):
        torch.library.opcheck(op.default, args)


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_fakes_predict_shape_strides_and_dtype(last: bool) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    for op, args in _raw_calls(last):
        real = op(*args)
        mode = FakeTensorMode()
        fake = op(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@every_case
def test_meta_tensors(case: Case) -> None:
    tensors = case.tensors()
    y = case.ours(*(t.to("meta") for t in tensors))
    assert y.device.type == "meta"
    assert y.shape == case.torchs(*tensors).shape


@every_case
def test_cpu_autocast_keeps_parameters_in_f32(case: Case) -> None:
    x, *parameters = case.tensors(torch.float32, grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = case.ours(x, *parameters)
        assert y.dtype == torch.bfloat16
        assert case.ours(x.double(), *(p.double() for p in parameters)).dtype == torch.float64
    y.float().square().sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (x, *parameters)]
    case.torchs(*exact).square().sum().backward()
    for ours, true in zip((x, *parameters), exact, strict=True):
        assert ours.grad is not None and true.grad is not None and ours.grad.dtype == torch.float32
        scale = true.grad.abs().max().item()
        close(ours.grad.double(), true.grad, rtol=0.05, atol=0.02 * scale)


def test_f32_weights_beside_half_activations_get_f32_gradients() -> None:
    x = torch.randn(2, 4, 9, 9).bfloat16().requires_grad_()
    w = torch.randn(4, 1, 3, 3).requires_grad_()
    y = striate.conv2d(x, w, None, 1, 1, 1, 4)
    gx, gw = torch.autograd.grad(y.float().sum(), (x, w))
    assert (y.dtype, gx.dtype, gw.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    ones = torch.ones(2, 4, 9, 9)
    exact = torch.nn.grad.conv2d_weight(x.detach().float(), w.shape, ones, padding=1, groups=4)
    close(gw, exact)


@every_case
def test_flop_counter_sees_three_equal_passes(case: Case) -> None:
    tensors = case.tensors(torch.float32, grad=True)
    with FlopCounterMode(display=False) as counter:
        y = case.ours(*tensors)
        forward = counter.get_total_flops()
        y.sum().backward()
    rank = int(case.function[-2])
    positions = tensors[0] if "transpose" in case.function else y
    batch = 1 if "unbatched" in case.name else y.shape[0]
    assert forward == 2 * batch * tensors[1].numel() * positions.shape[-rank:].numel()
    assert counter.get_total_flops() == 3 * forward  # torch's own formula overcounts grouped backward passes


def test_expanded_sliced_and_transposed_tensors() -> None:
    base = torch.randn(2, 8, 10, 12, dtype=torch.float64)
    w = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    odd_weight = torch.randn(3, 3, 1, 4, dtype=torch.float64).permute(3, 2, 0, 1)
    inputs = [
        base[:, ::2],
        base[:, 4:, 1:9, ::2],
        base[:, :4].transpose(2, 3),
        base[:1, :4].expand(3, -1, -1, -1),
        base[:, :1].expand(-1, 4, -1, -1),
        base[:, :4].permute(3, 1, 0, 2),
        channels_last(base[:, :4])[:, :, 1:],
    ]
    for x, weight in itertools.product(inputs, (w, odd_weight)):
        a, b = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = striate.conv2d(a, b, None, 1, 1, 1, 4)
        expected = F.conv2d(a, b, None, 1, 1, 1, 4)
        close(y, expected)
        for upstream in (torch.ones(1, dtype=torch.float64).expand(y.shape), channels_last(y.detach())):
            ours = torch.autograd.grad(y, (a, b), upstream, retain_graph=True)
            torchs = torch.autograd.grad(expected, (a, b), upstream, retain_graph=True)
            for got, want in zip(ours, torchs, strict=True):
                close(got, want)


def test_zero_batch_has_right_gradients() -> None:
    x = torch.randn(0, 3, 8, requires_grad=True)
    w = torch.randn(3, 1, 3, requires_grad=True)
    y = striate.conv1d(x, w, None, 1, 1, 1, 3)
    y.sum().backward()
    assert y.shape == (0, 3, 8) and x.grad is not None and x.grad.shape == x.shape
    assert w.grad is not None and torch.equal(w.grad, torch.zeros_like(w))


def test_saved_tensors_are_version_checked() -> None:
    x, w = torch.randn(1, 2, 8), torch.randn(2, 3, requires_grad=True)
    y = striate.depthwise_conv1d(x, w)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_grad_modes_give_the_same_bits() -> None:
    case = CASES[0]
    tensors = case.tensors(torch.float32, grad=True)
    with torch.no_grad():
        y = case.ours(*tensors)
    with torch.inference_mode():
        z = case.ours(*tensors)
    assert torch.equal(case.ours(*tensors), y) and torch.equal(y, z) and not y.requires_grad


def test_both_bridge_routes_give_the_same_bits() -> None:
    code = (
        "import torch, striate, sys, io\n"
        "torch.manual_seed(0); out = [striate._route]\n"
        "for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):\n"
        "    x = torch.randn(2, 4, 9, 8).to(dtype).requires_grad_(); w = torch.randn(8, 1, 3, 5).to(dtype)\n"
        "    w.requires_grad_(); b = torch.randn(8).to(dtype)\n"
        "    for a in (x, x.to(memory_format=torch.channels_last)):\n"
        "        y = striate.conv2d(a, w, b, (2, 1), 2, 1, 4)\n"
        "        z = striate.conv_transpose2d(a, w[:4], None, 2, 1, 1, 4)\n"
        "        out += [y.detach(), z.detach(), *torch.autograd.grad(y.sum() + z.sum(), (x, w))]\n"
        "torch.save(out, sys.stdout.buffer)\n"
    )
    import io

    results = []
    for route in ("", "python"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "STRIATE_BRIDGE": route},
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()
        results.append(torch.load(io.BytesIO(done.stdout)))
    (first, *rust), (second, *python) = results
    assert second == "python" and (first == "rust" or os.environ.get("STRIATE_BRIDGE"))
    assert all(torch.equal(a, b) for a, b in zip(rust, python, strict=True))


def test_explain_names_row_copies_and_reasons() -> None:
    x, w = torch.randn(2, 4, 8, 8), torch.randn(4, 1, 3, 3)
    found = striate.explain(striate.conv2d, x[..., ::2], w, None, 1, 1, groups=4)
    assert found.problem == "conv fwd f32 nchw cpu n2 g4 ci1 co1 i8x4 k3x3 s1x1 d1x1 p1+1x1+1"
    assert found.row != "torch" and "input made contiguous: strides (256, 64, 8, 2)" in str(found)
    again = striate.explain(found.problem)
    assert (again.problem, again.row) == (found.problem, found.row)
    transposed = striate.explain(striate.conv_transpose2d, x, w, None, 2, 1, 1, 4)
    assert transposed.problem == "conv dx f32 nchw cpu n2 g4 ci1 co1 i16x16 k3x3 s2x2 d1x1 p1+1x1+1"
    dense = striate.explain(striate.conv2d, x, torch.randn(4, 4, 3, 3))
    assert dense.row == "torch" and "not depthwise" in str(dense)
    with pytest.raises(ValueError):
        striate.explain("conv fwd nonsense")
    with pytest.raises(TypeError):
        striate.explain(torch.relu, x)


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "options", "dtype", "sliding"),
    [
        ((15, 15), (60_000,), (51,), {"padding": 200, "dilation": 8}, torch.float32, True),
        ((12, 12), (2048,), (64,), {"padding": 32}, torch.float64, True),
        ((4, 4), (256, 256), (11, 11), {"padding": 5}, torch.float16, True),
        ((4, 4), (64, 64), (3, 3), {"padding": 1}, torch.bfloat16, True),
        ((5, 5), (64, 64), (3, 3), {"padding": 1}, torch.float16, True),
        ((5, 5), (64, 64), (3, 3), {"padding": 1}, torch.bfloat16, False),
        ((2, 2), (32, 64, 64), (5, 5, 5), {"padding": 2}, torch.float32, True),
        ((16, 16), (4096,), (9,), {"padding": 4}, torch.float32, False),
        ((3, 64), (224, 224), (7, 7), {"padding": 3, "stride": 2}, torch.float32, False),
        ((12, 12), (32, 32), (3, 3), {"padding": 1, "groups": 4}, torch.float32, True),
        ((16, 8), (32, 32), (3, 3), {"padding": 1, "groups": 4}, torch.bfloat16, True),
        ((16, 16), (32, 32), (3, 3), {"padding": 1, "groups": 4}, torch.float32, False),
        ((16, 16), (32, 32), (3, 3), {"padding": 1, "groups": 4}, torch.float64, True),
        ((24, 24), (32, 32), (3, 3), {"padding": 1, "groups": 3}, torch.float64, False),
    ],
)
def test_few_channels_under_many_taps_slide(
    channels: tuple[int, int],
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    options: dict[str, int],
    dtype: torch.dtype,
    sliding: bool,
) -> None:
    x = torch.empty(1, channels[0], *size, dtype=dtype)
    w = torch.empty(channels[1], channels[0] // options.get("groups", 1), *kernel, dtype=dtype)
    row = striate.explain(getattr(striate, f"conv{len(size)}d"), x, w, **options).row
    assert row.startswith("sliding") == sliding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
def test_few_channels_of_groups_are_exact(dtype: torch.dtype, transposed: bool) -> None:
    kind = "conv_transpose2d" if transposed else "conv2d"
    ours, theirs = getattr(striate, kind), getattr(F, kind)
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (2, 6, 9, 21), generator=draw).to(dtype)
    w = torch.randint(-1, 2, (6, 2, 3, 3), generator=draw).to(dtype)
    assert striate.explain(ours, x, w, padding=1, groups=3).row.startswith("sliding")
    found, expected = [], []
    for results, function, wide in ((found, ours, dtype), (expected, theirs, torch.float64)):
        leaves = [t.to(wide).requires_grad_() for t in (x, w)]
        y = function(*leaves, padding=1, groups=3)
        slopes = torch.randint(-1, 2, y.shape, generator=torch.Generator().manual_seed(1))
        results += [y, *torch.autograd.grad(y, leaves, slopes.to(wide))]
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype and torch.equal(a, b.to(dtype))
