"""Errors that other convolution libraries have made, one test each; the numbers are those of the threads named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import raw
import striate
from oracle import Convolution, assert_equal, integers, stored_exactly
from strategies import (
    BF16,
    DTYPES,
    F16,
    F32,
    F64,
    MEMORY,
    Depthwise,
    channels_last,
    poison_allocator,
    sliced,
    transposed,
)

SQUARE = Depthwise(2, 12, 1, (9, 18), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The oracle is faster alone on problems as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(problem: Depthwise, x: Tensor, w: Tensor, b: Tensor | None, g: Tensor) -> None:
    """All passes of integers equal float64's."""
    a, c = x.detach().requires_grad_(), w.detach().requires_grad_()
    poison_allocator()
    y = problem.run(a, c, b)
    dx, dw = torch.autograd.grad(y, (a, c), g)
    exact = (problem.exact.forward(x, w, b), *problem.gradients(x, w, g))
    for name, got, true in zip(("y", "dx", "dw"), (y.detach(), dx, dw), exact, strict=True):
        assert_equal(got, true, f"{name} of {problem}")


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("way", [way for way in MEMORY if way not in ("expanded", "overlapping")])
def test_01_02_03_pytorch_1246_16018_55781_strided_weight(
    way: str, dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    problem = replace(SQUARE, dtypes=dtypes)
    x, w, b, g = problem.operands()
    check(problem, x, MEMORY[way](w), b, g)
    taps = integers((12, 1, 3, 6), dtypes[1], 400)
    check(problem, x, taps[..., ::2], b, g)


def test_04_pytorch_77299_channels_last_gives_the_same_numbers() -> None:
    x, w, b, g = SQUARE.operands()
    check(SQUARE, channels_last(x), w, b, channels_last(g))
    assert torch.equal(SQUARE.run(x, w, b), SQUARE.run(channels_last(x), w, b))


@pytest.mark.parametrize("outputs", [1, 3, 8])
def test_05_pytorch_82060_one_input_channel_and_channels_last(outputs: int) -> None:
    problem = replace(SQUARE, channels=1, multiplier=outputs)
    x, w, b, g = problem.operands()
    x = x.to(memory_format=torch.channels_last)
    check(problem, x, w.to(memory_format=torch.channels_last), b, g.to(memory_format=torch.channels_last))
    y = problem.run(x.as_strided(x.shape, (162, 1, 18, 1)), w, b)
    assert_equal(y, problem.exact.forward(x, w, b))


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_06_pytorch_55794_channel_multiplier(channels: int, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    problem = replace(SQUARE, channels=channels, multiplier=3, dtypes=dtypes)
    for _ in range(3):
        check(problem, *problem.operands())


@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16], ids=str)
def test_07_pytorch_19912_two_groups_1x1(dtype: torch.dtype) -> None:
    x, w = stored_exactly((2, 4, 5, 5), dtype, 2), stored_exactly((16, 2, 1, 1), dtype, 2, 1)
    exact = Convolution((1, 1), ((0, 0),) * 2, (1, 1), 2).forward(x, w)
    assert exact.count_nonzero() > exact.numel() / 4
    assert_equal(striate.conv2d(x, w, groups=2), exact)


@pytest.mark.parametrize(("groups", "c_in", "c_out"), [(2, 1, 1), (3, 1, 4), (4, 2, 3), (2, 3, 1)])
def test_08_pytorch_51430_weight_gradient_with_groups(groups: int, c_in: int, c_out: int) -> None:
    x = integers((3, groups * c_in, 9, 7), F32, 200)
    w = integers((groups * c_out, c_in, 3, 3), F32, 200, 1).requires_grad_()
    y = striate.conv2d(x, w, None, (2, 1), 1, 1, groups)
    g = integers(y.shape, F32, 200, 2)
    exact = Convolution((2, 1), ((1, 1),) * 2, (1, 1), groups).grad_weight(g, x, (3, 3))
    assert_equal(torch.autograd.grad(y, w, g)[0], exact)


@pytest.mark.parametrize(("groups", "c_in", "c_out"), [(2, 1, 2), (3, 1, 1), (2, 2, 1)])
def test_09_pytorch_1972_double_backward_with_groups(groups: int, c_in: int, c_out: int) -> None:
    x = torch.randn(2, groups * c_in, 5, 4, dtype=F64, requires_grad=True)
    w = torch.randn(groups * c_out, c_in, 3, 2, dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: striate.conv2d(x, w, None, 1, 1, 1, groups), (x, w))


@pytest.mark.parametrize("batch", [2, 3, 8, 16, 32])
def test_11_pytorch_157237_nan_stays_in_its_sample(batch: int) -> None:
    for channels, last in itertools.product((1, 8, 17), (False, True)):
        x = integers((batch, channels, 6, 7), F32, 9)
        x[batch - 1, channels // 2, 2, 3] = torch.nan
        y = striate.conv2d(
            channels_last(x) if last else x, torch.ones(channels, 1, 3, 3), None, 1, 1, 1, channels
        )
        assert y.isnan().nonzero().tolist() == [
            [batch - 1, channels // 2, row, column] for row in (1, 2, 3) for column in (2, 3, 4)
        ]


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_12_pytorch_12484_nan_weights_are_not_swallowed(value: float) -> None:
    for shape, size in (((3, 3), (8, 17)), ((1, 1), (7, 7)), ((5, 1), (9, 33))):
        problem = replace(SQUARE, size=size, kernel=shape, padding=((0, 0), (0, 0)))
        x, w, b, g = problem.operands()
        x, w = torch.zeros_like(x).requires_grad_(), torch.full_like(w, value).requires_grad_()
        assert problem.run(x, w).isnan().all()
        assert (problem.run(x, torch.zeros_like(w), torch.full_like(b, value)) != 0).all()
        (dx,) = torch.autograd.grad(problem.run(x, w), x, torch.zeros_like(g))
        assert dx.isnan().all()


def test_16_pytorch_186524_output_padding_of_an_empty_batch() -> None:
    for batch in (0, 1):
        with pytest.raises(RuntimeError, match="output_padding"):
            striate.conv_transpose1d(torch.zeros(batch, 4, 5), torch.zeros(4, 1, 3), None, 2, 0, 2, 4)
    y = striate.conv_transpose1d(torch.zeros(0, 4, 5), torch.zeros(4, 1, 3), None, 2, 0, 1, 4)
    assert y.shape == (0, 4, 12)


@pytest.mark.parametrize("size", [0, 1, 3, 5, 12, 13])
def test_17_onnxruntime_29464_22760_bias_of_another_length(size: int) -> None:
    bias = torch.zeros(size)
    calls = [
        lambda: striate.conv2d(torch.zeros(1, 4, 5, 5), torch.zeros(4, 1, 3, 3), bias, groups=4),
        lambda: striate.conv_transpose2d(torch.zeros(1, 4, 5, 5), torch.zeros(4, 1, 3, 3), bias, groups=4),
        lambda: striate.depthwise_conv1d(torch.zeros(1, 4, 5), torch.zeros(4, 3), bias),
        lambda: raw.conv(torch.zeros(1, 4, 5), torch.zeros(4, 1, 3), bias, [1], [0], [1], 4),
        lambda: raw.conv_grad_input(torch.zeros(1, 4, 5), torch.zeros(4, 1, 3), bias, [1], [0], [0], [1], 4),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="bias"):
            call()


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_18_onednn_5942_kernel_of_125_on_one_row(last: bool) -> None:
    for size, kernel in (((1, 40), (125, 1)), ((1, 40), (125, 3)), ((40, 1), (1, 125)), ((1, 1), (125, 125))):
        pads = tuple((k // 2, k // 2) for k in kernel)
        problem = Depthwise(1, 9, 1, size, kernel, (1, 1), (1, 1), pads)
        x, w, b, g = problem.operands()
        check(problem, channels_last(x) if last else x, w, b, channels_last(g) if last else g)


@pytest.mark.parametrize("dtypes", [(BF16, BF16), (F16, F16), (BF16, F32), (F16, F32)], ids=str)
def test_19_onednn_5494_pytorch_169688_half_precision_with_strides(
    dtypes: tuple[torch.dtype, torch.dtype],
) -> None:
    grid = itertools.product((1, 2, 3), (1, 3), (1, 2, 4), (3, 15, 16, 33), (False, True))
    for step, across, kernel, channels, last in grid:
        problem = Depthwise(
            2, channels, 1, (7, 19), (kernel, 3), (step, across), (1, 1), ((kernel // 2,) * 2, (1, 1)), dtypes
        )
        x, w, b, g = problem.operands()
        check(problem, channels_last(x) if last else x, w, b, channels_last(g) if last else g)


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_20_onednn_5080_padding_of_every_side(last: bool) -> None:
    for pads in itertools.product((0, 1, 4), repeat=4):
        for size in ((6, 15), (3, 17)):
            problem = Depthwise(1, 8, 1, size, (3, 3), (1, 1), (1, 1), (pads[:2], pads[2:]))
            x, w, b, g = problem.operands()
            check(problem, channels_last(x) if last else x, w, b, channels_last(g) if last else g)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_21_onednn_6035_weight_gradient_of_1x1(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """What lies past the end of the tensors is guarded in test_memory.py, 1 x 1 kernels among others."""
    for channels, size, stride in itertools.product((1, 7, 16, 33), (1, 7, 16, 33), (1, 2)):
        problem = Depthwise(
            3, channels, 1, (size, size), (1, 1), (stride,) * 2, (1, 1), ((0, 0),) * 2, dtypes
        )
        check(problem, *problem.operands())


def test_22_onednn_323_odd_channel_counts() -> None:
    for channels, last in itertools.product(
        (1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 31, 33, 63, 65), (False, True)
    ):
        problem = replace(SQUARE, channels=channels)
        x, w, b, g = problem.operands()
        check(problem, channels_last(x) if last else x, w, b, channels_last(g) if last else g)


def test_25_rocm_4611_more_than_32_bits_of_windows() -> None:
    """64 channels * 4,096 taps * 16,384 outputs are 2^32 products; all-ones kernels make sums of running sums."""
    size, kernel, channels = 16_384 + 4095, 4096, 64
    x = integers((1, channels, size), F32, kernel * 49)
    poison_allocator(1 << 21)
    striate._core.set_kernels("-^fft_conv")  # sums, which are exact: transforms would round
    try:
        y = striate.conv1d(x, torch.ones(channels, 1, kernel), None, groups=channels)
    finally:
        striate._core.set_kernels(None)
    sums = torch.nn.functional.pad(x.double().cumsum(-1), (1, 0))
    assert_equal(y, sums[..., kernel:] - sums[..., :-kernel])


def test_26_flaggems_6588_volumes_of_70001_samples() -> None:
    problem = Depthwise(70_001, 2, 1, (1, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1), ((0, 0),) * 3)
    x, w, b, g = problem.operands()
    y = problem.run(x, w, b)
    exact = (x.double() * w.double().view(1, 2, 1, 2, 2)).sum((3, 4), keepdim=True) + b.double().view(
        1, 2, 1, 1, 1
    )
    assert_equal(y, exact)
    (dw,) = torch.autograd.grad(problem.run(x, w.requires_grad_()), w, g)
    assert_equal(dw, (x.double() * g.double()).sum(0).view(w.shape))


def test_33_flash_linear_attention_871_split_and_concatenated_gradients() -> None:
    x, w, _, _ = SQUARE.operands()
    leaf = x.requires_grad_()
    y = SQUARE.run(leaf, w)
    first, second = y.split([5, 7], 1)
    left, right = torch.cat([second, first], 1).chunk(2, -1)
    weights = integers(right.shape, F32, 400, 9)
    (dx,) = torch.autograd.grad((left * weights).sum() - (2 * right * weights).sum(), leaf)
    g = torch.cat([weights, -2 * weights], -1).double()
    g = torch.cat([g[:, 7:], g[:, :7]], 1)
    assert_equal(dx, SQUARE.exact.grad_input(g, w, SQUARE.size))


@pytest.mark.parametrize("way", list(MEMORY))
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_34_flash_attention_355_gradients_in_any_layout(
    way: str, dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    problem = replace(SQUARE, dtypes=dtypes)
    x, w, b, g = problem.operands()
    check(problem, x, w, b, MEMORY[way](g))
    check(problem, channels_last(x), w, b, MEMORY[way](g))


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_35_candle_3735_backward_through_a_permuted_weight(function: str) -> None:
    x, w = integers((2, 12, 9, 11), F32, 400), integers((12, 1, 3, 3), F32, 400, 1)
    found = []
    for dtype, call in ((F32, getattr(striate, function)), (F64, getattr(torch.nn.functional, function))):
        a, c = x.to(dtype).requires_grad_(), transposed(w.to(dtype)).transpose(2, 3).requires_grad_()
        y = call(a, c, None, 2, 1, groups=12)
        found.append(torch.autograd.grad(y, (a, c), integers(y.shape, dtype, 400, 2)))
    for got, true in zip(*found, strict=True):
        assert_equal(got, true)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_37_flash_fft_conv_16_gradients_have_the_shapes_of_their_inputs(rank: int) -> None:
    for lead in ((), (1,), (2,)):
        x = torch.zeros(*lead, 4, *[6] * rank, requires_grad=True)
        for lift in ((1,), ()):
            w = torch.zeros(4, *lift, *[3] * rank, requires_grad=True)
            b = torch.zeros(4, requires_grad=True)
            y = getattr(striate, f"depthwise_conv{rank}d")(x, w, b, padding=1)
            assert y.shape == x.shape
            grads = torch.autograd.grad(y.sum(), (x, w, b))
            assert [t.shape for t in grads] == [t.shape for t in (x, w, b)]


def test_44_pytorch_171622_124256_128626_predicted_strides() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    op = torch.ops.striate
    mode = FakeTensorMode()
    sizes = itertools.product((0, 1, 2), (1, 2), ((1,), (6,), (1, 1), (1, 5), (5, 1), (4, 5), (1, 4, 1)))
    for (batch, channels, size), way in itertools.product(sizes, MEMORY):
        rank = len(size)
        ones = [1] * rank
        x = MEMORY[way](torch.zeros(batch, channels, *size))
        w = torch.zeros(channels, 1, *ones)
        calls = [
            (op.conv, (x, w, None, raw.settings(ones, ones, ones, channels))),
            (op.conv_grad_input, (x, w, None, raw.settings(ones, [0] * rank, ones, channels))),
            (
                op.conv_grad_weight,
                (x, x.contiguous(), raw.settings(ones, [0] * rank, ones, channels, kernel=ones)),
            ),
        ]
        for call, args in calls:
            fake = call(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args))
            real = call(*args)
            told = (fake.shape, fake.stride(), fake.dtype)
            assert told == (real.shape, real.stride(), real.dtype), (call, way, x.shape, x.stride())


def test_45_causal_conv1d_41_no_graph_break_and_few_compilations() -> None:
    compiled: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(len(inputs))
        return module.forward

    torch._dynamo.reset()
    w = torch.randn(4, 1, 4)
    run = torch.compile(
        lambda x: striate.conv1d(x, w, None, 1, 3, 1, 4).relu(), backend=backend, fullgraph=True
    )
    for length in range(20, 40):
        x = torch.randn(2, 4, length)
        assert torch.equal(run(x), striate.conv1d(x, w, None, 1, 3, 1, 4).relu())
    torch._dynamo.reset()
    assert 1 <= len(compiled) <= 2, f"{len(compiled)} compilations for 20 lengths"


# 46 (turbovec#147, granne#18, polars#17526: pools after a fork) stands in test_contract.py: test_fork and
# test_data_loader_workers.


def test_49_replknet_48_layers_keep_their_attributes_and_branches_merge() -> None:
    options = {"stride": 2, "padding": (6, 3), "dilation": (1, 2), "groups": 8, "bias": False}
    layer = striate.nn.Conv2d(8, 8, (13, 5), **options)
    twin = torch.nn.Conv2d(8, 8, (13, 5), **options)
    for name in ("stride", "padding", "dilation", "groups", "kernel_size", "padding_mode", "output_padding"):
        assert getattr(layer, name) == getattr(twin, name)
    large, small = integers((8, 1, 13, 13), F32, 400), integers((8, 1, 5, 5), F32, 400, 1)
    x = integers((2, 8, 20, 20), F32, 400, 2)
    branches = striate.conv2d(x, large, None, 1, 6, 1, 8) + striate.conv2d(x, small, None, 1, 2, 1, 8)
    merged = striate.conv2d(x, large + torch.nn.functional.pad(small, (4,) * 4), None, 1, 6, 1, 8)
    assert torch.equal(branches, merged)


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_51_pytorch_60176_inference_takes_no_shortcut(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    problem = replace(SQUARE, dtypes=dtypes)
    x, w, b, _ = problem.operands()
    x = x / 3
    for view in (Tensor.contiguous, channels_last, sliced):
        a = view(x)
        y = problem.run(a.detach().requires_grad_(), w.detach().requires_grad_(), b)
        with torch.no_grad():
            plain = problem.run(a, w, b)
        with torch.inference_mode():
            inference = problem.run(a, w, b)
        assert torch.equal(y, plain) and torch.equal(y, inference) and y.stride() == plain.stride()


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_52_timm_2107_output_does_not_depend_on_the_batch(last: bool) -> None:
    w, b = torch.randn(96, 1, 7, 7), torch.randn(96)
    x = torch.randn(9, 96, 14, 14)
    x = channels_last(x) if last else x
    y = striate.conv2d(x, w, b, 1, 3, 1, 96)
    for size in (1, 2, 4, 8):
        assert torch.equal(striate.conv2d(x[:size], w, b, 1, 3, 1, 96), y[:size])
