"""Every public function against one oracle on every device: host memory, CUDA run on the host, and CUDA itself.

On integers results and gradients are equal; functions that cannot be exact are held to rounding in float64.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import striate
from cuda_emulated import EmulatedCuda
from cuda_recipe import call_on_host
from fft_oracle import direct
from oracle import integers
from strategies import BF16, F16, F32, F64
from striate import _call, ops
from striate.ops import _causal, _composed, _cuda, dcls
from test_causal import oracle as causal_sums
from test_dcls import literal
from test_shiftwise import expand_shift_add

Made = Tensor | Sequence[Tensor]
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
DEVICES = ["cpu", "emulated", CUDA]
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Case:
    """A call of a public function: its tensors in float64, the call, and the same mathematics in torch's operators."""

    name: str
    tensors: tuple[Tensor, ...]
    ours: Callable[..., Made]
    oracle: Callable[..., Made]
    exact: bool = True
    differentiable: bool = True
    rounded_once: bool = True
    """false where a gradient is a sum of gradients, of which each is rounded to a half type"""

    @property
    def function(self) -> str:
        return self.name.split("-")[0]


def drawn(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(integers(shape, F64, 64, seed) for seed, shape in enumerate(shapes))


def distinct(*shape: int) -> Tensor:
    """Integers of which no two are equal, so that every window has one extreme."""
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(0))
    return order.reshape(shape).double()


def convolutions(rank: int) -> Iterator[Case]:
    size, kernel = (9, 8, 5)[:rank], (3, 4, 2)[:rank]
    options: dict[str, Any] = {"stride": (2, 1, 1)[:rank], "padding": 1, "dilation": (1, 2, 1)[:rank]}
    name, x, wide, own = f"conv{rank}d", (2, 3, *size), (6, 1, *kernel), striate
    grouped = options | {"groups": 3}
    yield Case(
        name,
        drawn(x, wide, (6,)),
        lambda *t: getattr(own, name)(*t, **grouped),
        lambda *t: CONV[rank](*t, **grouped),
    )
    yield Case(
        f"depthwise_{name}",
        drawn(x, (6, *kernel), (6,)),
        lambda *t: getattr(own, f"depthwise_{name}")(*t, **options),
        lambda x, w, b: CONV[rank](x, w.unsqueeze(1), b, **grouped),
    )
    transposed = f"conv_transpose{rank}d"
    yield Case(
        transposed,
        drawn(x, (3, 1, *kernel), (3,)),
        lambda *t: getattr(own, transposed)(*t, **grouped),
        lambda *t: TRANSPOSE[rank](*t, **grouped),
    )


def poolings(rank: int) -> Iterator[Case]:
    x = (distinct(1, 2, *(7, 6, 5)[-rank:]),)
    settings = (2, 2, 1)
    for mode, oracle in {
        "max": lambda x: MAX[rank](x, *settings),
        "min": lambda x: -MAX[rank](-x, *settings),
        "avg": lambda x: AVG[rank](x, *settings),
        "sum": lambda x: AVG[rank](x, *settings) * 2**rank,
    }.items():
        name = f"{mode}_pool{rank}d"
        yield Case(name, x, lambda x, name=name: getattr(striate, name)(x, *settings), oracle)
    name = f"sum_pool{rank}d"
    ones = torch.ones(2, 1, *(2,) * rank, dtype=F64)
    yield Case(
        f"{name}-dilated",
        x,
        lambda x: getattr(striate, name)(x, 2, 1, 1, 2),
        lambda x: CONV[rank](x, ones, padding=1, dilation=2, groups=2),
    )


def stepped(x: Tensor, state: Tensor, w: Tensor, b: Tensor) -> Made:
    history = w.shape[1] - 1
    y = causal_sums(x, w, b, state[..., state.shape[2] - history :])
    return y, torch.cat([state, x], -1)[..., x.shape[2] :]


def circular(x: Tensor, state: Tensor, w: Tensor, b: Tensor) -> Made:
    """Steps 3 of row 1 and 0 of row 0; the sample in the middle is padding."""
    size, history, later = state.shape[2], w.shape[1] - 1, state.clone()
    y = torch.zeros_like(x)
    for sample, row, first in ((0, 1, 3), (2, 0, 0)):
        past = state[row][:, [(first + back) % size for back in range(-history, 0)]]
        y[sample] = causal_sums(x[sample : sample + 1], w, b, past[None])[0]
        for step in range(x.shape[2]):
            later[row, :, (first + step) % size] = x[sample, :, step]
    return y, later


def update(x: Tensor, state: Tensor, w: Tensor, b: Tensor, **options: Any) -> Made:
    state = state.clone()
    with torch.no_grad():
        y = striate.causal_conv1d_update(x, state, w, b, **options)
    return y, state


def causals() -> Iterator[Case]:
    x, w, b, states = drawn((2, 3, 9), (3, 4), (3,), (2, 3, 3))
    run = striate.causal_conv1d
    marks = torch.tensor([[0, 0, 1, 1, 1, -1, -1, 2, 2], [5, 5, 5, 5, 0, 0, 0, 0, 0]])
    cuts = torch.tensor([0, 4, 4, 9])
    yield Case("causal_conv1d", (x, w, b), run, causal_sums)
    yield Case(
        "causal_conv1d-states",
        (x, w, b, states),
        lambda x, w, b, s: run(x, w, b, initial_states=s, return_final_states=True),
        lambda x, w, b, s: (causal_sums(x, w, b, s), x[..., -3:]),
    )
    yield Case(
        "causal_conv1d-numbers",
        (x, w, b),
        lambda x, w, b: run(x, w, b, seq_idx=marks.to(x.device)),
        lambda x, w, b: causal_sums(x, w, b, seq_idx=marks),
    )
    yield Case(
        "causal_conv1d-cuts",
        (x[:1], w, b, integers((3, 3, 3), F64, 64, 7)),
        lambda x, w, b, s: run(x, w, b, initial_states=s, cu_seqlens=cuts.to(x.device)),
        lambda x, w, b, s: causal_sums(x, w, b, s, cu_seqlens=cuts),
    )
    yield Case(
        "causal_conv1d-silu",
        (x, w, b),
        lambda x, w, b: run(x, w, b, activation="silu"),
        lambda x, w, b: F.silu(causal_sums(x, w, b)),
        exact=False,
    )
    steps, state = drawn((3, 3, 2), (3, 3, 5))
    yield Case("causal_conv1d_update", (steps, state, w, b), update, stepped, differentiable=False)
    at, rows = torch.tensor([3, 9, 0]), torch.tensor([1, -1, 0])
    yield Case(
        "causal_conv1d_update-circular",
        (steps, state, w, b),
        lambda x, *t: update(
            x, *t, cache_seqlens=at.to(x.device), conv_state_indices=rows.to(x.device, torch.int32)
        ),
        circular,
        differentiable=False,
    )


def transforms(rank: int) -> Iterator[Case]:
    size, taps = (13, 6, 5)[:rank], (21, 3, 4)[:rank]
    for padding in ("causal", "same", "full", "circular")[rank > 1 :]:
        for order in ("correlation", "convolution"):
            yield Case(
                f"fft_conv{rank}d-{padding}-{order}",
                drawn((2, 3, *size), (1 if order == "convolution" else 3, *taps)),
                lambda x, k, p=padding, o=order: getattr(striate, f"fft_conv{rank}d")(
                    x, k, padding=p, order=o
                ),
                lambda x, k, p=padding, o=order: direct(x, k, p, o),
                exact=False,
            )


def constructions() -> Iterator[Case]:
    made = torch.Generator().manual_seed(0)
    shape = (4, 2, 3)
    weight, P, SIG = (torch.randn(*lead, *shape, generator=made, dtype=F64) for lead in ((), (2,), (2,)))
    for version in ("v0", "v1", "max", "gauss"):
        tensors = (weight, P, SIG) if version in ("max", "gauss") else (weight, P)
        yield Case(
            f"dcls_kernel-{version}",
            tensors,
            lambda *t, v=version: striate.dcls_kernel(*t, dilated_kernel_size=(5, 7), version=v),
            lambda w, p, s=None, v=version: literal(w, p, s, (5, 7), v),
            exact=False,
        )
    permutations = striate.shiftwise_permutations(2, 7, 3, 2)
    yield Case(
        "shiftwise_conv2d",
        drawn((1, 2, 8, 9), (2, 6, 1, 3, 3)),
        lambda x, w: striate.shiftwise_conv2d(x, w, big_kernel=7, permutations=permutations.to(x.device)),
        lambda x, w: expand_shift_add(x, w, 7, permutations),
        rounded_once=False,
    )


CASES = [
    *(case for rank in (1, 2, 3) for case in (*convolutions(rank), *poolings(rank), *transforms(rank))),
    *causals(),
    *constructions(),
]
# Of every family one that also runs the text of its CUDA rows on the host; tests/test_cuda_*.py run them all.
ROWS_RUN = {"causal_conv1d-states", "max_pool2d", "avg_pool3d", "dcls_kernel-max", "shiftwise_conv2d"}


def flat(made: Made) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)


def outcome(case: Case, function: Callable[..., Made], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Results, then the gradient of their sum, weighted by small integers, in every tensor."""
    leaves = [tensor.detach().clone().requires_grad_(case.differentiable) for tensor in tensors]
    results = flat(function(*leaves))
    if not case.differentiable:
        return results
    factors = [integers(tuple(y.shape), y.dtype, 64, 40 + n).to(y.device) for n, y in enumerate(results)]
    grads = torch.autograd.grad(results, leaves, factors)
    return [tensor.detach() for tensor in (*results, *grads)]


def compare(case: Case, function: Callable[..., Made], tensors: Sequence[Tensor]) -> None:
    expected = outcome(case, case.oracle, [tensor.cpu().double() for tensor in tensors])
    for number, (got, want) in enumerate(zip(outcome(case, function, tensors), expected, strict=True)):
        got = got.cpu()
        if case.exact:
            assert torch.equal(got, want.to(got.dtype)), (case.name, number, got.dtype)
        else:
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


@contextlib.contextmanager
def on(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the public functions run on host tensors is what they would run on the device."""
    if device != "emulated":
        yield
        return
    if _cuda.own_rows():
        monkeypatch.setattr(_call, "on_device", call_on_host)
        with EmulatedCuda():
            yield
        return
    monkeypatch.setattr(_causal, "causal", _composed.causal)
    monkeypatch.setattr(
        dcls, "_kernel", lambda weight, P, SIG, *statics: dcls.formula(weight, P, SIG, statics)
    )
    with EmulatedCuda():
        yield


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_oracle(case: Case, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "cuda" if device == "cuda" else "cpu"
    # On the host the kernels of every dtype are tested by themselves.
    wide = device == "emulated" or not case.rounded_once
    dtypes = [F64] if not case.exact else [F32] if wide else [F32, BF16, F16]
    both = device == "cuda" or (device == "emulated" and case.name in ROWS_RUN)
    for own_rows in ("0", "1") if both else ("0",):
        monkeypatch.setenv("STRIATE_CUDA", own_rows)
        for dtype in dtypes:
            with on(device, monkeypatch):
                compare(case, case.ours, [tensor.to(place, dtype) for tensor in case.tensors])


def test_every_public_function_has_a_case() -> None:
    assert {case.function for case in CASES} == {*ops.__all__} - {"shiftwise_permutations"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cuda_tensors_are_taken(case: Case) -> None:
    """Shapes, types and devices agree on CUDA tensors without memory, and what runs has a name."""
    kind = F32 if case.exact else F64
    with FakeTensorMode(allow_non_fake_inputs=True):
        tensors = [torch.empty(tensor.shape, dtype=kind, device="cuda") for tensor in case.tensors]
        made = flat(case.ours(*tensors))
        assert all(tensor.is_cuda and tensor.dtype == kind for tensor in made)
    expected = flat(case.oracle(*case.tensors))
    assert [tensor.shape for tensor in made] == [tensor.shape for tensor in expected]


@pytest.mark.parametrize("name", sorted({*ops.__all__} - {"shiftwise_permutations"}))
def test_explain_names_what_runs_on_cuda(name: str) -> None:
    case = next(case for case in CASES if case.function == name)
    with FakeTensorMode():
        tensors = [torch.empty(tensor.shape, device="cuda") for tensor in case.tensors]
        grouped = {"groups": 3} if name.startswith("conv") else {}
        found = striate.explain(getattr(striate, name), *tensors, **grouped)
    assert found.row == "torch" and "cuda" in found.why


@pytest.mark.parametrize("version", ["v0", "max"])
def test_kernel_construction_for_the_dispatcher(version: str) -> None:
    """What the dispatcher runs for CUDA tensors, on tensors of the host."""
    case = next(case for case in CASES if case.name == f"dcls_kernel-{version}")
    weight, P, *rest = case.tensors
    SIG = rest[0] if rest else None
    statics = ([5, 7], "scatter" if version == "v0" else "triangle", 1.0, list(dcls.axes_of(version, 2)))
    grad = integers((4, 2, 5, 7), F64, 64, 3)
    operators = torch.ops.striate
    for op, operands in (
        (operators.dcls_kernel.default, (weight, P, SIG)),
        (operators.dcls_kernel_grad.default, (grad, weight, P, SIG)),
    ):
        want = op(*operands, *statics)
        got = op.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *operands, *statics)
        assert got.stride() == want.stride()
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["each", "sum", "split"])
def test_branches_for_the_dispatcher(form: str) -> None:
    """What the dispatcher runs for CUDA tensors, on tensors of the host."""
    operators, cuda = torch.ops.striate, torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    channels = (2, 3) if form == "split" else (6, 6)
    x, weights = drawn((2, 6, 9, 8))[0], drawn((channels[0], 1, 3, 4), (channels[1], 1, 5, 1))
    biases, statics = drawn((channels[0],), (channels[1],)), ([1, 2, 4, 0], [1, 1, 2, 1], form)
    grads = drawn(*[(2, 6, 9, 8)] * (2 if form == "each" else 1))
    for op, operands in (
        (operators.branches.default, (x, weights, biases, *statics, 0)),
        (operators.branches_grad_input.default, (grads, weights, *statics, 0)),
        (operators.branches_grad_weight.default, (grads, x, weights, True, *statics)),
    ):
        got, want = (flat(run(*operands)) for run in (op, lambda *t, op=op: op.redispatch(cuda, *t)))
        assert len(got) == len(want) and all(map(torch.equal, got, want)), op


def test_every_operator_has_a_kernel_for_cuda() -> None:
    names = [schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("striate::")]
    assert len(names) >= 15
    missing = [name for name in names if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")]
    assert not missing
