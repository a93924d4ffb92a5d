"""The direct CUDA row of convolution: its real text, run on the host with the launches that a device would get, and
compiled for every architecture within a budget of registers."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cuda_nvrtc
import striate
from cuda_recipe import conv_recipe, emulate
from strategies import BF16, F16, F32, F64, Depthwise, channels_last, poisoned, problems
from striate import _core

BUDGETS = Path(__file__).with_name("cuda_budgets.json")
ROW = "cuda.direct"
PASSES, LAYOUTS = ("fwd", "dx", "dw"), ("nchw", "nhwc")


def depthwise(batch, channels, multiplier, *axes, dtypes=(F32, F32)):
    """Axes as (size, kernel, stride, dilation, pads)."""
    size, kernel, stride, dilation, padding = zip(*axes, strict=True)
    return Depthwise(batch, channels, multiplier, size, kernel, stride, dilation, padding, dtypes)


PROBLEMS = [
    depthwise(2, 3, 1, (40, 7, 1, 1, (3, 3)), (37, 7, 1, 1, (3, 3))),
    depthwise(1, 33, 1, (9, 3, 2, 1, (1, 1)), (10, 3, 2, 1, (1, 0)), dtypes=(BF16, BF16)),
    depthwise(2, 2, 3, (12, 5, 1, 3, (6, 6)), (11, 3, 3, 2, (2, 1)), dtypes=(F16, F32)),
    depthwise(1, 2, 1, (14, 31, 1, 1, (15, 15)), (14, 31, 1, 1, (15, 15))),
    depthwise(1, 3, 1, (9, 5, 1, 1, (2, 2)), (70, 51, 1, 1, (25, 25)), dtypes=(F64, F64)),
    depthwise(3, 5, 1, (601, 31, 1, 1, (15, 15)), dtypes=(BF16, F32)),
    depthwise(5, 3, 2, (130, 4, 1, 1, (3, 0)), dtypes=(F16, F16)),
    depthwise(2, 2, 1, (300, 3, 1, 64, (128, 0))),
    depthwise(1, 2, 1, (90, 7, 9, 1, (-2, 4))),
    depthwise(2, 2, 1, (5, 3, 1, 1, (1, 1)), (6, 2, 2, 1, (0, 1)), (9, 3, 1, 2, (2, 2))),
]


def check(problem: Depthwise, pass_: str, layout: str, row: str = ROW, **options: int) -> None:
    """On integers, which every correct kernel adds without rounding: equality."""
    x, w, bias, g = problem.operands()
    dx, dw = problem.gradients(x, w, g)
    lay = channels_last if layout == "nhwc" else torch.Tensor.contiguous
    recipe = conv_recipe(problem.line(pass_, layout), row)
    operands, expected = {
        "fwd": ((lay(x), w, bias), problem.exact.forward(x, w, bias)),
        "dx": ((lay(g), w, None), dx),
        "dw": ((lay(g), lay(x), None), dw),
    }[pass_]
    kind = problem.dtypes[1 if pass_ == "dw" else 0]
    out = poisoned(tuple(expected.shape), kind)
    out = out if pass_ == "dw" else lay(out)
    emulate(recipe, operands, (out,), **options)
    wrong = (out != expected.to(kind)).nonzero()
    assert not len(wrong), (problem.line(pass_, layout), wrong[:5])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_every_pass_is_exact(problem, layout):
    for pass_ in PASSES:
        check(problem, pass_, layout, seed=1)


@pytest.mark.slow
@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(problems(least_batch=1), st.sampled_from(PASSES), st.sampled_from(LAYOUTS))
def test_drawn_problems_are_exact(problem, pass_, layout):
    check(problem, pass_, layout, seed=2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pass_", PASSES)
def test_nothing_outside_the_tensors_is_touched(pass_, layout):
    problem = depthwise(2, 3, 2, (11, 3, 2, 1, (1, 0)), (13, 5, 1, 2, (4, 3)))
    check(problem, pass_, layout, sanitize=True)


def test_bits_do_not_depend_on_the_order_of_threads():
    problem = PROBLEMS[0]
    x, _, _, g = (torch.randn_like(t) for t in problem.operands())
    made = []
    for seed in range(3):
        out = poisoned(problem.weight_shape, F32)
        emulate(conv_recipe(problem.line("dw"), ROW), (g, x, None), (out,), seed)
        made.append(out)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    exact = problem.exact.grad_weight(g, x, problem.kernel)
    assert (made[0] - exact).abs().max() < 1e-3


LINES = {
    "7x7": "n8 g128 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3",
    "31x31": "n8 g192 ci1 co1 i28x28 k31x31 s1x1 d1x1 p15+15x15+15",
    "3x3 s2": "n8 g192 ci1 co1 i56x56 k3x3 s2x2 d1x1 p1+1x1+1",
    "k31": "n8 g256 ci1 co1 i2048 k31 s1 d1 p15+15",
}


def cost(name: str, pass_: str, dtype: str, layout: str, arch: int) -> tuple[int, int]:
    """Most registers and most spilled bytes of the launches."""
    recipe = conv_recipe(f"conv {pass_} {dtype} {layout} cuda {LINES[name]}", ROW)
    logs = [cuda_nvrtc.compile(step["source"], arch)[1] for step in recipe["launches"]]
    return max(log.registers for log in logs), max(log.spilled for log in logs)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64"])
@pytest.mark.parametrize("name", LINES)
def test_kernels_compile_within_their_budget(name, dtype):
    budgets = json.loads(BUDGETS.read_text())
    for turn, pass_ in enumerate(PASSES, [*LINES].index(name)):
        for layout in LAYOUTS:
            for arch in cuda_nvrtc.archs(name == "7x7" and dtype == "bf16", turn):
                registers, spilled = cost(name, pass_, dtype, layout, arch)
                about = f"{name} {pass_} {dtype} {layout}"
                assert spilled == 0 and registers <= budgets[about], (about, arch, registers, spilled)


def test_the_core_compiles_and_keeps_what_it_compiled(tmp_path, monkeypatch):
    if "nvrtc_missing" in _core.cuda_status():
        pytest.skip("no NVRTC")
    monkeypatch.setenv("STRIATE_CACHE_DIR", str(tmp_path))
    source = conv_recipe(f"conv fwd f32 nchw cuda {LINES['3x3 s2']}")["launches"][0]["source"]
    code = _core.cuda_compile(source, 90)
    assert code[:4] == b"\x7fELF"
    ((name, size),) = _core.cuda_cache()
    assert size > len(code)
    assert _core.cuda_compile(source, 90) == code
    kept = tmp_path / name
    kept.write_bytes(
        kept.read_bytes().replace(b"depthwise", b"depthfool", 1)
    )  # not what the key says any more
    assert _core.cuda_compile(source, 90) == code
    assert _core.cuda_cache_clear() == 1 and not _core.cuda_cache()


def test_wrong_text_is_an_error_with_the_compilers_words():
    if "nvrtc_missing" in _core.cuda_status():
        pytest.skip("no NVRTC")
    with pytest.raises(RuntimeError, match="expected an expression"):
        _core.cuda_compile("__device__ int x = ;", 90)


def test_a_machine_without_a_device_says_what_is_missing():
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(RuntimeError, match="driver"):
        _core.cuda_prepare(f"conv fwd f32 nchw cuda {LINES['7x7']}", 0)


def test_explain_names_the_row_without_a_device():
    found = striate.explain(f"conv dw bf16 nhwc cuda {LINES['7x7']}")
    assert found.row == "cuda.direct" and found.workspace > 0
    with pytest.raises(RuntimeError, match="one input channel per group"):
        striate.explain("conv fwd f32 nchw cuda n1 g1 ci2 co1 i5 k3 s1 d1 p0+0")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_on_a_device_every_pass_is_exact(problem, monkeypatch):
    monkeypatch.setenv("STRIATE_CUDA", "1")
    x, w, bias, g = (t.cuda() for t in problem.operands())
    for lay in (torch.Tensor.contiguous, channels_last):
        y = problem.run(lay(x).requires_grad_(), w.requires_grad_(), bias)
        dx, dw = problem.gradients(*(t.detach().cpu() for t in (x, w, g)))
        assert torch.equal(y.cpu(), problem.exact.forward(x.cpu(), w.detach().cpu(), bias.cpu()).to(y.dtype))
        got = torch.autograd.grad(problem.run(x.requires_grad_(), w, None), (x, w), lay(g))
        assert torch.equal(got[0].cpu(), dx.to(x.dtype)) and torch.equal(got[1].cpu(), dw.to(w.dtype))
