"""Pooling: equal to torch where torch is exact, equal to float64 on integers, on every row, and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import striate
from oracle import UNIT, integers
from strategies import MEMORY, any_way, host_rows
from striate import _core
from striate.ops import pool

ISAS = sorted({row["isa"] for row in host_rows("pool")})
every_row = pytest.mark.parametrize("rows", [f"[.]{isa}$" for isa in (*ISAS, "reference")])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
R, T, V = RuntimeError, TypeError, ValueError


@pytest.fixture(scope="module", autouse=True)
def ours() -> Any:
    """Nothing here is left to torch for its speed."""
    kept = pool._SHARED, pool._SHARED_SCATTERED
    pool._SHARED = pool._SHARED_SCATTERED = 0
    yield
    pool._SHARED, pool._SHARED_SCATTERED = kept


def test_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_SHARED", 6)
    monkeypatch.setattr(pool, "_SHARED_SCATTERED", 12)
    x = torch.randn(2, 8, 12, 12).to(memory_format=torch.channels_last)

    def reason(mode: str, x: Tensor, kernel: int, stride: int, dilation: int = 1) -> str:
        call = pool.CALLS[mode, 2]
        return pool._torch_reason(call, x, pool._windows(call, kernel, stride, 0, dilation, False))

    assert reason("max", x, 3, 2) == "channels last, 2.25 windows to a number"
    assert not reason("max", x, 3, 1) and not reason("max", x, 3, 2, dilation=2)
    assert not reason("sum", x, 2, 2) and not reason("max", x.contiguous(), 3, 2)
    assert "9 windows" in reason("max", x.requires_grad_(), 3, 1) and not reason("avg", x, 3, 1)
    assert torch.equal(striate.max_pool2d(x, 3, 2), F.max_pool2d(x, 3, 2))


@pytest.fixture
def forced(rows: str) -> Any:
    _core.set_kernels(rows)
    yield
    _core.set_kernels(None)


def function(module: Any, mode: str, rank: int) -> Callable[..., Any]:
    return getattr(module, f"{mode}_pool{rank}d")


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    rank = draw(st.integers(1, 3))
    top = {1: 300, 2: 36, 3: 12}[rank]
    each = lambda values: tuple(draw(values) for _ in range(rank))  # noqa: E731
    kernel = each(st.sampled_from([1, 2, 3, 3, 4, 5, 7, 9, 12, 17]))
    made = {
        "rank": rank,
        "kernel": kernel,
        "stride": each(st.sampled_from([1, 1, 2, 3, 5])),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "dilation": each(st.sampled_from([1, 1, 2, 3])),
        "ceil": draw(st.booleans()),
        "shape": (
            draw(st.integers(0, 3)),
            draw(st.sampled_from([1, 2, 3, 17, 65])),
            *each(st.integers(1, top)),
        ),
        "dtype": draw(st.sampled_from(DTYPES)),
        "way": draw(any_way),
    }
    made["args"] = tuple(made[name] for name in ("kernel", "stride", "padding", "dilation", "ceil"))
    return made


def fits(p: dict[str, Any]) -> bool:
    """Every window is smaller than the padded input."""
    axes = zip(p["shape"][2:], *p["args"][:4], strict=True)
    return all(i + 2 * pad >= d * (k - 1) + 1 for i, k, _, pad, d in axes)


def made(p: dict[str, Any], terms: int = 0) -> Tensor:
    terms = terms or math.prod(p["kernel"])
    return MEMORY[p["way"]](integers(p["shape"], p["dtype"], terms, 1))


def with_taps(p: dict[str, Any]) -> Tensor:
    """Which windows have a position inside, along all axes."""
    inside = torch.ones(1, 1, *p["shape"][2:], dtype=torch.float64)
    return function(F, "max", p["rank"])(inside, *p["args"]) > 0


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(77), b.nan_to_num(77)) and torch.equal(a.isnan(), b.isnan())


SPECIAL = [None, math.nan, -math.inf, math.inf]


@every_row
@pytest.mark.usefixtures("forced")
@given(p=problems(), special=st.sampled_from(SPECIAL))
def test_max_is_torchs(p: dict[str, Any], special: float | None) -> None:
    check_max(p, special)


def check_max(p: dict[str, Any], special: float | None) -> None:
    x = made(p)
    if special is not None and x.numel():
        x = x.clone()
        generator = torch.Generator().manual_seed(2)
        x[torch.rand(x.shape, generator=generator) < 0.1] = special
    try:
        values, indices = function(F, "max", p["rank"])(x, *p["args"], return_indices=True)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            function(striate, "max", p["rank"])(x, *p["args"])
        return
    got, where = function(striate, "max", p["rank"])(x, *p["args"], return_indices=True)
    assert same(got, values), p
    # What torch gives as the position of nothing depends on the memory order.
    known = with_taps(p).expand(indices.shape)
    assert where.dtype == torch.int64 and torch.equal(where[known], indices[known]), p
    least, place = function(striate, "min", p["rank"])(-x, *p["args"], return_indices=True)
    assert same(least, -values) and torch.equal(place, where), p
    ours = function(striate, "max", p["rank"])(x, *p["args"])
    assert same(ours, values) and ours.stride() == got.stride()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d], ids=["ncdhw", "ndhwc"])
def test_positions_count_through_all_slices(memory: torch.memory_format) -> None:
    x = integers((2, 3, 4, 9, 17), torch.float32, 9, 5).to(memory_format=memory).requires_grad_()
    y, where = striate.max_pool3d(x, (1, 3, 3), (1, 2, 1), return_indices=True)
    want, indices = F.max_pool3d(x.detach().contiguous(), (1, 3, 3), (1, 2, 1), return_indices=True)
    assert torch.equal(y, want) and torch.equal(where, indices)
    g = integers(tuple(y.shape), torch.float32, 9, 6)
    (found,) = torch.autograd.grad(y, x, g)
    known = x.detach().double().contiguous().requires_grad_()
    (wanted,) = torch.autograd.grad(F.max_pool3d(known, (1, 3, 3), (1, 2, 1)), known, g.double())
    assert torch.equal(found.double(), wanted)


def oracle(
    mode: str, x: Tensor, p: dict[str, Any], include: bool = True, override: int | None = None
) -> Tensor:
    """The sum or mean of windows, in float64."""
    kernel, stride, padding, _, ceil = p["args"]
    rank, lift = p["rank"], p["rank"] == 1
    if mode == "sum":
        override = 1
    if lift and override is not None:
        kernel, stride, padding, x = (1, *kernel), (1, *stride), (0, *padding), x.unsqueeze(2)
        return F.avg_pool2d(x, kernel, stride, padding, ceil, include, override).squeeze(2)
    extra = () if lift else (override,)
    return function(F, "avg", rank)(x, kernel, stride, padding, ceil, include, *extra)


@every_row
@pytest.mark.usefixtures("forced")
@given(p=problems(), include=st.booleans(), override=st.sampled_from([None, 3, -2]))
def test_sums_and_their_gradients_are_exact(p: dict[str, Any], include: bool, override: int | None) -> None:
    check_sums(p, include, override)


def check_sums(p: dict[str, Any], include: bool, override: int | None) -> None:
    p = p | {"dilation": (1,) * p["rank"]}
    p["args"] = (*p["args"][:3], p["dilation"], p["ceil"])
    override = None if p["rank"] == 1 else override
    extra = () if p["rank"] == 1 else (override,)
    if not fits(p) or any(k > i for k, i in zip(p["kernel"], p["shape"][2:], strict=True)):
        return  # torch refuses windows that only padding makes room for
    mean_args = (*p["args"][:3], p["ceil"], include, *extra)
    for mode, args in (("sum", p["args"]), ("avg", mean_args)):
        x = made(p, 2 * math.prod(p["kernel"])).detach().requires_grad_()
        exact = x.detach().double().clone().requires_grad_()
        want = oracle(mode, exact, p, include, override)
        got = function(striate, mode, p["rank"])(x, *args)
        assert torch.equal(got, want.to(x.dtype)), (mode, p)
        g = integers(tuple(want.shape), x.dtype, 2 * math.prod(p["kernel"]), 3)
        (wanted,) = torch.autograd.grad(want, exact, g.double())
        (found,) = torch.autograd.grad(got, x, g)
        if mode == "sum":
            assert torch.equal(found, wanted.to(x.dtype)), p
            continue
        # Every quotient is rounded, and every sum of them.
        size = torch.autograd.grad(oracle(mode, exact, p, include, override), exact, g.abs().double())[
            0
        ].abs()
        unit = UNIT[torch.float64 if x.dtype == torch.float64 else torch.float32]
        bound = (2 * math.prod(p["kernel"]) + 2) * unit * size + UNIT[x.dtype] * wanted.abs() * 1.01
        assert ((found.double() - wanted).abs() <= bound + 2.0**-24 * (x.dtype == torch.float16)).all(), p


@every_row
@pytest.mark.usefixtures("forced")
@given(p=problems(), mode=st.sampled_from(["max", "min"]), way=any_way)
def test_gradients_of_extremes_are_exact(p: dict[str, Any], mode: str, way: str) -> None:
    check_extreme_gradients(p, mode, way)


def check_extreme_gradients(p: dict[str, Any], mode: str, way: str) -> None:
    if not fits(p) or not with_taps(p).all():
        return
    x = made(p).detach().requires_grad_()
    sign = 1 if mode == "max" else -1
    exact = x.detach().double().clone().requires_grad_()
    want = sign * function(F, "max", p["rank"])(sign * exact, *p["args"])
    g = MEMORY[way](integers(tuple(want.shape), x.dtype, math.prod(p["kernel"]), 3))
    (wanted,) = torch.autograd.grad(want, exact, g.double())
    (found,) = torch.autograd.grad(function(striate, mode, p["rank"])(x, *p["args"]), x, g)
    assert torch.equal(found, wanted.to(x.dtype)), p


@pytest.mark.parametrize("mode", ["sum", "avg"])
@pytest.mark.parametrize("kernel", [3, 33])
def test_nothing_leaves_its_windows(mode: str, kernel: int) -> None:
    x = torch.ones(1, 2, 40, 300)
    x[0, 0, 20, 150] = math.inf
    x[0, 1, 3, 40] = math.nan
    y = function(striate, mode, 2)(x, kernel, 1, kernel // 2)
    touched = F.max_pool2d((~x.isfinite()).float(), kernel, 1, kernel // 2).bool()
    assert torch.equal(~y.isfinite(), touched)


def test_long_sums_stay_accurate() -> None:
    x = torch.rand(1, 1, 40_000, generator=torch.Generator().manual_seed(0)) + 1000
    got, exact = striate.sum_pool1d(x, 4096, 1), F.avg_pool1d(x.double(), 4096, 1) * 4096
    # Doubling rounds some twenty times, a running sum tens of thousands of times.
    assert ((got.double() - exact).abs() <= 25 * 2.0**-24 * exact).all()


@pytest.mark.parametrize("shape", [(1, 3, 90, 110), (2, 70, 33, 20), (1, 1, 50_000), (1, 2, 20, 30, 33)])
@pytest.mark.parametrize("last", [False, True])
def test_bits_do_not_depend_on_threads(shape: tuple[int, ...], last: bool) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    x = MEMORY["channels-last"](x) if last else x
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            leaf = x.detach().requires_grad_()
            avg = function(striate, "avg", len(shape) - 2)(leaf, 11, 1, 5)
            top = function(striate, "max", len(shape) - 2)(leaf, 11, 1, 5)
            found.append((avg.detach(), top.detach(), torch.autograd.grad((avg + top).sum(), leaf)[0]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


CALLS: list[tuple[str, Callable[[Tensor], Tensor], tuple[int, ...]]] = [
    ("max1d", lambda x: striate.max_pool1d(x, 3, 2, 1), (2, 2, 7)),
    ("max2d", lambda x: striate.max_pool2d(x, (3, 2), 1, 1, (1, 2), True), (1, 2, 5, 6)),
    ("min2d unbatched", lambda x: striate.min_pool2d(x, 2), (2, 4, 5)),
    ("max3d", lambda x: striate.max_pool3d(x, 2, 1), (1, 2, 3, 3, 4)),
    ("sum1d", lambda x: striate.sum_pool1d(x, 3, 2, 1, 2), (1, 2, 9)),
    ("avg2d", lambda x: striate.avg_pool2d(x, 3, 2, 1, True, False), (1, 2, 5, 6)),
    ("avg3d", lambda x: striate.avg_pool3d(x, 2, 1, 1, divisor_override=5), (1, 1, 3, 4, 3)),
]


@pytest.mark.parametrize(("call", "shape"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_derivatives(call: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    # Numbers that differ by more than the steps of the numerical gradient.
    x = torch.randperm(math.prod(shape), generator=generator).double().view(shape).requires_grad_()
    assert torch.autograd.gradcheck(call, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x,), check_fwd_over_rev=True)
    stacked = torch.randn(3, *shape, generator=generator)
    want = torch.stack([call(part) for part in stacked])
    assert torch.equal(torch.func.vmap(call)(stacked), want)
    gradient = torch.func.grad(lambda t: call(t).square().sum())
    assert torch.allclose(
        torch.func.vmap(gradient)(stacked), torch.stack([gradient(part) for part in stacked])
    )


@pytest.mark.parametrize("last", [False, True])
def test_operators_keep_torchs_contract(last: bool) -> None:
    x = torch.randn(2, 3, 6, 7)
    x = MEMORY["channels-last"](x) if last else x
    windows = ([3, 2], [2, 1], [1, 1, 0, 1], [1, 2], [0, 0], 0)
    ops = torch.ops.striate
    for mode in ("max", "min", "sum", "avg"):
        torch.library.opcheck(ops.pool.default, (x, mode, *windows))
    indices = ops.pool_argmax(x, False, "max", *windows)
    torch.library.opcheck(ops.pool_argmax.default, (x, True, "max", *windows))
    g = torch.randn(indices.shape)
    torch.library.opcheck(ops.pool_transpose.default, (g, [6, 7], "avg", *windows))
    torch.library.opcheck(ops.pool_gather.default, (x, indices, *windows[:4]))
    torch.library.opcheck(ops.pool_scatter.default, (g, indices, [6, 7], *windows[:4]))


def test_compiled_and_dynamic() -> None:
    def model(x: Tensor) -> Tensor:
        y, indices = striate.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)
        return striate.avg_pool2d(y, 2) + indices.sum() * 0

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((2, 3, 9, 10), (1, 3, 12, 11), (1, 3, 7, 8)):
        x = torch.randn(shape, requires_grad=True)
        assert torch.equal(compiled(x), model(x))
        ours, theirs = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (compiled, model))
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers_are_torchs(rank: int) -> None:
    x = torch.randn(2, 3, *(8,) * rank)
    for name, options in (
        ("MaxPool", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "return_indices": True}),
        ("AvgPool", {"kernel_size": 3, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    ):
        ours, theirs = (getattr(nn, f"{name}{rank}d")(**options) for nn in (striate.nn, torch.nn))
        assert isinstance(ours, type(theirs)) and repr(ours) == repr(theirs)
        got, want = ours(x), theirs(x)
        if name == "MaxPool":
            assert torch.equal(got[1], want[1])
            got, want = got[0], want[0]
        assert torch.equal(got, want) if name == "MaxPool" else torch.allclose(got, want, atol=1e-6)


def test_other_types_go_to_torch() -> None:
    x = torch.randint(0, 9, (1, 2, 6, 6))
    assert torch.equal(striate.max_pool2d(x, 3), F.max_pool2d(x, 3))
    assert torch.equal(striate.min_pool2d(x, 3), -F.max_pool2d(-x, 3))
    assert torch.equal(striate.sum_pool2d(x, 3), F.avg_pool2d(x, 3, divisor_override=1))


m = torch.randn(2, 3, 9, 9)
line, cube = torch.randn(2, 3, 9), torch.randn(1, 2, 5, 5, 5)
# (id, call on a module, class, words); every call is also made on torch
WRONG: list[tuple[str, Callable[[Any], Any], type[Exception], tuple[str, ...]]] = [
    ("kernel zero", lambda s: s.max_pool2d(m, 0), R, ("kernel_size", "0")),
    ("kernel negative", lambda s: s.max_pool2d(m, -1), R, ("kernel_size", "-1")),
    ("kernel float", lambda s: s.max_pool2d(m, 3.0), T, ("kernel_size", "3.0")),
    ("kernel string", lambda s: s.avg_pool2d(m, "3"), T, ("kernel_size", "'3'")),
    ("kernel None", lambda s: s.max_pool2d(m, None), T, ("kernel_size", "None")),
    ("kernel bool", lambda s: s.max_pool2d(m, True), T, ("kernel_size", "True")),
    ("kernel too long", lambda s: s.max_pool2d(m, (3, 3, 3)), R, ("kernel_size", "[3, 3, 3]")),
    ("kernel empty", lambda s: s.avg_pool2d(m, ()), R, ("kernel_size", "[]")),
    ("kernel huge", lambda s: s.max_pool2d(m, 2**63), V, ("kernel_size", str(2**63))),
    ("kernel beyond input", lambda s: s.max_pool2d(m, 11), R, ("[9, 9]", "11")),
    ("kernel beyond input 3-D", lambda s: s.max_pool3d(cube, 6), R, ("[5, 5, 5]",)),
    ("kernel 1-D pair", lambda s: s.max_pool1d(line, (3, 3)), R, ("kernel_size", "[3, 3]")),
    ("stride zero", lambda s: s.max_pool2d(m, 3, 0), R, ("stride", "0")),
    ("stride negative", lambda s: s.avg_pool2d(m, 3, -1), R, ("stride", "-1")),
    ("stride float", lambda s: s.max_pool2d(m, 3, 1.0), T, ("stride", "1.0")),
    ("stride too long", lambda s: s.max_pool2d(m, 3, (1, 1, 1)), R, ("stride", "[1, 1, 1]")),
    ("padding large", lambda s: s.max_pool2d(m, 3, 1, 2), R, ("padding", "2")),
    ("padding large 1-D", lambda s: s.max_pool1d(line, 3, 1, 2), R, ("padding", "2")),
    ("padding large mean", lambda s: s.avg_pool2d(m, 3, 1, 2), R, ("padding", "2")),
    ("padding of a dilated window", lambda s: s.max_pool2d(m, 3, 1, 2, 2), R, ("padding", "2")),
    ("padding negative", lambda s: s.max_pool2d(m, 3, 1, -1), R, ("padding", "-1")),
    ("padding string", lambda s: s.max_pool2d(m, 3, 1, "same"), T, ("padding", "'same'")),
    ("dilation zero", lambda s: s.max_pool2d(m, 3, 1, 1, 0), R, ("dilation", "0")),
    ("dilation float", lambda s: s.max_pool3d(cube, 3, 1, 1, 1.0), T, ("dilation", "1.0")),
    ("ceil_mode int", lambda s: s.max_pool2d(m, 3, ceil_mode=2), T, ("ceil_mode", "2")),
    ("ceil_mode word", lambda s: s.avg_pool2d(m, 3, ceil_mode="a"), T, ("ceil_mode", "'a'")),
    (
        "count_include_pad int",
        lambda s: s.avg_pool2d(m, 3, count_include_pad=3),
        T,
        ("count_include_pad", "3"),
    ),
    ("divisor zero", lambda s: s.avg_pool2d(m, 3, divisor_override=0), R, ("divisor_override", "0")),
    ("divisor float", lambda s: s.avg_pool2d(m, 3, divisor_override=1.5), T, ("divisor_override", "1.5")),
    ("rank low", lambda s: s.max_pool2d(m[0, 0], 3), R, ("[9, 9]",)),
    ("rank high", lambda s: s.max_pool2d(m[None], 3), R, ("[1, 2, 3, 9, 9]",)),
    ("rank 1-D", lambda s: s.max_pool1d(line[0, 0], 3), R, ("[9]",)),
    ("rank mean 1-D", lambda s: s.avg_pool1d(line[0, 0], 3), R, ("[9]",)),
    ("rank 3-D", lambda s: s.avg_pool3d(cube[0, 0], 3), R, ("[5, 5, 5]",)),
    ("no channels", lambda s: s.max_pool2d(m[:, :0], 3), R, ("[2, 0, 9, 9]",)),
    ("no space", lambda s: s.max_pool2d(m[:, :, :0], 3), R, ("[2, 3, 0, 9]",)),
    ("no channels mean", lambda s: s.avg_pool3d(cube[:, :0], 3), R, ("[1, 0, 5, 5, 5]",)),
    ("bool", lambda s: s.max_pool2d(m > 0, 3), NotImplementedError, ()),
    ("complex", lambda s: s.avg_pool2d(m + 0j, 3), NotImplementedError, ()),
    ("numpy", lambda s: s.max_pool2d(m.numpy(), 3), T, ("input", "ndarray")),
    ("None", lambda s: s.avg_pool2d(None, 3), T, ("input", "NoneType")),
]


@pytest.mark.parametrize(("call", "kind", "words"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_wrong_calls_are_explained(
    call: Callable[[Any], Any], kind: type[Exception], words: tuple[str, ...]
) -> None:
    with pytest.raises(kind):
        call(F)
    with pytest.raises(kind) as caught:
        call(striate)
    assert type(caught.value) is kind
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert torch.isfinite(striate.max_pool2d(m, 3)).all()
