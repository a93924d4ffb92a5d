"""The promises of every operator: gradients, threads, forks, interruption, and the state of the process."""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import striate
from oracle import assert_equal, integers
from strategies import BF16, F16, F32, F64, ROWS, Depthwise, any_way, channels_last, forced, normals, problems
from test_memory import child

DOCUMENT = Path(__file__).parent.parent / "docs/ops/conv.md"
SMALL = Depthwise(2, 9, 2, (8, 17), (3, 5), (1, 2), (1, 1), ((1, 1), (2, 2)))
SHARED = Depthwise(4, 64, 1, (40, 40), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)))


def passes(problem: Depthwise, operands: tuple[Tensor | None, ...]) -> list[Tensor]:
    *leaves, g = operands
    leaves = [None if t is None else t.detach().requires_grad_() for t in leaves]
    y = problem.run(*leaves)
    return [y.detach(), *torch.autograd.grad(y, [t for t in leaves if t is not None], g)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtypes", [(F32, F32), (F64, F64), (BF16, BF16), (F16, F32)], ids=str)
def test_every_subset_of_gradients(row: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    problem = replace(SMALL, dtypes=dtypes)
    x, w, b, g = problem.operands()
    with forced(row):
        whole = passes(problem, (x, w, b, g))[1:]
        for wanted in itertools.product((False, True), repeat=3):
            leaves = [t.clone().requires_grad_(want) for t, want in zip((x, w, b), wanted, strict=True)]
            y = problem.run(*leaves)
            assert y.requires_grad == any(wanted)
            if any(wanted):
                y.backward(g)
            for leaf, want, true in zip(leaves, wanted, whole, strict=True):
                if want:
                    assert (
                        leaf.grad is not None
                        and torch.equal(leaf.grad, true)
                        and leaf.grad.dtype == leaf.dtype
                    )
                else:
                    assert leaf.grad is None


def test_double_backward_is_exact_on_integers() -> None:
    @given(problems(dtypes=[(F32, F32), (F64, F64)], least_batch=1), any_way, st.integers(0, 99))
    @settings(max_examples=30)
    def check(problem: Depthwise, way: str, seed: int) -> None:
        x, w, _, g = (t.sign() for t in problem.operands(seed=seed))
        u, v = (integers(t.shape, t.dtype, 2**20, seed + 7) for t in (x, w))

        def second(x: Tensor, w: Tensor, g: Tensor, forward: object) -> tuple[Tensor, ...]:
            x, w, g = (t.detach().requires_grad_() for t in (x, w, g))
            dx, dw = torch.autograd.grad(forward(x, w), (x, w), g, create_graph=True)
            return torch.autograd.grad((dx * u).sum() + (dw * v).sum(), (x, w, g))

        exact = second(x.double(), w.double(), g.double(), problem.exact.forward)
        for name, got, true in zip("xwg", second(x, w, g, problem.run), exact, strict=True):
            assert_equal(got, true, f"second derivative by {name} of {problem}")

    check()


@pytest.mark.parametrize("index", [0, 1], ids=["input", "weight"])
def test_saved_tensors_are_version_checked(index: int) -> None:
    x, w, b, g = SMALL.operands()
    leaves = [x.requires_grad_(), w.requires_grad_()]
    y = SMALL.run(*leaves, b)
    with torch.no_grad():
        leaves[index].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(g)


def test_a_gradient_that_nobody_asks_for_is_not_computed() -> None:
    x, w, b, g = SMALL.operands()
    seen: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    y = SMALL.run(x, w.requires_grad_(), b)
    with Watch():
        torch.autograd.grad(y, w, g)
    ran = {name for name in seen if "striate" in name}
    assert ran == {"striate.conv_grad_weight.default"}


# ------------------------------------------------------------------------------------------- batch and size


@pytest.mark.parametrize("row", ROWS)
def test_zero_batch_unit_axes_and_unbatched(row: str) -> None:
    with forced(row):
        for rank, last in itertools.product((1, 2, 3), (False, True)):
            one = ((0, 0),) * rank
            unit = Depthwise(1, 17, 1, (1,) * rank, (1,) * rank, (1,) * rank, (1,) * rank, one)
            x, w, b, g = unit.operands()
            if last:
                x, g = channels_last(x), channels_last(g)
            got = passes(unit, (x, w, b, g))
            wide = w.view(1, 17, *[1] * rank)
            assert same(got, [x * wide + b.view(wide.shape), g * wide, (x * g).view(w.shape), g.flatten()])
            single = getattr(striate, f"conv{rank}d")(x[0], w, b, groups=17)
            assert torch.equal(single, got[0][0])
            empty = replace(unit, batch=0)
            y, dx, dw, db = passes(empty, (x[:0], w, b, g[:0]))
            assert y.shape == x[:0].shape and dx.shape == x[:0].shape
            assert dw.shape == w.shape and not dw.any() and db.shape == b.shape and not db.any()


# ------------------------------------------------------------------------------------------------- threads


def test_eight_threads_at_once() -> None:
    before = torch.get_num_threads()
    cases = [replace(SHARED, channels=8 * (1 + index)) for index in range(8)]
    torch.set_num_threads(2)
    try:
        data = [case.operands(normals, index) for index, case in enumerate(cases)]
        alone = [passes(case, operands) for case, operands in zip(cases, data, strict=True)]
        start = threading.Barrier(8)

        def work(index: int) -> bool:
            start.wait()
            return all(same(passes(cases[index], data[index]), alone[index]) for _ in range(5))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8), timeout=120))
    finally:
        torch.set_num_threads(before)


def test_the_gil_is_released() -> None:
    x, w = torch.randn(8, 128, 64, 64), torch.randn(128, 1, 31, 31)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        start = time.perf_counter()
        striate.conv2d(x, w, None, 1, 15, 1, 128)
        seconds = time.perf_counter() - start
        counted = ticks[0]
    finally:
        done.set()
        thread.join()
        torch.set_num_threads(before)
    # Held for the whole call, the lock would let one tick through at either end.
    assert seconds < 0.02 or counted >= 5, f"{counted} ticks in {seconds:.3f} s"


def test_set_num_threads_may_change_at_any_time() -> None:
    before = torch.get_num_threads()
    operands = SHARED.operands(normals)
    try:
        torch.set_num_threads(1)
        first = passes(SHARED, operands)[:3]
        for count in (2, 1, 7, 3, 2, 1):
            torch.set_num_threads(count)
            assert same(passes(SHARED, operands)[:3], first)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------------- forks


def _fork(operands: tuple[Tensor | None, ...], wanted: list[bytes], count: int = 3) -> None:
    """Forked children, one after the other, must come to the same bits within ten seconds each."""
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(10, exit=True)
            code = 3
            try:
                code = 0 if bits(passes(SHARED, operands)) == wanted else 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, {1: "hangs", 2: "differs", 3: "raised"}.get(status, status)


def bits(tensors: list[Tensor]) -> list[bytes]:
    """To compare in a forked child, where torch.equal waits for threads that are not there."""
    return [t.numpy().tobytes() for t in tensors]


def _wanted(with_bias: bool = True) -> tuple[tuple[Tensor | None, ...], list[bytes]]:
    """Operands that need copies, and the result from a process of its own, so that this one stays unused."""
    torch.set_num_threads(1)
    x, w, b, g = SHARED.operands(normals)
    operands = (x.transpose(2, 3), w.transpose(2, 3), b if with_bias else None, g.transpose(2, 3))
    reading, writing = os.pipe()
    if os.fork() == 0:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(bits(passes(SHARED, operands)), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return operands, pickle.load(pipe)


def fork_before_use() -> None:
    operands, wanted = _wanted()
    torch.set_num_threads(2)
    _fork(operands, wanted)


def fork_after_use() -> None:
    operands, wanted = _wanted(with_bias=False)
    torch.set_num_threads(2)
    assert bits(passes(SHARED, operands)) == wanted
    _fork(operands, wanted)
    assert bits(passes(SHARED, operands)) == wanted


def fork_after_use_with_bias() -> None:
    operands, wanted = _wanted()
    torch.set_num_threads(2)
    assert bits(passes(SHARED, operands)) == wanted
    _fork(operands, wanted)


def fork_during_use() -> None:
    operands, wanted = _wanted()
    torch.set_num_threads(2)
    stop = threading.Event()
    failures: list[BaseException] = []

    def busy(seed: int) -> None:
        try:
            while not stop.is_set():
                # New shapes keep the memo of plans locked as often as may be.
                size = random.Random(seed).randrange(8, 60)
                seed += 1
                striate.conv1d(torch.ones(1, 4, size), torch.ones(4, 1, 3), None, 1, seed % 50, 1, 4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=busy, args=(1000 * n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        _fork(operands, wanted, 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


@pytest.mark.parametrize("when", ["before_use", "after_use", "after_use_with_bias", "during_use"])
def test_fork(when: str) -> None:
    child(f"fork_{when}", module="test_contract")


class Dataset(torch.utils.data.Dataset):
    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        torch.set_num_threads(2)
        x = torch.from_numpy(np.full((1, 64, 60, 60), index, dtype=np.float32))
        return striate.conv2d(x, self.weight, None, 1, 0, 1, 64)[0, :, 0, 0]


def loader() -> None:
    torch.set_num_threads(2)
    data = Dataset(torch.ones(64, 1, 5, 5))
    data[0]
    for _ in range(2):
        got = list(torch.utils.data.DataLoader(data, num_workers=3, timeout=60))
        assert [float(t[0, 5]) for t in got] == [25.0 * index for index in range(6)]


def test_data_loader_workers() -> None:
    child("loader", module="test_contract")


# -------------------------------------------------------------------------- interruption and process state


def interrupted() -> None:
    torch.set_num_threads(2)
    operands = SHARED.operands(normals)
    first = passes(SHARED, operands)[:3]
    caught = 0
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for delay in (0.003, 0.01, 0.02, 0.05):
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                passes(SHARED, operands)
        except KeyboardInterrupt:
            caught += 1
        assert same(passes(SHARED, operands)[:3], first)
    assert caught == 4
    print("healthy")


def test_keyboard_interrupt_leaves_the_process_healthy() -> None:
    assert child("interrupted", module="test_contract") == "healthy\n"


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="reads MXCSR")
@pytest.mark.parametrize("row", ROWS)
def test_rounding_mode_random_state_and_thread_count_are_left_alone(row: str) -> None:
    libm = ctypes.CDLL("libm.so.6")

    def state() -> tuple[object, ...]:
        environment = (ctypes.c_uint32 * 8)()  # fenv_t: 28 bytes of x87 state, then MXCSR
        libm.fegetenv(environment)
        control = environment[7] & ~0x3F  # the low six bits record exceptions
        drawn = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
        return control, environment[0] & 0xFFFF, libm.fegetround(), torch.get_num_threads(), drawn

    before = state()
    with forced(row):
        for dtype, last in itertools.product((F32, F64, BF16, F16), (False, True)):
            problem = replace(SMALL, multiplier=1, dtypes=(dtype, dtype))
            x, w, b, g = problem.operands(normals)
            passes(problem, (channels_last(x), w, b, channels_last(g)) if last else (x, w, b, g))
    assert state() == before


@pytest.mark.parametrize("row", [row for row in ROWS if row != "reference"])
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_subnormal_numbers_do_not_slow_a_kernel_or_it_is_stated(row: str, last: bool) -> None:
    """Compares the least of many runs: what else the machine does slows some of them, subnormals slow all."""
    problem = Depthwise(2, 16, 1, (32, 32), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)))
    x, w, b, g = (t.abs() + 1 for t in problem.operands(normals))
    if last:
        x, g = channels_last(x), channels_last(g)
    small = (x * 1e-41, w, b * 0, g * 1e-41)
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def least(operands: tuple[Tensor, ...]) -> dict[str, float]:
        leaves = [t.detach().requires_grad_() for t in operands[:2]]
        best = {"fwd": 1.0, "dx": 1.0, "dw": 1.0}
        for _ in range(25):
            start = time.perf_counter()
            y = problem.run(*leaves)
            best["fwd"] = min(best["fwd"], time.perf_counter() - start)
            for name, leaf in zip(("dx", "dw"), leaves, strict=True):
                start = time.perf_counter()
                torch.autograd.grad(y, leaf, operands[3], retain_graph=True)
                best[name] = min(best[name], time.perf_counter() - start)
        return best

    try:
        with forced(row):
            normal, tiny = least((x, w, b, g)), least(small)
    finally:
        torch.set_num_threads(before)
    ratios = {name: round(tiny[name] / normal[name], 2) for name in normal}
    stated = [line for line in DOCUMENT.read_text().splitlines() if "ubnormal" in line and "slow" in line]
    assert max(ratios.values()) <= 2 or stated, (
        f"{DOCUMENT} does not say that subnormals are slower: {ratios}"
    )
