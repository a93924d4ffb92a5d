"""What only a device can show: graphs, streams, compiled programs, and a sample of launches for the sanitizers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import raw
import striate
from strategies import BF16, F16, F32, Depthwise
from striate import _core
from striate._listen import listening
from striate.ops import branches as _branches
from striate.ops.delays import delay_step
from test_cuda_conv import PROBLEMS as DIRECT
from test_cuda_tf32 import PROBLEMS as TF32
from test_cuda_toeplitz import PROBLEMS as TOEPLITZ

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# One problem of every kernel and tile shape, small enough for a sanitizer.
SAMPLE = [DIRECT[1], DIRECT[2], DIRECT[5], TOEPLITZ[0], TOEPLITZ[5], TOEPLITZ[10]]


@pytest.fixture(autouse=True)
def own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_CUDA", "1")


def layer(channels: int = 64, kernel: int = 7, dtype: torch.dtype = F32) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(kernel)
    x = torch.randint(-3, 4, (2, channels, 30, 31), generator=made).to("cuda", dtype)
    return x, torch.randint(-2, 3, (channels, 1, kernel, kernel), generator=made).to("cuda", dtype)


def convolved(x: Tensor, w: Tensor) -> Tensor:
    return striate.depthwise_conv2d(x, w, padding=w.shape[-1] // 2)


def captured(call: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call()
    return graph, made


def expected(x: Tensor, w: Tensor) -> Tensor:
    exact = torch.nn.functional.conv2d(
        x.double().cpu(), w.double().cpu(), padding=w.shape[-1] // 2, groups=x.shape[1]
    )
    return exact.to("cuda", x.dtype)


def exact_on_device(problem: Depthwise) -> None:
    """Forward and both gradients equal the definition, on integers."""
    x, w, bias, g = problem.operands()
    dx, dw = problem.gradients(x, w, g)
    leaves = x.cuda().requires_grad_(), w.cuda().requires_grad_()
    y = problem.run(*leaves, bias.cuda())
    assert torch.equal(y.detach().cpu(), problem.exact.forward(x, w, bias).to(y.dtype))
    for got, want in zip(torch.autograd.grad(y, leaves, g.cuda()), (dx, dw), strict=True):
        assert torch.equal(got.cpu(), want.to(got.dtype)), problem


@pytest.mark.parametrize("problem", SAMPLE, ids=str)
def test_sample_of_every_kernel(problem: Depthwise) -> None:
    exact_on_device(problem)


@pytest.mark.parametrize("problem", [TF32[0], TF32[3], TF32[6]], ids=str)
def test_sample_of_tf32(problem: Depthwise) -> None:
    x, w, _, _ = (t.cuda() for t in problem.operands())
    pads = tuple(low for low, _ in problem.padding)
    if all(low == high for low, high in problem.padding):
        call = getattr(striate, f"depthwise_conv{problem.rank}d")
        assert striate.explain(call, x, w, padding=pads).row == "cuda.toeplitz_tf32"
    exact_on_device(problem)


def made_by(call: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """A result and the gradients of its sum of squares, on the host."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = call(*leaves)
    return [part.detach().cpu() for part in (y, *torch.autograd.grad(y.square().sum(), leaves))]


def test_sample_of_operations() -> None:
    """Pooling, built kernels and branches are those of the host."""
    x, w = (t.cpu() for t in layer(kernel=3))
    positions = torch.randn(2, 64, 1, 9, generator=torch.Generator().manual_seed(0))
    strips = [_branches.centred(w), _branches.centred(w[:, :, :1])]
    lines, filters = torch.randn(2, 64, 50), torch.randn(64, 4)
    for call, tensors in (
        (lambda x, w: striate.causal_conv1d(x, w, activation="silu"), (lines, filters)),
        (lambda x: _branches.split(x, [b._replace(weight=b.weight[:24].to(x.device)) for b in strips]), (x,)),
        (
            lambda x, k: striate.fft_conv1d(x, k, pregate=x, postgate=x.cos(), activation="gelu"),
            (lines, filters.abs()),
        ),
        (lambda x: striate.max_pool2d(x, 3, 2, 1), (x,)),
        (lambda x: striate.avg_pool2d(x, 3, 1, 1, False, False), (x.to(memory_format=torch.channels_last),)),
        (
            lambda w, p: striate.dcls_kernel(w, p, dilated_kernel_size=17, version="v1"),
            (w.flatten(2), positions),
        ),
        (lambda x: _branches.total(x, [b._replace(weight=b.weight.to(x.device)) for b in strips]), (x,)),
    ):
        pairs = zip(made_by(call, *(t.cuda() for t in tensors)), made_by(call, *tensors), strict=True)
        for got, want in pairs:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_sample_of_a_step() -> None:
    x, w = torch.randn(3, 16), torch.randn(16, 4)
    made = []
    for device in ("cuda", "cpu"):
        state = torch.zeros(3, 16, 3, device=device)
        steps = [striate.causal_conv1d_update(x.to(device), state, w.to(device)) for _ in range(3)]
        made.append([part.cpu() for part in (*steps, state)])
    for got, want in zip(*made, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_sample_of_delays() -> None:
    ring, weight = torch.randn(5, 6, 3), torch.randn(4, 3)
    where = torch.arange(12, dtype=torch.int32).view(4, 3) % 5
    made = [
        delay_step(ring.to(device), weight.to(device), where.to(device), None, 2).cpu()
        for device in ("cuda", "cpu")
    ]
    torch.testing.assert_close(*made, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_sample_of_statistics(dtype: torch.dtype) -> None:
    """A layer whose launches find them trains as one whose BatchNorms read the maps."""
    torch.manual_seed(0)
    layer = striate.nn.ShiftwiseConv2d(16, 13, dtype=dtype, device="cuda")
    other = copy.deepcopy(layer)
    other.bn_small.register_forward_hook(lambda *_: None)
    x = torch.randn(3, 16, 19, 21).to("cuda", dtype)
    lines = [
        explained.problem or ""
        for explained in (striate.explain(copy.deepcopy(m), x) for m in (layer, other))
    ]
    assert ["statistics=1" in line for line in lines] == [True, False]
    made = []
    for model in (layer, other):
        y = model(x)
        y.float().square().mean().backward()
        made.append(
            [t.detach().double() for t in (y, *(p.grad for p in model.parameters()), *model.buffers())]
        )
    step = 1e-4 if dtype == F32 else 2.0**-6
    for got, want in zip(*made, strict=True):
        assert (got - want).abs().max() <= step * max(float(want.abs().max()), 1)


def test_samples_run_every_row() -> None:
    """What stands in the table of rows for the device is what the samples above have run."""
    with listening() as heard:
        for problem in (*SAMPLE, TF32[3]):
            exact_on_device(problem)
        test_sample_of_operations()
        test_sample_of_a_step()
        test_sample_of_delays()
        x = layer()[0].requires_grad_()
        (dx,) = torch.autograd.grad(striate.max_pool2d(x, 3, 2, 1).square().sum(), x, create_graph=True)
        torch.autograd.grad(dx.sum(), x)
        test_sample_of_long_convolutions(300, 300)
    rows = {row["name"] for row in striate.kernels() if row["isa"] == "cuda" and row["name"] != "torch"}
    assert {choice["row"] for choice in heard.choices} >= rows


@pytest.mark.parametrize("problem", TOEPLITZ, ids=str)
def test_tensor_cores_are_exact(problem: Depthwise) -> None:
    exact_on_device(problem)


@pytest.mark.parametrize(("length", "taps"), [(300, 300), (3000, 20), (16000, 16000), (70000, 70000)])
def test_sample_of_long_convolutions(length: int, taps: int) -> None:
    made = torch.Generator().manual_seed(0)
    x, k = (torch.randn(shape, generator=made) for shape in ((2, 3, length), (3, taps)))

    def outcome(*leaves: Tensor) -> list[Tensor]:
        leaves = tuple(leaf.requires_grad_() for leaf in leaves)
        y = striate.fft_conv1d(*leaves)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]

    assert striate.explain(striate.fft_conv1d, x.cuda(), k.cuda()).row == "cuda.fft_conv"
    for got, want in zip(outcome(x.cuda(), k.cuda()), outcome(x.double(), k.double()), strict=True):
        assert float((got.cpu() - want).abs().max()) <= 1e-4 * float(want.abs().max())


def test_public_calls_run_own_rows() -> None:
    x, w = layer()
    assert striate.explain(striate.depthwise_conv2d, x, w, padding=3).row == "cuda.direct"
    half = x.to(BF16), w.to(BF16)
    assert striate.explain(striate.depthwise_conv2d, *half, padding=3).row == "cuda.toeplitz"


@pytest.mark.parametrize("dtype", [F32, BF16, F16])
def test_a_graph_replays(dtype: torch.dtype) -> None:
    x, w = layer(dtype=dtype)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        convolved(x, w)
    torch.cuda.current_stream().wait_stream(aside)
    graph, y = captured(lambda: convolved(x, w))
    for shift in range(3):
        x.copy_(x.roll(shift, -1))
        graph.replay()
        assert torch.equal(y, expected(x, w))


def test_a_weight_gradient_replays() -> None:
    """Its partial sums lie in workspace, which belongs to the graph's memory."""
    x, _ = layer()
    g = torch.ones_like(x)

    def gradient() -> Tensor:
        return raw.conv_grad_weight(g, x, (7, 7), (1, 1), (3, 3), (1, 1), x.shape[1], False)

    before = gradient()
    torch.cuda.synchronize()
    graph, again = captured(gradient)
    for _ in range(2):
        graph.replay()
        assert torch.equal(again, before)


def test_capture_of_what_is_not_compiled_is_an_error() -> None:
    x, w = layer(kernel=5)
    line = "conv fwd f32 nchw cuda n2 g64 ci1 co1 i30x31 k5x5 s1x1 d1x1 p2+2x2+2"
    with pytest.raises(RuntimeError, match="before the capture"):
        captured(lambda: convolved(x.add(1), w))  # torch warns of graphs that are empty
    torch.cuda.synchronize()
    _core.cuda_prepare(line, x.device.index)
    graph, y = captured(lambda: convolved(x, w))
    graph.replay()
    assert torch.equal(y, expected(x, w))


def test_streams_do_not_meet() -> None:
    problems = [layer(32, kernel, dtype) for kernel, dtype in ((3, F32), (7, BF16), (13, F16), (5, F32))]
    want = [expected(x, w) for x, w in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    torch.cuda.synchronize()
    made: list[list[Tensor]] = [[] for _ in problems]
    for _ in range(20):
        for stream, (x, w), results in zip(streams, problems, made, strict=True):
            with torch.cuda.stream(stream):
                results.append(convolved(x, w))
    torch.cuda.synchronize()
    for results, right in zip(made, want, strict=True):
        assert all(torch.equal(y, right) for y in results)


def test_bits_repeat() -> None:
    x, w = (torch.randn_like(t, dtype=BF16) for t in layer(kernel=13))
    leaf = w.requires_grad_()
    grads = [torch.autograd.grad(convolved(x, leaf).square().sum(), leaf)[0] for _ in range(5)]
    assert all(torch.equal(grads[0], grad) for grad in grads[1:])


def test_compiled() -> None:
    x, w = layer()
    leaves = x.requires_grad_(), w.requires_grad_()

    def network(x: Tensor, w: Tensor) -> Tensor:
        return convolved(x, w).relu() * 2

    def outcome(function: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        y = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y.sum(), leaves)]

    for mode in (None, "reduce-overhead"):
        compiled = torch.compile(network, fullgraph=True, mode=mode)
        for got, want in zip(outcome(compiled), outcome(network), strict=True):
            assert torch.equal(got, want)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_the_second_device() -> None:
    x, w = (t.to("cuda:1") for t in layer())
    y = convolved(x, w)
    assert y.device.index == 1 and torch.equal(y.cpu(), expected(x, w).cpu())
