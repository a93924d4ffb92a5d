"""The torch-free C interface, through cffi, on numpy arrays."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cffi
import ml_dtypes
import numpy as np
import pytest

from striate import _core

HEADER = Path(__file__).resolve().parent.parent / "include" / "striate.h"
DTYPES = {"f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
PASSES = ("fwd", "dx", "dw")

Array = np.ndarray[Any, Any]


def declarations() -> str:
    """The header without what is the preprocessor's."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    text = re.sub(r'extern "C" \{|^\}$', "", text, flags=re.MULTILINE)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


ffi = cffi.FFI()
ffi.cdef(declarations())
library = ffi.dlopen(_core.__file__)


def run(line: str, arrays: Sequence[Array | None], workers: int = 1) -> tuple[int, str]:
    """Status and error text of a call; ``arrays`` are first, second, bias and out."""
    error = ffi.new("char[300]")
    first, second, bias, out = (
        ffi.NULL if a is None else ffi.cast("void *", a.__array_interface__["data"][0]) for a in arrays
    )
    status = library.striate_conv(line.encode(), first, second, bias, out, workers, error, 300)
    return status, ffi.string(error).decode()


def literal(x: Array, w: Array, g: Array, shape: dict[str, int]) -> dict[str, Array]:
    """All three passes of a 2-D depthwise convolution from the definition; [n, c, i0, i1], [c, k0, k1]."""
    made = {"fwd": np.zeros(g.shape), "dx": np.zeros(x.shape), "dw": np.zeros(w.shape)}
    s, d, p = shape["s"], shape["d"], shape["p"]
    for o0, o1, k0, k1 in np.ndindex(*g.shape[2:], *w.shape[1:]):
        i0, i1 = o0 * s + k0 * d - p, o1 * s + k1 * d - p
        if 0 <= i0 < x.shape[2] and 0 <= i1 < x.shape[3]:
            made["fwd"][:, :, o0, o1] += x[:, :, i0, i1] * w[:, k0, k1]
            made["dx"][:, :, i0, i1] += g[:, :, o0, o1] * w[:, k0, k1]
            made["dw"][:, k0, k1] += (g[:, :, o0, o1] * x[:, :, i0, i1]).sum(0)
    return made


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass_equals_the_definition_for_any_number_of_workers(dtype: str, layout: str) -> None:
    draw = np.random.default_rng(1)
    n, c, size, kernel = 3, 9, (13, 10), (3, 4)
    shape = {"s": 2, "d": 2, "p": 3}
    out = [(i + 6 - 2 * (k - 1) - 1) // 2 + 1 for i, k in zip(size, kernel, strict=True)]
    x = draw.integers(-2, 3, (n, c, *size)).astype(np.float64)
    w = draw.integers(-2, 3, (c, *kernel)).astype(np.float64)
    g = draw.integers(-1, 2, (n, c, *out)).astype(np.float64)
    bias = draw.integers(-2, 3, c).astype(np.float64)
    exact = literal(x, w, g, shape)
    for name in ("fwd", "dx"):
        exact[name] += bias[:, None, None]

    def stored(array: Array, weight: bool = False) -> Array:
        moved = np.moveaxis(array, 1, -1) if layout == "nhwc" and not weight else array
        return np.ascontiguousarray(moved).astype(DTYPES[dtype])

    b = stored(bias, weight=True)
    operands = {
        "fwd": (stored(x), stored(w, weight=True), b),
        "dx": (stored(g), stored(w, weight=True), b),
        "dw": (stored(g), stored(x), None),
    }
    for name in PASSES:
        line = f"conv {name} {dtype} {layout} cpu n{n} g{c} ci1 co1 i13x10 k3x4 s2x2 d2x2 p3+3x3+3"
        want = stored(exact[name], weight=name == "dw")
        for workers in (1, 2, 7):
            got = np.full_like(want, np.nan)
            assert run(line, (*operands[name], got), workers) == (0, "")
            assert got.tobytes() == want.tobytes() or np.array_equal(got, want), (name, workers)


def test_real_numbers_give_the_same_bits_for_any_number_of_workers() -> None:
    draw = np.random.default_rng(2)
    x, g = (draw.standard_normal((4, 16, 40, 40)).astype(np.float32) for _ in range(2))
    w = draw.standard_normal((16, 7, 7)).astype(np.float32)
    for name, first, second, like in (("fwd", x, w, x), ("dx", g, w, x), ("dw", g, x, w)):
        line = f"conv {name} f32 nchw cpu n4 g16 ci1 co1 i40x40 k7x7 s1x1 d1x1 p3+3x3+3"
        results = []
        for workers in (1, 2, 7, 1000):
            out = np.full_like(like, np.nan)
            assert run(line, (first, second, None, out), workers) == (0, "")
            results.append(out.tobytes())
        assert len(set(results)) == 1, name


def test_grouped_and_wide() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    w = np.ones((2, 2, 3), np.float32)
    out = np.empty((1, 2, 1), np.float32)
    assert run("conv fwd f32 nchw cpu n1 g2 ci2 co1 i3 k3 s1 d1 p0+0", (x, w, None, out)) == (0, "")
    assert out.ravel().tolist() == [15, 51]
    ones = np.ones((300, 1, 2), ml_dtypes.bfloat16)
    dw = np.empty((1, 1, 1), np.float32)
    line = "conv dw bf16 nchw cpu n300 g1 ci1 co1 i2 k1 s1 d1 p0+0 wide"
    assert run(line, (ones, ones, None, dw)) == (0, "")
    assert dw.item() == 600
    assert run(line.replace(" wide", "").replace("bf16", "bf16:f32"), (ones, ones, None, dw)) == (0, "")
    assert dw.item() == 600


def test_eight_threads_at_once() -> None:
    x, w = np.ones((2, 32, 30, 30), np.float32), np.ones((32, 3, 3), np.float32)
    line = "conv fwd f32 nchw cpu n2 g32 ci1 co1 i30x30 k3x3 s1x1 d1x1 p0+0x0+0"

    def work(workers: int) -> bool:
        good = True
        for _ in range(20):
            out = np.empty((2, 32, 28, 28), np.float32)
            good &= run(line, (x, w, None, out), workers) == (0, "") and bool((out == 9).all())
        return good

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(1, 9)))


GOOD = "conv fwd f32 nchw cpu n1 g1 ci1 co1 i4 k2 s1 d1 p0+0"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pool fwd", "conv"),
        (GOOD.replace("fwd", "forward"), "pass"),
        (GOOD.replace("k2", "k9"), "padded input"),
        (GOOD.replace("s1", "s0"), "stride"),
        (GOOD + " wide", "weight gradient"),
        (GOOD.replace("cpu", "cuda"), "device"),
        (GOOD.replace("n1", "n99999999999999999999"), "integer"),
        ("", "conv"),
    ],
)
def test_bad_lines_answer_one_and_say_why(line: str, words: str) -> None:
    x = np.ones(4, np.float32)
    status, text = run(line, (x, x, None, x))
    assert status == 1
    assert words in text
    assert (
        library.striate_explain(line.encode(), ffi.NULL, 0) == (0 if "device" in words else 1)
        or "cuda" in line
    )


def test_bad_addresses_and_counts() -> None:
    x = np.ones(8, np.float32)
    odd = x.view(np.uint8)[1:]
    for arrays, word in (
        ((None, x, None, x), "first"),
        ((x, None, None, x), "second"),
        ((x, x, None, None), "out"),
        ((odd, x, None, x), "first"),
        ((x, x, odd, x), "bias"),
    ):
        status, text = run(GOOD, arrays)
        assert (status, word in text) == (1, True), text
    status, text = run(GOOD.replace("fwd", "dw"), (x, x, x, x))
    assert (status, "bias" in text) == (1, True)
    status, text = run(GOOD, (x, x, None, x), workers=0)
    assert (status, "workers" in text) == (1, True)
    assert library.striate_conv(ffi.NULL, *([ffi.NULL] * 4), 1, ffi.NULL, 0) == 1
    short = ffi.new("char[6]")
    assert library.striate_conv(b"x", *([ffi.NULL] * 4), 1, short, 6) == 1
    assert len(ffi.string(short)) == 5


def test_explain_and_version() -> None:
    assert ffi.string(library.striate_version()).decode() == _core.version
    text = ffi.new("char[4000]")
    assert library.striate_explain(GOOD.encode(), text, 4000) == 0
    row, *refusals = ffi.string(text).decode().splitlines()
    known = _core.explain(GOOD)
    assert row == known["row"]
    assert [tuple(line.split(": ", 1)) for line in refusals] == known["refusals"]


def test_axis_walks_meet_in_the_defined_pairs() -> None:
    walk = ffi.new("int64_t[5]")
    for size, kernel, stride, dilation, lo, hi in (
        (7, 3, 2, 1, 1, 1),
        (9, 2, 3, 2, -1, 4),
        (5, 4, 1, 3, 6, 0),
    ):
        axis = (size, kernel, stride, dilation, lo, hi)
        output = (size + lo + hi - dilation * (kernel - 1) - 1) // stride + 1
        triples = {(o, k, o * stride + k * dilation - lo) for o in range(output) for k in range(kernel)}
        triples = {t for t in triples if 0 <= t[2] < size}
        for number, extent in enumerate((output, size, kernel)):
            found = set()
            for p in range(extent):
                assert library.striate_axis_walk(number, axis, p, walk) == 0
                a0, a_step, b0, b_step, length = walk
                pairs = [(a0 + n * a_step, b0 + n * b_step) for n in range(length)]
                found |= {((p, b, a), (a, b, p), (a, p, b))[number] for a, b in pairs}
            assert found == triples
    assert library.striate_axis_walk(3, (7, 3, 2, 1, 1, 1), 0, walk) == 1
    assert library.striate_axis_walk(0, (7, 3, 2, 1, 1, 1), 99, walk) == 1
    assert library.striate_axis_walk(0, (7, 3, 0, 1, 1, 1), 0, walk) == 1
    assert library.striate_axis_walk(0, ffi.NULL, 0, walk) == 1
