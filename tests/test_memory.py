"""Memory: nothing is read outside the tensors, no input is written, no output aliases, nothing leaks."""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor

import striate
from oracle import assert_equal, integers
from strategies import (
    BF16,
    DTYPES,
    F16,
    F32,
    F64,
    MEMORY,
    ROWS,
    Depthwise,
    channels_last,
    fitting,
    forced,
)
from striate import _core


def child(function: str, module: str = "test_memory", limit: int = 200) -> str:
    """Runs a function of a test file in a process of its own, where a fault is a failure and not the end."""
    code = f"import {module}; {module}.{function}()"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-500:]}\n{done.stderr[-2000:]}"
    return done.stdout


class Guarded:
    """Pages with forbidden ones on both sides."""

    libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, room: int) -> None:
        page = mmap.PAGESIZE
        self.room = -(-room // page) * page
        self.pages = mmap.mmap(-1, self.room + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        self.start = start + page
        for edge in (start, self.start + self.room):
            self._protect(edge, page, 0)

    def _protect(self, address: int, size: int, mode: int) -> None:
        if self.libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), mode):
            raise OSError(ctypes.get_errno(), "mprotect")

    def freeze(self, frozen: bool) -> None:
        self._protect(self.start, self.room, 1 if frozen else 3)

    def address(self, size: int, at_end: bool) -> int:
        """Where ``size`` bytes touch the forbidden page after them, or the one before."""
        if size > self.room:
            raise ValueError(f"{size} bytes in {self.room}")
        return self.start + (self.room - size if at_end else 0)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype, at_end: bool) -> Tensor:
        """A dense tensor there; the pages live as long as this process."""
        size = prod(shape) * dtype.itemsize
        buffer = (ctypes.c_char * max(size, 1)).from_address(self.address(max(size, 1), at_end))
        return torch.frombuffer(buffer, dtype=dtype, count=prod(shape)).view(shape)


def _axis(
    size: int, kernel: int, stride: int = 1, dilation: int = 1, low: int = 0, high: int = 0
) -> tuple[int, int, int, int, tuple[int, int]]:
    return size, kernel, stride, dilation, (low, high)


def guarded_problems() -> Iterator[Depthwise]:
    """Sixty problems at the edges of vectors, tiles and windows."""
    last = [
        _axis(size, 3, low=1, high=1)
        for size in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
    ]
    last += [
        _axis(33, 5, 3, 1, 0, 4),
        _axis(40, 3, 5, 1),
        _axis(17, 7, 2, 3, 9, 9),
        _axis(65, 31, low=15, high=15),
        _axis(9, 1, 4),
        _axis(16, 16),
        _axis(50, 2, 1, 16, -1, -2),
        _axis(3, 13, low=12, high=5),
    ]
    channels = itertools.cycle([1, 3, 8, 16, 17, 33])
    other = itertools.cycle(
        [_axis(5, 3, low=1, high=1), _axis(8, 5, 2, 1, 2, 1), _axis(1, 1), _axis(7, 4, 1, 2)]
    )
    for count, axis in enumerate(last):
        for rank in (1, 2, 3) if count % 2 else (1, 2):
            axes = [next(other) for _ in range(rank - 1)] + [axis]
            yield Depthwise(2, next(channels), 1 + count % 5 // 4, *zip(*axes, strict=True))


def guarded_run(problem: Depthwise, pass_: str, layout: str, at_end: bool, places: list[Guarded]) -> Tensor:
    """One pass on guarded tensors, the operands read-only; returns the result as NCHW."""
    activation, weight = problem.dtypes
    shapes = {"x": problem.input_shape, "w": problem.weight_shape, "y": problem.output_shape}
    roles = {"fwd": ("x", "w", "y"), "dx": ("y", "w", "x"), "dw": ("y", "x", "w")}[pass_]
    tensors = []
    for place, role in zip(places, roles, strict=False):
        shape = shapes[role]
        if role != "w" and layout == "nhwc":
            shape = (shape[0], *shape[2:], shape[1])
        tensors.append(place.tensor(shape, weight if role == "w" else activation, at_end))
    bias = places[3].tensor(problem.weight_shape[:1], weight, at_end) if pass_ == "fwd" else None
    for seed, tensor in enumerate(tensors[:2]):
        tensor.copy_(integers(tensor.shape, tensor.dtype, max(problem.terms.values()), seed))
    if bias is not None:
        bias.copy_(integers(bias.shape, bias.dtype, 9))
    tensors[2].fill_(torch.nan)
    operands = [places[0], places[1], places[3]]
    for place in operands:
        place.freeze(True)
    a, b, out = (t.data_ptr() for t in tensors)
    _core.run(problem.line(pass_, layout), out, a, b, 0 if bias is None else bias.data_ptr(), 2)
    for place in operands:
        place.freeze(False)
    return tensors[2]


def all_guarded() -> None:
    """Every row, pass, type, layout and end; the first unfinished line names the fault."""
    torch.set_num_threads(1)
    places = [Guarded(1 << 17) for _ in range(4)]
    ran = dict.fromkeys(ROWS, 0)
    for row, (count, problem) in itertools.product(ROWS, enumerate(guarded_problems())):
        problem = fitting(replace(problem, dtypes=DTYPES[count % 6]), row)
        with forced(row):
            for pass_, layout in itertools.product(("fwd", "dx", "dw"), ("nchw", "nhwc")):
                line = problem.line(pass_, layout)
                if _core.explain(line)["row"] != row:
                    continue
                for at_end in (True, False):
                    print(row, line, "end" if at_end else "start", file=sys.stderr)
                    out = guarded_run(problem, pass_, layout, at_end, places)
                    assert not out.isnan().any(), "unwritten"
                ran[row] += 1
    assert min(ran.values()) >= 60, ran
    print(ran)


def test_nothing_is_read_outside_the_tensors_nor_written_to_operands() -> None:
    assert "reference" in child("all_guarded")


def past_the_end() -> None:
    place = Guarded(4096)
    tensor = place.tensor((16,), F32, True)
    ctypes.string_at(tensor.data_ptr(), 65)


def test_guard_pages_would_catch_one_byte() -> None:
    with pytest.raises(AssertionError, match="exit -11"):
        child("past_the_end")


@pytest.mark.parametrize("way", list(MEMORY))
def test_inputs_are_not_written_and_outputs_do_not_alias(way: str) -> None:
    problem = Depthwise(2, 16, 1, (9, 17), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)))
    for row in ROWS:
        with forced(row):
            x, w, b, g = (t if t.dim() == 1 else MEMORY[way](t) for t in problem.operands())
            before = [t.clone() for t in (x, w, b, g)]
            a, c = x.detach().requires_grad_(), w.detach().requires_grad_()
            y = problem.run(a, c, b)
            got = (y, *torch.autograd.grad(y, (a, c), g))
            assert all(torch.equal(t, old) for t, old in zip((x, w, b, g), before, strict=True))
            for made in got:
                assert made._base is None and made.untyped_storage().nbytes() == made.numel() * 4
                mine = made.untyped_storage().data_ptr()
                assert all(mine != t.untyped_storage().data_ptr() for t in (x, w, b, g))


@pytest.mark.parametrize("row", ROWS)
def test_workspace_is_about_the_size_of_the_output(row: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for dtype, layout in itertools.product((F32, F64, BF16, F16), ("nchw", "nhwc")):
            problem = Depthwise(8, 64, 1, (56, 56), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)), (dtype, dtype))
            output = prod(problem.output_shape) * dtype.itemsize
            with forced(row):
                for pass_ in ("fwd", "dx", "dw"):
                    found = _core.explain(problem.line(pass_, layout))
                    assert found["workspace"] <= output, (
                        row,
                        problem.line(pass_, layout),
                        found["workspace"],
                    )
    finally:
        torch.set_num_threads(before)


def resident() -> float:
    """MiB of this process in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE / 2**20


def leaks() -> None:
    torch.set_num_threads(2)
    layer = striate.nn.Conv2d(32, 32, 5, padding=2, groups=32)
    optimizer = torch.optim.SGD(layer.parameters(), 1e-6)

    def step() -> None:
        optimizer.zero_grad()
        layer(torch.randn(2, 32, 24, 24)).square().sum().backward()
        optimizer.step()

    for _ in range(50):
        step()
    start = resident()
    for _ in range(300):
        step()
    steps = resident() - start
    w = torch.randn(4, 1, 3, 3, requires_grad=True)

    def shape(index: int) -> None:
        y = striate.conv2d(torch.randn(1, 4, 8 + index % 40, 8 + index // 40), w, None, 1, 1, 1, 4)
        y.sum().backward()

    torch.set_num_threads(1)
    for index in range(1600, 1700):
        shape(index)
    start = resident()
    for index in range(1600):
        shape(index)
    print(f"{steps:.1f} {resident() - start:.1f}")


def test_neither_steps_nor_shapes_leak() -> None:
    steps, shapes = (float(word) for word in child("leaks").split())
    assert steps < 5 and shapes < 20, f"{steps} MiB in 300 steps, {shapes} MiB in 1,600 shapes"


def out_of_memory() -> None:
    import resource

    x, w = torch.randn(1, 8, 64), torch.randn(8, 1, 3)
    good = striate.conv1d(x, w, None, 1, 1, 1, 8)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
    for _ in range(3):
        for padding in (2**30 // 8, 2**40, 2**44):
            with pytest.raises((RuntimeError, MemoryError), match=r"alloc|memory"):
                striate.conv1d(x, w, None, 1, padding, 1, 8)
            assert torch.equal(striate.conv1d(x, w, None, 1, 1, 1, 8), good)
    print("fine")


def test_out_of_memory_raises_and_the_next_call_is_fine() -> None:
    assert child("out_of_memory") == "fine\n"


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("batch", "channels"), [(1, 70_001), (70_001, 1), (70_001, 9)])
def test_more_than_65535_channels_and_samples(batch: int, channels: int, last: bool) -> None:
    problem = Depthwise(
        batch, channels, 1, (1, 2, 3), (1, 2, 3), (1, 1, 1), (1, 1, 1), ((0, 0), (0, 1), (1, 1))
    )
    x, w, _, g = problem.operands()
    if last:
        x, g = channels_last(x), channels_last(g)
    a, c = x.requires_grad_(), w.requires_grad_()
    y = problem.run(a, c)
    dx, dw = torch.autograd.grad(y, (a, c), g)
    # torch's own float64 convolution takes minutes for so many groups; three taps by hand do not.
    padded = torch.nn.functional.pad(x.detach().double(), (1, 1, 0, 1))
    taps = list(itertools.product(range(2), range(3)))
    wide = {(i, j): w.detach().double()[:, :, 0, i, j, None, None] for i, j in taps}
    wide = {key: tap.unsqueeze(0) for key, tap in wide.items()}
    exact = sum(padded[..., i : i + 2, j : j + 3] * wide[i, j] for i, j in taps)
    assert_equal(y.detach(), exact, str(problem))
    wanted = torch.stack(
        [(padded[..., i : i + 2, j : j + 3] * g.double()).sum((0, 2, 3, 4)) for i, j in taps], 1
    )
    assert_equal(dw, wanted.view(dw.shape), str(problem))
    spread = torch.zeros_like(padded)
    for i, j in taps:
        spread[..., i : i + 2, j : j + 3] += g.double() * wide[i, j]
    assert_equal(dx, spread[..., :2, 1:4], str(problem))
