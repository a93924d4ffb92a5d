"""Every kernel row against float64 and against itself: integers exactly, real numbers within rounding, the same bits
however a call is made, and nothing from memory that a window does not hold."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, target
from hypothesis import strategies as st
from torch import Tensor

import striate
from oracle import assert_equal, assert_within, bound, integers
from strategies import (
    BF16,
    F16,
    F32,
    F64,
    MEMORY,
    PASSES,
    ROWS,
    Depthwise,
    any_way,
    channels_last,
    fitting,
    forced,
    normals,
    poison_allocator,
    problems,
    row_of,
    ways,
)

every_row = pytest.mark.parametrize("row", ROWS)
seeds = st.integers(0, 2**31)
exact_dtypes = [(F32, F32), (F64, F64)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small problems are shared among no threads anyway, and the oracle is faster alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def three_passes(problem: Depthwise, operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Output and the gradients of input, weight and bias, through autograd."""
    x, w, b, g = operands
    x, w, b = (t.detach().requires_grad_() for t in (x, w, b))
    y = problem.run(x, w, b)
    return (y.detach(), *torch.autograd.grad(y, (x, w, b), g))


def true_passes(problem: Depthwise, operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x, w, b, g = (t.double() for t in operands)
    db = g.sum([0, *range(2, g.dim())])
    return (problem.exact.forward(x, w, b), *problem.gradients(x, w, g), db)


@every_row
def test_integers_come_out_exactly(row: str) -> None:
    ran: Counter[str] = Counter()

    @given(problems(row), ways(row), any_way, st.booleans(), ways(row), seeds)
    def check(problem: Depthwise, x_way: str, w_way: str, spread: bool, g_way: str, seed: int) -> None:
        x, w, b, g = problem.operands(seed=seed)
        picked = {"x": x_way, "w": w_way, "b": "spread" if spread else "dense", "dy": g_way}
        x, w, g = MEMORY[x_way](x), MEMORY[w_way](w), MEMORY[g_way](g)
        b = b.repeat_interleave(2)[::2] if spread else b
        poison_allocator()
        got = three_passes(problem, (x, w, b, g))
        for pass_, first in (("fwd", x), ("dx", g), ("dw", g)):
            ran[pass_] += row_of(problem, pass_, first) == row
        for name, ours, true in zip(
            ("y", "dx", "dw", "db"), got, true_passes(problem, (x, w, b, g)), strict=True
        ):
            assert_equal(ours, true, f"{name} of {problem} from {picked} by {row}")

    with forced(row):
        check()
    assert all(ran[pass_] >= 5 for pass_ in PASSES[row]), f"{row} hardly ran: {ran}"


@every_row
def test_real_numbers_stay_within_rounding(row: str) -> None:
    worst: dict[str, float] = {}

    @given(problems(row), seeds, st.booleans())
    def check(problem: Depthwise, seed: int, last: bool) -> None:
        x, w, b, g = problem.operands(normals, seed)
        if last:
            x, g = channels_last(x), channels_last(g)
        y, dx, dw, _ = three_passes(problem, (x, w, b, g))
        exact = true_passes(problem, (x, w, b, g))
        magnitude = true_passes(problem, tuple(t.abs() for t in (x, w, b, g)))
        for pass_, ours, true, size in zip(("fwd", "dx", "dw"), (y, dx, dw), exact, magnitude, strict=False):
            terms = problem.terms[pass_]
            assert_within(ours, true, size, terms, f"{pass_} of {problem} by {row}")
            if ours.numel():
                ratio = float(((ours.double() - true).abs() / bound(true, size, terms, ours.dtype)).max())
                worst[pass_] = max(worst.get(pass_, 0.0), ratio)
        target(max(worst.values(), default=0.0))

    with forced(row):
        check()
    # An error of nothing at all would mean that nothing was compared.
    assert all(0 < ratio <= 1 for ratio in worst.values()) and len(worst) == 3
    # The figure to publish: `pytest -rP -k rounding` shows it.
    print(row, "worst error / bound", {name: round(ratio, 3) for name, ratio in worst.items()})


@pytest.mark.parametrize("channels", [1, 9, 16])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 7), (1, 14, 14)])
@every_row
def test_a_slice_before_or_behind_padding_is_not_met(row: str, size: tuple[int, ...], channels: int) -> None:
    """Found by the drawn branches: planes that are read in place were read where a volume of one slice has padding."""
    if row.startswith("slide."):
        pytest.skip("one dimension")
    for padding, stride in (((1, -1), 1), ((-1, 1), 1), ((1, 1), 3), ((0, 2), 3)):
        pads = (padding, *((1, 1) for _ in size[1:]))
        problem = Depthwise(2, channels, 1, size, (1, 3, 3), (stride, 1, 1), (1, 1, 1), pads)
        x, w, b, g = problem.operands()
        with forced(row):
            got = three_passes(problem, (x, w, b, g))
        for name, ours, true in zip(
            ("y", "dx", "dw", "db"), got, true_passes(problem, (x, w, b, g)), strict=True
        ):
            assert_equal(ours, true, f"{name} of {problem} by {row}")


@pytest.mark.parametrize("way", ["dense", "channels-last"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_fewer_rows_than_the_stride(rows: int, way: str) -> None:
    """Found by the drawn problems: the input gradient looked for a row past the last."""
    problem = Depthwise(1, 9, 1, (rows, 4), (1, 1), (rows + 1, 1), (1, 1), ((0, 0), (0, 0)))
    x, w, b, g = problem.operands()
    x, g = MEMORY[way](x), MEMORY[way](g)
    for name, got, true in zip(
        ("y", "dx", "dw", "db"),
        three_passes(problem, (x, w, b, g)),
        true_passes(problem, (x, w, b, g)),
        strict=True,
    ):
        assert_equal(got, true, f"{name} of {problem}")


def test_the_bound_would_notice_a_lost_tap() -> None:
    problem = Depthwise(2, 8, 1, (16, 16), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    x, w, b, g = problem.operands(normals)
    true, magnitude = (
        true_passes(problem, (x, w, b, g)),
        true_passes(problem, (x.abs(), w.abs(), b.abs(), g.abs())),
    )
    w[:, :, 2, 2] = 0
    y, dx, _, _ = three_passes(problem, (x, w, b, g))
    for pass_, index, wrong in (("fwd", 0, y), ("dx", 1, dx)):
        with pytest.raises(AssertionError, match="beyond the bound"):
            assert_within(wrong, true[index], magnitude[index], problem.terms[pass_])


@every_row
def test_the_three_passes_are_adjoint(row: str) -> None:
    @given(problems(row, exact_dtypes), ways(row), seeds)
    def check(problem: Depthwise, way: str, seed: int) -> None:
        x, w, b, g = problem.operands(seed=seed)
        y, dx, dw, _ = three_passes(problem, (MEMORY[way](x), w, b.zero_(), g))
        x = MEMORY[way](x)
        products = {int((a.double() * c.double()).sum()) for a, c in ((y, g), (x, dx), (w, dw))}
        assert len(products) == 1, f"<y,dy>, <x,dx>, <w,dw> of {problem} by {row}: {products}"

    with forced(row):
        check()


LARGE = [
    Depthwise(4, 48, 1, (40, 40), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2))),
    Depthwise(2, 5, 2, (67, 131), (7, 3), (2, 1), (1, 2), ((3, 0), (2, 5))),
    Depthwise(2, 3, 1, (30_001,), (31,), (1,), (1,), ((30, 0),)),
    Depthwise(2, 33, 1, (9, 30, 31), (3, 3, 3), (1, 2, 1), (1, 1, 1), ((1, 1),) * 3),
    Depthwise(40, 260, 1, (7, 7), (7, 7), (1, 1), (1, 1), ((3, 3), (3, 3))),
    Depthwise(20, 130, 1, (7, 7), (9, 9), (1, 1), (1, 1), ((4, 4), (4, 4))),
    Depthwise(3, 1, 1, (300, 301), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
]
every_layout = pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])


@pytest.mark.parametrize("row", [row for row in ROWS if row != "reference"])
@every_layout
def test_bits_depend_on_neither_run_nor_threads(row: str, last: bool) -> None:
    ran = 0
    for problem, dtypes in itertools.product(LARGE, ((F32, F32), (BF16, F32))):
        problem = fitting(replace(problem, dtypes=dtypes), row)
        operands = problem.operands(normals)
        if last:
            operands = tuple(t if t.dim() == 1 else channels_last(t) for t in operands)
        with forced(row):
            if row_of(problem, "fwd", operands[0]) != row:
                continue
            ran += 1
            torch.set_num_threads(1)
            first = three_passes(problem, operands)
            for count in (1, 2, 7):
                torch.set_num_threads(count)
                poison_allocator(1 << 21)
                again = three_passes(problem, operands)
                for name, a, c in zip(("y", "dx", "dw"), first, again, strict=False):
                    assert torch.equal(a, c), f"{name} of {problem} by {row} on {count} threads"
    # Forward rows of one dimension read one layout in types that are their own sums.
    assert ran >= 2 or (row.startswith("slide.") and (ran or last))


@pytest.mark.parametrize("problem", LARGE, ids=str)
def test_bits_of_the_bias_gradient_do_not_depend_on_threads(problem: Depthwise) -> None:
    operands = problem.operands(normals)
    first = three_passes(problem, operands)[3]
    for count in (2, 7):
        torch.set_num_threads(count)
        assert torch.equal(three_passes(problem, operands)[3], first), f"db of {problem} on {count} threads"


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_threads_share_large_problems_exactly(last: bool) -> None:
    torch.set_num_threads(2)
    for problem in LARGE[:4]:
        operands = problem.operands()
        if last:
            operands = tuple(t if t.dim() == 1 else channels_last(t) for t in operands)
        poison_allocator(1 << 21)
        for got, true in zip(three_passes(problem, operands), true_passes(problem, operands), strict=True):
            assert_equal(got, true, str(problem))


@every_row
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(row: str) -> None:
    @given(problems(row, least_batch=2), seeds, st.booleans())
    def check(problem: Depthwise, seed: int, last: bool) -> None:
        x, w, b, g = problem.operands(normals, seed)
        if last:
            x, g = channels_last(x), channels_last(g)
        y, dx, _, _ = three_passes(problem, (x, w, b, g))
        for n in range(problem.batch):
            alone = replace(problem, batch=1)
            one, done, _, _ = three_passes(alone, (x[n : n + 1], w, b, g[n : n + 1]))
            assert torch.equal(y[n : n + 1], one), f"sample {n} of {problem} by {row}"
            assert torch.equal(dx[n : n + 1], done), f"dx of sample {n} of {problem} by {row}"

    with forced(row):
        check()


def touched(problem: Depthwise, x: Tensor, g: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Per pass, which sums hold a NaN of input or upstream gradient, and which ones may turn out to be NaN.

    The two differ in the weight gradient only: every tap meets every output, some of them across padding, and a zero
    times NaN may be counted (as torch does) or left out.
    """
    x, g = x.isnan().double(), g.isnan().double()
    one = torch.ones(problem.weight_shape)
    y = problem.exact.forward(x, one) > 0
    dx = problem.exact.grad_input(g, one, problem.size) > 0
    by_x = problem.exact.grad_weight(torch.ones_like(g), x, problem.kernel) > 0
    by_g = problem.exact.grad_weight(g, torch.ones_like(x), problem.kernel) > 0
    channel = (g.transpose(0, 1).flatten(1).sum(1) > 0).view(-1, 1, *[1] * problem.rank)
    return [(y, y), (dx, dx), (by_x | by_g, by_x | by_g | channel)]


@every_row
@pytest.mark.parametrize("where", ["input", "grad"])
def test_nan_reaches_exactly_what_meets_it(row: str, where: str) -> None:
    @given(problems(row, least_batch=1), seeds, st.booleans(), st.data())
    def check(problem: Depthwise, seed: int, last: bool, data: st.DataObject) -> None:
        x, w, b, g = problem.operands(seed=seed)
        hit = x if where == "input" else g
        for _ in range(data.draw(st.integers(1, 3))):
            hit.view(-1)[data.draw(st.integers(0, hit.numel() - 1))] = torch.nan
        if last:
            x, g = channels_last(x), channels_last(g)
        got = three_passes(problem, (x, w, b, g))
        for name, ours, (must, may) in zip(("y", "dx", "dw"), got, touched(problem, x, g), strict=False):
            spared, leaked = must & ~ours.isnan(), ours.isnan() & ~may
            assert not spared.any(), (
                f"{name} of {problem} by {row}: NaN in {where} spares {int(spared.sum())} sums"
            )
            assert not leaked.any(), (
                f"{name} of {problem} by {row}: NaN in {where} leaks into {int(leaked.sum())}"
            )

    with forced(row):
        check()


@every_row
@every_layout
def test_nan_in_a_weight_spoils_its_channel_and_no_other(row: str, last: bool) -> None:
    with forced(row):
        for kernel, channels in ((3, 17), (8, 33), (1, 8)):
            problem = Depthwise(2, channels, 1, (9, 18), (kernel, 3), (1, 1), (1, 1), ((0, 0), (1, 1)))
            x, w, b, g = problem.operands()
            w[channels // 2, 0, 0, 1] = torch.nan  # the middle column meets no padding
            if last:
                x, g = channels_last(x), channels_last(g)
            y, dx, dw, _ = three_passes(problem, (x, w, b, g))
            spoilt = torch.zeros(channels, dtype=torch.bool)
            spoilt[channels // 2] = True
            assert torch.equal(y.isnan(), spoilt[:, None, None].expand_as(y))
            assert torch.equal(dx.isnan().flatten(2).any(2), spoilt.expand(2, -1)) and not dw.isnan().any()


@every_row
@every_layout
def test_infinity_overflow_and_subnormals(row: str, last: bool) -> None:
    lay = channels_last if last else torch.clone
    with forced(row):
        for dtype in (F32, F64, BF16, F16):
            problem = Depthwise(1, 16, 1, (5, 20), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (dtype, dtype))
            x, w, b, g = problem.operands()
            ones = [torch.ones_like(t) for t in (x, w, b, g)]
            x[0, 3, 2, 7] = torch.inf
            y = problem.run(lay(x), ones[1])
            assert torch.equal(y.isinf(), problem.exact.forward(x.isinf().double(), ones[1]) > 0)
            # the largest number, nine times: beyond every type's range once summed and stored
            largest = torch.full_like(x, torch.finfo(dtype).max)
            y = problem.run(lay(largest), ones[1], ones[2])
            assert y.isinf().all() and (y > 0).all()
            tiny = torch.finfo(dtype).smallest_normal / 8
            small = torch.full_like(x, tiny)
            y, dx, dw, _ = three_passes(problem, (lay(small), ones[1], 0 * b, lay(small)))
            assert_equal(y, problem.exact.forward(small, ones[1]), f"subnormals by {row}")
            assert_equal(dx, problem.exact.grad_input(small, ones[1], problem.size), f"dx by {row}")
            unit = torch.ones_like(small)
            _, _, dw, _ = three_passes(problem, (lay(small), ones[1], b, lay(unit)))
            assert_equal(dw, problem.exact.grad_weight(unit, small, problem.kernel), f"dw by {row}")


def test_layers_are_exact_too() -> None:
    @given(problems(), any_way, seeds)
    def check(problem: Depthwise, way: str, seed: int) -> None:
        if any(low != high or low < 0 for low, high in problem.padding):
            return
        x, w, b, g = problem.operands(seed=seed)
        x = MEMORY[way](x)
        outputs = problem.channels * problem.multiplier
        pads = tuple(low for low, _ in problem.padding)
        options = (problem.kernel, problem.stride, pads, problem.dilation, problem.channels)
        layer = getattr(striate.nn, f"Conv{problem.rank}d")(
            problem.channels, outputs, *options, dtype=problem.dtypes[1]
        )
        with torch.no_grad():
            layer.weight.copy_(w)
            layer.bias.copy_(b)
        y = layer(x)
        y.backward(g)
        exact = true_passes(problem, (x, w, b, g))
        for got, true in zip(
            (y.detach(), layer.weight.grad, layer.bias.grad), (exact[0], *exact[2:]), strict=True
        ):
            assert_equal(got, true, str(problem))

    check()


def test_transposed_convolution_is_the_input_gradient() -> None:
    @given(problems(least_batch=1), seeds)
    def check(problem: Depthwise, seed: int) -> None:
        if any(low != high or low < 0 for low, high in problem.padding):
            return
        _, w, _, g = problem.operands(seed=seed)
        b = integers((problem.channels,), problem.dtypes[1], 9, seed)
        pads = tuple(low for low, _ in problem.padding)
        reach = [d * (k - 1) for d, k in zip(problem.dilation, problem.kernel, strict=True)]
        walk = zip(problem.size, pads, reach, problem.stride, strict=True)
        extra = tuple((i + 2 * p - r - 1) % s for i, p, r, s in walk)
        if any(e >= max(s, d) for e, s, d in zip(extra, problem.stride, problem.dilation, strict=True)):
            return
        function = getattr(striate, f"conv_transpose{problem.rank}d")
        y = function(g, w, b, problem.stride, pads, extra, problem.channels, problem.dilation)
        exact = problem.exact.grad_input(g, w, problem.size) + b.double().view(-1, *[1] * problem.rank)
        assert_equal(y, exact, str(problem))

    check()
