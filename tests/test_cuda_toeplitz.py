"""Toeplitz kernels on tensor cores: their real text, run on the host with the launches that a device would get, and
compiled for every architecture within a budget of registers."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cuda_nvrtc
from cuda_recipe import conv_recipe, emulate
from oracle import assert_within
from strategies import BF16, F16, F32, Depthwise, normals, poisoned
from test_cuda_conv import BUDGETS, PASSES, check

ROW = "cuda.toeplitz"


def same(kernel, dilation=1):
    reach = dilation * (kernel - 1)
    return (reach // 2, reach - reach // 2)


def problem(size, kernel, batch=1, channels=2, dilation=None, padding=None, **options):
    rank = len(size)
    dilation = dilation or (1,) * rank
    padding = padding or tuple(map(same, kernel, dilation))
    dtypes = (options.get("dtype", BF16),) * 2
    multiplier = options.get("multiplier", 1)
    return Depthwise(batch, channels, multiplier, size, kernel, (1,) * rank, dilation, padding, dtypes)


def recipe(drawn: Depthwise, pass_: str):
    made = conv_recipe(drawn.line(pass_))
    assert made["row"] == ROW, drawn.line(pass_)
    return made


def exact(drawn: Depthwise, pass_: str, **options) -> None:
    recipe(drawn, pass_)
    check(drawn, pass_, "nchw", ROW, **options)


# Lines along rows, along columns and cut from one signal; planes whose rows are aligned to 16, 8, 4 and 2 bytes.
PROBLEMS = [
    problem((130,), (64,), batch=2, channels=3),
    problem((900,), (129,), dtype=F16),
    problem((5001,), (33,), channels=1, padding=((32, 0),)),
    problem((600,), (300,), channels=1, padding=((299, 0),)),
    problem((96,), (20,), dilation=(3,)),
    problem((7, 7), (7, 7), batch=11, channels=2),
    problem((14, 14), (13, 13), batch=2),
    problem((70, 56), (7, 7), dtype=F16),
    problem((33, 40), (31, 31), channels=1),
    problem((12, 136), (5, 51), channels=1),
    problem((40, 24), (51, 5), channels=1, batch=2),
    problem((24, 24), (7, 7), dilation=(2, 2), padding=((3, 5), (12, 0))),
    problem((18, 30), (17, 17), padding=((16, -1), (-2, 20)), multiplier=2),
]


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_integers_come_out_equal(case):
    for pass_ in PASSES:
        exact(replace(case, multiplier=1) if pass_ == "dx" else case, pass_, seed=1)


@st.composite
def taken(draw):
    """Problems that the row takes, few enough kinds of them that compiling does not take forever."""
    rank = draw(st.sampled_from([1, 2, 2]))
    kernel = draw(st.sampled_from([(17,), (64,)] if rank == 1 else [(7, 7), (13, 9), (3, 21), (25, 2)]))
    most = 200 if rank == 1 else 40
    size = tuple(draw(st.integers(1, most)) for _ in kernel)
    low = [draw(st.integers(0, k - 1)) for k in kernel]
    padding = tuple(
        (a, max(draw(st.integers(0, k)), k - n - a)) for a, k, n in zip(low, kernel, size, strict=True)
    )
    return problem(size, kernel, draw(st.integers(1, 3)), draw(st.integers(1, 2)), padding=padding)


@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
@given(taken(), st.sampled_from(PASSES), st.integers(0, 5))
def test_drawn_problems_are_exact(case, pass_, seed):
    exact(case, pass_, seed=seed)


@pytest.mark.parametrize("case", [PROBLEMS[6], PROBLEMS[10], PROBLEMS[1]], ids=str)
def test_real_numbers_stay_within_the_bound_of_rounding(case):
    x, w, bias, g = case.operands(normals)
    dx, dw = case.gradients(x, w, g)
    sizes = case.gradients(x.abs(), w.abs(), g.abs())
    operands = {"fwd": (x, w, bias), "dx": (g, w, None), "dw": (g, x, None)}
    made = {
        "fwd": (case.exact.forward(x, w, bias), case.exact.forward(x.abs(), w.abs(), bias.abs())),
        "dx": (dx, sizes[0]),
        "dw": (dw, sizes[1]),
    }
    for pass_, (want, magnitude) in made.items():
        out = poisoned(tuple(want.shape), case.dtypes[0])
        emulate(recipe(case, pass_), operands[pass_], (out,))
        assert_within(out, want, magnitude, case.terms[pass_], case.line(pass_))


def test_bits_do_not_depend_on_the_order_of_threads():
    case = replace(PROBLEMS[6], batch=3, dtypes=(BF16, F32))
    _, _, _, g = case.operands(normals)
    x = normals(case.input_shape, BF16, 0, 7)
    outs = [poisoned(case.weight_shape, F32) for _ in range(3)]
    for seed, out in enumerate(outs):
        emulate(recipe(case, "dw"), (g, x, None), (out,), seed)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[0], outs[0].bfloat16().float())


@pytest.mark.parametrize("case", [PROBLEMS[7], PROBLEMS[10], PROBLEMS[1]], ids=str)
def test_tensors_may_begin_at_any_element(case):
    """Slices of a contiguous tensor are aligned to nothing but their elements."""
    x, w, bias, g = case.operands()
    dx, dw = case.gradients(x, w, g)

    def behind(tensor, elements):
        room = torch.full((tensor.numel() + elements,), torch.nan, dtype=tensor.dtype)
        return room[elements:].view(tensor.shape).copy_(tensor)

    for offset in (1, 2, 4):
        for pass_, operands, want in (
            ("fwd", (x, w, bias), case.exact.forward(x, w, bias)),
            ("dx", (g, w, None), dx),
            ("dw", (g, x, None), dw),
        ):
            moved = [None if t is None else behind(t, offset) for t in operands]
            out = behind(poisoned(tuple(want.shape), case.dtypes[0]), 3)
            emulate(recipe(case, pass_), moved, (out,))
            assert torch.equal(out, want.to(out.dtype)), (pass_, offset)


@pytest.mark.parametrize(("case", "passes"), [
    (problem((13, 18), (7, 7), channels=1, batch=2), ("fwd", "dw")),
    (problem((33, 12), (27, 2), channels=1), ("dx",)),
    (problem((140,), (33,), channels=1), ("fwd", "dw")),
], ids=str)  # fmt: skip
def test_nothing_outside_the_tensors_is_touched(case, passes):
    for pass_ in passes:
        exact(case, pass_, sanitize=True)


def test_other_problems_are_left_to_other_rows():
    for line in (
        "conv fwd f32 nchw cuda n1 g2 ci1 co1 i40x40 k13x13 s1x1 d1x1 p6+6x6+6",
        "conv fwd bf16:f32 nchw cuda n1 g2 ci1 co1 i40x40 k13x13 s1x1 d1x1 p6+6x6+6",
        "conv fwd bf16 nhwc cuda n1 g2 ci1 co1 i40x40 k13x13 s1x1 d1x1 p6+6x6+6",
        "conv fwd bf16 nchw cuda n1 g2 ci1 co1 i40x40 k13x13 s2x1 d1x1 p6+6x6+6",
        "conv fwd bf16 nchw cuda n1 g2 ci1 co1 i40x40 k3x3 s1x1 d1x1 p1+1x1+1",
        "conv dx bf16 nchw cuda n1 g2 ci1 co2 i40x40 k13x13 s1x1 d1x1 p6+6x6+6",
        "conv fwd bf16 nchw cuda n1 g2 ci1 co1 i4000 k20 s1 d99 p0+0",
    ):
        assert conv_recipe(line)["row"] == "cuda.direct", line


LINES = {
    "7x7": "n8 g128 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3",
    "13x13": "n8 g256 ci1 co1 i14x14 k13x13 s1x1 d1x1 p6+6x6+6",
    "31x31": "n8 g192 ci1 co1 i28x28 k31x31 s1x1 d1x1 p15+15x15+15",
    "51x5": "n8 g128 ci1 co1 i56x56 k51x5 s1x1 d1x1 p25+25x2+2",
    "5x51": "n8 g128 ci1 co1 i56x56 k5x51 s1x1 d1x1 p2+2x25+25",
    "51x51": "n8 g128 ci1 co1 i56x56 k51x51 s1x1 d1x1 p25+25x25+25",
    "k128": "n8 g256 ci1 co1 i8192 k128 s1 d1 p127+0",
    "k512": "n8 g256 ci1 co1 i8192 k512 s1 d1 p511+0",
}


@pytest.mark.parametrize("name", LINES)
def test_kernels_compile_within_their_budget(name):
    budgets = json.loads(BUDGETS.read_text())
    for turn, pass_ in enumerate(PASSES, [*LINES].index(name)):
        about = f"toeplitz {name} {pass_}"
        made = conv_recipe(f"conv {pass_} bf16 nchw cuda {LINES[name]}")
        assert made["row"] == ROW
        for arch in cuda_nvrtc.archs(name in ("7x7", "k128"), turn):
            log = cuda_nvrtc.compile(made["launches"][0]["source"], arch)[1]
            assert log.spilled == 0 and log.registers <= budgets[about], (about, arch, log)
