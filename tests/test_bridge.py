"""The raw operators: what torch's dispatcher hands over arrives, whatever its layout, type, thread or process.

Values are small integers, so results must equal torch's float64 convolution.
"""

import ctypes.util
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle import Convolution, assert_equal, integers
from raw import conv, conv_grad_input, conv_grad_weight
from striate import _core
from striate._call import words

# The Python route leaves checks to the public functions, and copies operands with torch's own threads.
rust_route = pytest.mark.skipif(os.environ.get("STRIATE_BRIDGE") == "python", reason="of the Rust route")

RANKS = {
    1: ((2, 6, 11), (6, 1, 4), 6),
    2: ((2, 6, 9, 7), (12, 1, 3, 4), 6),
    3: ((2, 4, 5, 6, 4), (4, 2, 2, 3, 1), 2),
}


def channels_last(tensor: Tensor) -> Tensor:
    """The same numbers with the channels innermost, for any rank."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def sliced(tensor: Tensor) -> Tensor:
    """The same numbers as every second column of a wider tensor."""
    wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), torch.nan).to(tensor.dtype)
    wide[..., 1::2] = tensor
    return wide[..., 1::2]


def shifted(tensor: Tensor) -> Tensor:
    """The same numbers, transposed in memory and at an odd offset."""
    room = torch.empty(tensor.numel() + 3, dtype=tensor.dtype)[3:]
    return room.view(tensor.movedim(0, -1).shape).movedim(-1, 0).copy_(tensor)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "channels_last": channels_last,
    "sliced": sliced,
    "shifted": shifted,
}


def case(rank: int) -> tuple[Tensor, Tensor, Convolution]:
    shape, kernel, groups = RANKS[rank]
    options = Convolution([1, 2, 1][:rank], [(1, 2), (-1, 2), (0, 1)][:rank], [2, 1, 1][:rank], groups)
    return integers(shape, torch.float32, 24, 1), integers(kernel, torch.float32, 24, 2), options


def arguments(options: Convolution) -> tuple[list[int], list[int], list[int], int]:
    padding = [pad for pair in options.padding for pad in pair]
    return list(options.stride), padding, list(options.dilation), options.groups


def leftover(size: Sequence[int], kernel: Sequence[int], options: Convolution) -> list[int]:
    axes = zip(size, kernel, options.stride, options.padding, options.dilation, strict=True)
    return [(i + lo + hi - d * (k - 1) - 1) % s for i, k, s, (lo, hi), d in axes]


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("rank", RANKS)
def test_every_pass_in_every_layout(rank: int, first: str, second: str) -> None:
    x, w, options = case(rank)
    stride, padding, dilation, groups = arguments(options)
    y = options.forward(x, w)
    g = integers(y.shape, torch.float32, 24, 3)
    a, b = LAYOUTS[first], LAYOUTS[second]
    got = conv(a(x), b(w), None, stride, padding, dilation, groups)
    assert_equal(got, y, "conv")
    extra = leftover(x.shape[2:], w.shape[2:], options)
    dx = conv_grad_input(a(g), b(w), None, stride, padding, extra, dilation, groups)
    assert_equal(dx, options.grad_input(g, w, x.shape[2:]), "conv_grad_input")
    dw = conv_grad_weight(a(g), b(x), list(w.shape[2:]), stride, padding, dilation, groups, False)
    assert_equal(dw, options.grad_weight(g, x, w.shape[2:]), "conv_grad_weight")
    for result in (got, dx):
        expected = channels_last(result) if first == "channels_last" else result.contiguous()
        assert result.stride() == expected.stride()
    assert dw.is_contiguous()


@pytest.mark.parametrize("weights", [None, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_types_and_bias(dtype: torch.dtype, weights: torch.dtype | None) -> None:
    if dtype == torch.float64 and weights is not None:
        pytest.skip("float64 is its own accumulator")
    x, w, options = case(2)
    bias = integers((12,), torch.float32, 24, 4)
    back = integers((6,), torch.float32, 24, 5)
    stride, padding, dilation, groups = arguments(options)
    y = options.forward(x, w, bias)
    g = integers(y.shape, torch.float32, 24, 3)
    x, g, (w, bias, back) = x.to(dtype), g.to(dtype), (t.to(weights or dtype) for t in (w, bias, back))
    assert_equal(conv(x, w, bias, stride, padding, dilation, groups), y)
    assert_equal(conv(x, w, bias.repeat_interleave(2)[::2], stride, padding, dilation, groups), y)
    extra = leftover(x.shape[2:], w.shape[2:], options)
    dx = options.grad_input(g, w, x.shape[2:]) + back.double()[:, None, None]
    assert_equal(conv_grad_input(g, w, back, stride, padding, extra, dilation, groups), dx)
    wide = weights is not None
    dw = conv_grad_weight(g, x, list(w.shape[2:]), stride, padding, dilation, groups, wide)
    assert dw.dtype == (torch.float32 if wide else dtype)
    assert_equal(dw, options.grad_weight(g, x, w.shape[2:]))


def test_expanded_operands_and_inputs_never_written() -> None:
    x, w, options = case(2)
    x = x[:1, :, :1].expand(2, 6, 9, 7)
    w = w[:1].expand_as(w)
    y = options.forward(x, w)
    g = torch.ones(()).expand(y.shape)
    stride, padding, dilation, groups = arguments(options)
    before = [t.clone() for t in (x, w, g)]
    assert_equal(conv(x, w, None, stride, padding, dilation, groups), y)
    extra = leftover(x.shape[2:], w.shape[2:], options)
    dx = conv_grad_input(g, w, None, stride, padding, extra, dilation, groups)
    assert_equal(dx, options.grad_input(g, w, x.shape[2:]))
    dw = conv_grad_weight(g, x, [3, 4], stride, padding, dilation, groups, False)
    assert_equal(dw, options.grad_weight(g, x, [3, 4]))
    for now, then in zip((x, w, g), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_transposed_convolution_with_output_padding(extra: int) -> None:
    x, w = integers((2, 4, 5), torch.float32, 16, 1), integers((4, 3, 3), torch.float32, 16, 2)
    expected = torch.nn.functional.conv_transpose1d(x.double(), w.double(), None, 3, 1, extra, 2, 2)
    assert_equal(conv_grad_input(x, w, None, [3], [1], [extra], [2], 2), expected)


def test_empty_sums_are_zero_or_the_bias() -> None:
    bias = torch.arange(4.0)
    empty = torch.empty(0, 4, 9)
    weight = torch.ones(4, 1, 3)
    assert conv(empty, weight, bias, [2], [1], [1], 4).shape == (0, 4, 5)
    assert conv_grad_input(empty, weight, None, [1], [1], [0], [1], 4).shape == (0, 4, 9)
    dw = conv_grad_weight(empty, empty, [3], [1], [1], [1], 4, False)
    assert torch.equal(dw, torch.zeros(4, 1, 3))
    no_channels = conv(torch.empty(2, 0, 5), torch.empty(4, 0, 3), bias, [1], [1], [1], 1)
    assert torch.equal(no_channels, bias[:, None].expand(2, 4, 5))
    with pytest.raises(RuntimeError, match="positions"):
        conv(torch.empty(1, 4, 0), weight, bias, [1], [2], [1], 4)
    assert conv(torch.ones(2, 4, 5), torch.empty(0, 4, 3), None, [1], [0], [1], 1).shape == (2, 0, 3)


def call(**change: object) -> Tensor:
    usual: dict[str, object] = {"x": torch.ones(2, 4, 6, 6), "w": torch.ones(4, 1, 3, 3), "b": None}
    usual |= {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 4} | change
    return conv(*usual.values())


@rust_route
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": torch.ones(4, 6)}, ("input", "3 to 5 dimensions", "2")),
        ({"x": torch.ones(1, 1, 1, 1, 1, 1)}, ("input", "3 to 5 dimensions", "6")),
        ({"w": torch.ones(4, 3)}, ("weight", "4 dimensions", "2")),
        ({"x": torch.ones(2, 5, 6, 6)}, ("input", "4 channels", "5")),
        ({"w": torch.ones(6, 1, 3, 3)}, ("weight", "divisible by groups=4", "6")),
        ({"groups": 0}, ("groups", "at least 1", "0")),
        ({"groups": 1 << 62}, ("groups", "4")),
        ({"b": torch.ones(3)}, ("bias", "[4]", "[3]")),
        ({"b": torch.ones(4, dtype=torch.float64)}, ("bias", "float32", "float64")),
        ({"x": torch.ones(2, 4, 6, 6, dtype=torch.int64)}, ("input", "float32", "int64")),
        ({"x": torch.ones(2, 4, 6, 6, dtype=torch.complex64)}, ("input", "complex")),
        ({"w": torch.ones(4, 1, 3, 3, dtype=torch.float16)}, ("weight", "float32", "float16")),
        ({"stride": [1]}, ("stride", "2 entries", "1")),
        ({"stride": [1] * 9}, ("stride", "2 entries", "9")),
        ({"stride": [0, 1]}, ("stride", "at least 1", "0")),
        ({"padding": [0] * 6}, ("padding", "2 entries", "3")),
        ({"padding": [0, -(1 << 40)]}, ("padded input", "dimension 1")),
        ({"padding": [1 << 62, 0]}, ("2^48",)),
        ({"dilation": [3, 1]}, ("extent 7", "size 6")),
        ({"dilation": [1, 1 << 62]}, ("2^48",)),
    ],
)
def test_errors_name_argument_expectation_and_value(wrong: dict[str, object], words: Sequence[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        call(**wrong)
    for word in ("striate::conv", *words):
        assert word in str(caught.value)
    assert call().shape == (2, 4, 4, 4)


@rust_route
def test_errors_of_the_gradients() -> None:
    g, x, w = torch.ones(2, 4, 5), torch.ones(2, 4, 7), torch.ones(4, 1, 3)
    with pytest.raises(RuntimeError, match="grad: expected size 5, got 4"):
        conv_grad_weight(g[..., :4], x, [3], [1], [0], [1], 4, False)
    with pytest.raises(RuntimeError, match="input: expected batch 2, got 1"):
        conv_grad_weight(g, x[:1], [3], [1], [0], [1], 4, False)
    with pytest.raises(RuntimeError, match="input: expected float32 like grad, got float64"):
        conv_grad_weight(g, x.double(), [3], [1], [0], [1], 4, False)
    with pytest.raises(RuntimeError, match="output_padding: expected at least 0, got -1"):
        conv_grad_input(g, w, None, [1], [0], [-1], [1], 4)
    with pytest.raises(RuntimeError, match="would produce"):
        conv_grad_input(g, w, None, [1], [9], [0], [1], 4)
    with pytest.raises(RuntimeError, match="stride: expected at least 1, got 0"):
        conv_grad_input(g, w, None, [0], [0], [0], [1], 4)


def test_an_allocation_that_fails_is_an_error() -> None:
    tiny = torch.ones(1).expand(1 << 24, 1 << 14, 1)
    with pytest.raises(RuntimeError, match=r"alloc|memory"):
        conv(tiny, torch.ones(1 << 14, 1, 1), None, [1], [1 << 8], [1], 1 << 14)
    assert call().shape == (2, 4, 4, 4)


def test_settings_as_text_keep_numbers_apart() -> None:
    given = ((1, "1"), (1.0, "1.0"), (True, "1"), ([1, 2], "1x2"), ((1, 2), "1x2"), (torch.Size((3,)), "3"))
    for value, text in (*given, *reversed(given)):  # in either order, since texts are remembered
        assert words(a=value, b="c") == f"a={text} b=c"


def test_registration_says_what_is_wrong() -> None:
    code = """
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = ExtensionFileLoader("_core", sys.argv[1])
core = module_from_spec(spec_from_loader("_core", loader))
loader.exec_module(core)
for path in sys.argv[2:]:
    try:
        core.register(path)
    except RuntimeError as error:
        print(error)
"""
    libc = ctypes.util.find_library("c") or pytest.skip("no C library to mistake for torch")
    command = [sys.executable, "-c", code, _core.__file__, "/nowhere/libtorch_cpu.so", libc]
    first, second = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "/nowhere/libtorch_cpu.so is not loaded" in first
    assert "torch_library_impl" in second and "torch_parallel_for" in second and "2.10" in second


# ------------------------------------------------------------------------------------------------ threads


def heavy() -> tuple[Callable[[], Tensor], Tensor]:
    """A convolution that is shared among threads, and its result."""
    x, w = integers((4, 32, 48, 48), torch.float32, 49, 6), integers((32, 1, 7, 7), torch.float32, 49, 7)
    options = Convolution([1, 1], [(3, 3), (3, 3)], [1, 1], 32)
    return lambda: conv(x, w, None, [1, 1], [3, 3], [1, 1], 32), options.forward(x, w)


def test_the_gil_is_released() -> None:
    x, w = torch.ones(1, 64, 200, 200), torch.ones(64, 1, 31, 31)
    ticks, done = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        start, before = time.perf_counter(), ticks
        while time.perf_counter() - start < 0.5:
            conv(x, w, None, [1, 1], [15, 15], [1, 1], 64)
        during = ticks - before
    finally:
        done.set()
        ticker.join()
    assert during > 20


def test_eight_threads_at_once() -> None:
    run, expected = heavy()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(10):
                assert_equal(run(), expected)
                width = 5 + (seed + step) % 7
                x = torch.ones(1, 2, width)
                assert conv(x, torch.ones(2, 1, 3), None, [1], [1], [1], 2).sum() == 2 * (3 * width - 2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_thread_counts_do_not_change_a_bit_and_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(8)
    x, w = torch.randn(3, 20, 60, 60, generator=generator), torch.randn(20, 1, 7, 7, generator=generator)
    g = torch.randn(3, 20, 60, 60, generator=generator)
    passes = (
        lambda: conv(x, w, None, [1, 1], [3, 3], [1, 1], 20),
        lambda: conv_grad_input(g, w, None, [1, 1], [3, 3], [0, 0], [1, 1], 20),
        lambda: conv_grad_weight(g, x, [7, 7], [1, 1], [3, 3], [1, 1], 20, False),
    )
    usual = torch.get_num_threads()
    try:
        for run in passes:
            results = []
            for threads in (1, 2, 7, 2):
                torch.set_num_threads(threads)
                results.append(run())
                assert torch.get_num_threads() == threads
            assert all(torch.equal(result, results[0]) for result in results)
    finally:
        torch.set_num_threads(usual)


# ------------------------------------------------------------------------------------------------ processes


def in_child(work: Callable[[], None], seconds: float = 60) -> None:
    """Fork, do the work in the child, and fail if it fails or does not return."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the forked child hangs")


def same(a: Tensor, b: Tensor) -> bool:
    """Equality without torch's operators, which hang in forked children."""
    return bool(np.array_equal(a.numpy(), b.numpy()))


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@forks
@rust_route
def test_fork_after_use() -> None:
    run, expected = heavy()
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    reference = expected.to(torch.float32)
    strided = reference.new_ones(4, 32, 48, 96)[..., ::2]
    weight = torch.ones(32, 1, 7, 7)

    def work() -> None:
        for _ in range(3):
            assert same(run(), reference)
        # An operand that must be copied first: torch's own copy would wake threads that do not exist here.
        got = conv(strided, weight, None, [1, 1], [0, 0], [1, 1], 32)
        assert bool((got.numpy() == 49).all())
        in_child(lambda: same(run(), reference) or os._exit(1))

    try:
        assert torch.equal(run(), reference)
        for _ in range(3):
            in_child(work)
        assert torch.equal(run(), reference)
    finally:
        torch.set_num_threads(usual)


@forks
def test_fork_during_use() -> None:
    run, expected = heavy()
    reference = expected.to(torch.float32)
    small, weight = torch.ones(1, 1, 8), torch.ones(1, 1, 1)
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            conv(small, weight, None, [1], [0], [1], 1)

    def work() -> None:
        assert same(run(), reference)

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(work)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Filtered(torch.utils.data.Dataset[Tensor]):
    """Samples that need a convolution to be made."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        image = torch.full((1, 8, 64, 64), float(index))
        return conv(image, torch.ones(8, 1, 7, 7), None, [1, 1], [0, 0], [1, 1], 8)[0]


@pytest.mark.parametrize(
    "method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]
)
def test_data_loader_workers(method: str) -> None:
    heavy()[0]()
    loader = torch.utils.data.DataLoader(
        Filtered(), batch_size=2, num_workers=2, multiprocessing_context=method, timeout=60
    )
    values = [float(value) for batch in loader for value in batch[:, 0, 0, 0]]
    assert values == [49.0 * index for index in range(8)]


# ------------------------------------------------------------------------------------------------ memory


def resident() -> int:
    with open("/proc/self/statm") as status:
        return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from /proc")
def test_nothing_leaks_over_steps_shapes_and_errors() -> None:
    x, w, options = case(2)
    stride, padding, dilation, groups = arguments(options)
    lines = channels_last(x), sliced(w), torch.ones(24)[::2]

    def step() -> None:
        conv(*lines, stride, padding, dilation, groups)
        for bias in (torch.ones(5), lines[2].double()):
            with pytest.raises(RuntimeError):
                conv(*lines[:2], bias, stride, padding, dilation, groups)

    def shape(index: int) -> None:
        length = 8 + index
        conv(torch.ones(1, 2, length), torch.ones(2, 1, 3), None, [1], [1], [1], 2)

    def grown(work: Callable[[int], None], times: int) -> float:
        gc.collect()
        before = resident()
        for index in range(times):
            work(index)
        gc.collect()
        return (resident() - before) / 2**20

    for index in range(50):
        step()
        shape(index)
    assert grown(lambda _: step(), 300) < 5
    assert grown(shape, 1600) < 20
    big = torch.ones(8, 64, 64, 64)[..., ::1].transpose(2, 3)
    weight = torch.ones(64, 1, 3, 3)

    def large(_: int) -> None:
        conv(big, weight, None, [1, 1], [1, 1], [1, 1], 64)

    grown(large, 20)  # until the allocator keeps what it will keep
    assert grown(large, 20) < 20
