"""float32 on tensor cores: Toeplitz kernels with operands rounded to tf32, where that is allowed only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import cuda_nvrtc
import striate
from cuda_emulated import EmulatedCuda
from cuda_recipe import conv_recipe, emulate
from oracle import assert_within, integers
from strategies import BF16, F32, Depthwise, normals, poisoned
from striate import _call, _core
from striate.ops import _convolution, _cuda
from test_cuda_conv import BUDGETS, PASSES, check
from test_cuda_toeplitz import LINES
from test_cuda_toeplitz import problem as drawn

ROW = "cuda.toeplitz_tf32"


@dataclass(frozen=True)
class Allowed(Depthwise):
    """A problem in float32 whose products may be rounded."""

    def line(self, pass_: str, layout: str = "nchw") -> str:
        return f"{super().line(pass_, layout).replace('cpu', 'cuda')} tf32"


def problem(*shape: Any, **options: Any) -> Allowed:
    return Allowed(**vars(drawn(*shape, **options, dtype=F32)))


# Lines cut from one signal, along rows and along columns; rows aligned to 16, 8 and 4 bytes.
PROBLEMS = [
    problem((130,), (64,), batch=2, channels=3),
    problem((2501,), (33,), channels=1, padding=((32, 0),)),
    problem((98,), (40,), dilation=(2,)),
    problem((14, 14), (13, 13), batch=2),
    problem((33, 40), (31, 31), channels=1),
    problem((12, 136), (5, 51), channels=1),
    problem((40, 24), (51, 5), channels=1, batch=2),
    problem((18, 31), (17, 17), padding=((16, -1), (-2, 20)), multiplier=2),
]


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_integers_come_out_equal(case: Allowed) -> None:
    for pass_ in PASSES:
        single = replace(case, multiplier=1) if pass_ == "dx" else case
        assert conv_recipe(single.line(pass_))["row"] == ROW
        check(single, pass_, "nchw", ROW, seed=1)


def rounded(x: Tensor) -> Tensor:
    """To ten bits of fraction, ties away from zero."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(F32)


@pytest.mark.parametrize("case", [PROBLEMS[3], PROBLEMS[6], PROBLEMS[0]], ids=str)
def test_operands_are_rounded_and_sums_are_not(case: Allowed) -> None:
    """Within the bound of float32 of what the definition makes of operands rounded to nearest."""
    given = case.operands(normals)
    (x, w, _, g), bias = map(rounded, given), given[2]
    dx, dw = case.gradients(x, w, g)
    sizes = case.gradients(x.abs(), w.abs(), g.abs())
    operands = {
        "fwd": (given[0], given[1], bias),
        "dx": (given[3], given[1], None),
        "dw": (given[3], given[0], None),
    }
    made = {
        "fwd": (case.exact.forward(x, w, bias), case.exact.forward(x.abs(), w.abs(), bias.abs())),
        "dx": (dx, sizes[0]),
        "dw": (dw, sizes[1]),
    }
    for pass_, (want, magnitude) in made.items():
        out = poisoned(tuple(want.shape), F32)
        emulate(conv_recipe(case.line(pass_)), operands[pass_], (out,))
        assert_within(out, want, magnitude, case.terms[pass_], case.line(pass_))


def test_bits_do_not_depend_on_the_order_of_threads() -> None:
    case = replace(PROBLEMS[3], batch=3)
    x, _, _, g = case.operands(normals)
    outs = [poisoned(case.weight_shape, F32) for _ in range(3)]
    for seed, out in enumerate(outs):
        emulate(conv_recipe(case.line("dw")), (g, x, None), (out,), seed)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])


@pytest.mark.parametrize(("case", "passes"), [
    (problem((13, 18), (9, 9), channels=1, batch=2), ("dw",)),
    (problem((33, 12), (27, 3), channels=1), ("dx",)),
    (problem((140,), (33,), channels=1), ("fwd",)),
], ids=str)  # fmt: skip
def test_nothing_outside_the_tensors_is_touched(case: Allowed, passes: tuple[str, ...]) -> None:
    for pass_ in passes:
        check(case, pass_, "nchw", ROW, sanitize=True)


def test_without_permission_the_direct_row_runs() -> None:
    for case in PROBLEMS:
        assert conv_recipe(case.line("fwd").removesuffix(" tf32"))["row"] == "cuda.direct"
    for shape in ("i80 k31 s1 d1 p15+15", "i40x40 k7x7 s1x1 d1x1 p3+3x3+3"):
        assert conv_recipe(f"conv fwd f32 nchw cuda n1 g2 ci1 co1 {shape} tf32")["row"] == "cuda.direct"


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of compute capability 8.0 whose rows are asked for."""
    monkeypatch.setenv("STRIATE_CUDA", "1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


@pytest.fixture
def precision() -> Iterator[Any]:
    """What torch allows for convolutions, which is put back."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    yield cudnn
    cudnn.conv.fp32_precision = before


def explained(dtype: torch.dtype = F32) -> Any:
    with FakeTensorMode():
        x, w = torch.empty(2, 8, 40, 40, device="cuda"), torch.empty(8, 1, 13, 13, device="cuda")
        return striate.explain(striate.conv2d, x.to(dtype), w.to(dtype), padding=6, groups=8)


@pytest.mark.usefixtures("ampere")
def test_torch_says_what_is_allowed(precision: Any) -> None:
    precision.allow_tf32 = True
    found = explained()
    assert found.row == ROW and found.problem.endswith(" tf32")
    assert not explained(BF16).problem.endswith("tf32")
    precision.allow_tf32 = False
    assert explained().row == "cuda.direct" and not explained().problem.endswith("tf32")
    precision.allow_tf32 = True
    precision.conv.fp32_precision = "ieee"
    refused = dict(explained().refusals)
    assert explained().row == "cuda.direct" and "not allowed" in refused[ROW]


@pytest.mark.usefixtures("ampere")
def test_devices_without_tf32_have_the_ordinary_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not _cuda.tf32(torch.device("cuda", 0), F32)
    assert explained().row == "cuda.direct"
    source = conv_recipe(PROBLEMS[3].line("fwd"))["launches"][0]["source"]
    with pytest.raises(cuda_nvrtc.CompileError):
        cuda_nvrtc.compile(source, 75)


def test_gradients_carry_the_permission() -> None:
    """Through the family, first and second derivatives; integers stay exact."""
    config = "s1x1 d1x1 p6+6x6+6 g2 tf32"
    x, w, g = (integers(shape, F32, 400, seed) for seed, shape in enumerate(
        ((1, 2, 15, 15), (2, 1, 13, 13), (1, 2, 15, 15))))  # fmt: skip

    def outcome(*leaves: Tensor, config: str = config) -> list[Tensor]:
        x, w = (leaf.clone().requires_grad_() for leaf in leaves[:2])
        y = _convolution.conv(x, w, None, config)
        first = torch.autograd.grad(y, (x, w), leaves[2], create_graph=True)
        second = torch.autograd.grad(first[0].sum(), w)
        return [part.detach() for part in (y, *first, *second)]

    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patched, EmulatedCuda():
        recipe = _core.cuda_recipe
        patched.setattr(_core, "cuda_recipe", lambda line: asked.append(line) or recipe(line))  # type: ignore[func-returns-value]
        conv_recipe.cache_clear()
        got = outcome(x, w, g)
    assert [line.split()[1] for line in asked] == [*PASSES]  # the second derivative is one of these
    assert all(line.endswith(" tf32") for line in asked)
    for a, b in zip(got, outcome(*(t.double() for t in (x, w, g)), config=config[:-5]), strict=True):
        assert torch.equal(a, b.to(F32))


def test_branches_are_told() -> None:
    x, weight = torch.ones(1, 2, 40, 40), torch.ones(2, 1, 51, 5)
    words = _call.words(form="each", low=(25, 2), dilation=(1, 1), grain=0) + " pass=fwd"
    for told, text in ((" tf32=1", "mode = 1"), ("", "reg =")):
        given = [_call._given(x), _call._given(weight), None]
        recipe = _core.cuda_call_recipe("branches", words + told, given, [_call._given(x)])
        assert text in recipe["launches"][0]["source"]


NAMES = ("13x13", "31x31", "51x5", "5x51", "k128")


@pytest.mark.parametrize("name", NAMES)
def test_kernels_compile_within_their_budget(name: str) -> None:
    budgets = json.loads(BUDGETS.read_text())
    for turn, pass_ in enumerate(PASSES, NAMES.index(name)):
        about = f"toeplitz_tf32 {name} {pass_}"
        made = conv_recipe(f"conv {pass_} f32 nchw cuda {LINES[name]} tf32")
        assert made["row"] == ROW
        for arch in cuda_nvrtc.archs(name == "31x31", turn):
            if arch < 80:  # which has no such numbers
                continue
            log = cuda_nvrtc.compile(made["launches"][0]["source"], arch)[1]
            assert log.spilled == 0 and log.registers <= budgets[about], (about, arch, log)
