"""The device's axis arithmetic, compiled for the host, against the definition and the library's own."""

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from striate import _core

HEADER = Path(__file__).resolve().parent.parent / "cuda" / "axis.cuh"
WRAPPER = """
#include "axis.cuh"
using namespace striate;
extern "C" void get_walk(const Axis* axis, int pass, i64 p, Walk* out) { *out = walk(*axis, Pass(pass), p); }
extern "C" i64 get_sweep_count(const Axis* axis, int pass) { return sweep_count(*axis, Pass(pass)); }
extern "C" void get_sweep(const Axis* axis, int pass, i64 index, Sweep* out) {
    *out = sweep(*axis, Pass(pass), index);
}
extern "C" i64 get_taps_inside(const Axis* axis, i64 o) { return taps_inside(*axis, o); }
extern "C" i64 get_first_source(const Axis* axis, i64 o) { return first_source(sweep(*axis, Pass::Fwd, 0), o); }
extern "C" void contract(const Axis* axis, int pass, const double* a, const double* b, double* out) {
    for (i64 p = 0; p < extent(*axis, Pass(pass)); ++p) {
        const Walk w = walk(*axis, Pass(pass), p);
        out[p] = 0;
        for (i64 n = 0; n < w.len; ++n) out[p] += a[w.a0 + n * w.a_step] * b[w.b0 + n * w.b_step];
    }
}
"""
FWD, DX, DW = range(3)
PASSES = ("fwd", "dx", "dw")
Axis = ctypes.c_longlong * 7
Walk = ctypes.c_longlong * 5
Sweep = ctypes.c_longlong * 9


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("axis")
    (folder / "wrapper.cpp").write_text(WRAPPER)
    warnings = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    sanitizer = ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-static-libubsan"]
    sources = ["-shared", "-fPIC", f"-I{HEADER.parent}", "wrapper.cpp", "-o", "axis.so"]
    subprocess.run([compiler, *warnings, *sanitizer, *sources], check=True, cwd=folder)
    library = ctypes.CDLL(str(folder / "axis.so"))
    for function in (library.get_sweep_count, library.get_taps_inside, library.get_first_source):
        function.restype = ctypes.c_longlong
    return library


def axes(count, seed):
    """Random valid axes as (input, kernel, output, stride, dilation, pad_lo, pad_hi)."""
    draw = random.Random(seed)
    while count:
        size, kernel, stride, dilation = (draw.randint(1, top) for top in (20, 9, 6, 6))
        lo, hi = draw.randint(-3, 12), draw.randint(-3, 12)
        span = size + lo + hi - dilation * (kernel - 1) - 1
        if span >= 0:
            count -= 1
            yield size, kernel, span // stride + 1, stride, dilation, lo, hi


def definition(axis):
    """All meeting triples (output, tap, input)."""
    size, kernel, output, stride, dilation, lo, _ = axis
    every = ((o, k, o * stride + k * dilation - lo) for o in range(output) for k in range(kernel))
    return {triple for triple in every if 0 <= triple[2] < size}


def test_walks_meet_in_the_defined_triples(device):
    for axis in axes(3000, seed=1):
        want, raw, walk = definition(axis), Axis(*axis), Walk()
        for number, extent in ((FWD, axis[2]), (DX, axis[0]), (DW, axis[1])):
            got = []
            for p in range(extent):
                device.get_walk(raw, number, ctypes.c_longlong(p), walk)
                a0, a_step, b0, b_step, length = walk
                pairs = [(a0 + n * a_step, b0 + n * b_step) for n in range(length)]
                got += [((p, b, a), (a, b, p), (a, p, b))[number] for a, b in pairs]
            assert len(got) == len(want), (PASSES[number], axis)
            assert set(got) == want, (PASSES[number], axis)


def test_sweeps_produce_every_position_once_from_the_defined_triples(device):
    for axis in axes(3000, seed=2):
        want, raw, sweep = definition(axis), Axis(*axis), Sweep()
        for number, extent, source in ((FWD, axis[2], axis[0]), (DX, axis[0], axis[2])):
            got, produced = set(), []
            for index in range(device.get_sweep_count(raw, number)):
                device.get_sweep(raw, number, ctypes.c_longlong(index), sweep)
                out0, out_step, outs, src0, src_step, reach_step, tap0, tap_step, taps = sweep
                for j in range(outs):
                    out = out0 + j * out_step
                    produced.append(out)
                    for t in range(taps):
                        src, k = src0 + j * src_step + t * reach_step, tap0 + t * tap_step
                        assert 0 <= k < axis[1]
                        if 0 <= src < source:
                            got.add((out, k, src) if number == FWD else (src, k, out))
            assert sorted(produced) == list(range(extent)), (PASSES[number], axis)
            assert got == want, (PASSES[number], axis)


def test_what_pooling_asks_of_a_window_is_in_its_walk(device):
    for axis in axes(2000, seed=4):
        raw, walk = Axis(*axis), Walk()
        for o in map(ctypes.c_longlong, range(axis[2])):
            device.get_walk(raw, FWD, o, walk)
            assert device.get_taps_inside(raw, o) == walk[4], axis
            assert device.get_first_source(raw, o) == walk[0], axis


def test_contractions_equal_those_of_the_library(device):
    draw = np.random.default_rng(3)
    for axis in axes(1000, seed=3):
        size, kernel, output, stride, dilation, lo, hi = axis
        sizes = {"input": size, "weight": kernel, "output": output}
        roles = (("input", "weight", "output"), ("output", "weight", "input"), ("output", "input", "weight"))
        for number, (first, second, produced) in enumerate(roles):
            a, b = (draw.integers(-8, 9, sizes[role]).astype(np.float64) for role in (first, second))
            here, there = np.full(sizes[produced], np.nan), np.full(sizes[produced], np.nan)
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, here)]
            device.contract(Axis(*axis), number, *pointers)
            shape = f"n1 g1 ci1 co1 i{size} k{kernel} s{stride} d{dilation} p{lo}+{hi}"
            line = f"conv {PASSES[number]} f64 nchw cpu {shape}"
            _core.run(line, there.ctypes.data, a.ctypes.data, b.ctypes.data, 0, 1)
            assert np.array_equal(here, there), line
