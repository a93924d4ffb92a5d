"""Learnable spacings: the construction against the definition on the whole grid and against the published package."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import striate
from strategies import host_rows
from striate import _core, nn
from striate.compat import dcls as compat
from striate.ops import dcls as ops

VERSIONS = ["v0", "v1", "max", "gauss"]
ROWS = [row["name"] for row in host_rows("dcls_kernel.*")]
ISAS = sorted({name.split(".")[1] for name in ROWS})


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def published() -> Any:
    logging.disable(logging.CRITICAL)  # it tells on import, and for every layer, what it could not load
    try:
        from DCLS.construct import modules
    finally:
        logging.disable(logging.NOTSET)
    return modules


def literal(
    weight: Tensor, P: Tensor, SIG: Tensor | None, size: tuple[int, ...], version: str, fixed: bool = False
) -> Tensor:
    """Every element on every grid point, [O, I, m, *K], then summed over the elements.

    ``fixed`` takes the normaliser for a constant.
    """
    rank = len(size)
    product = torch.ones(1, dtype=weight.dtype)
    for row, axis in enumerate(ops.axes_of(version, rank)):
        centre = P[row] + size[axis] // 2
        distance = torch.arange(size[axis], dtype=weight.dtype) - centre.unsqueeze(-1)
        if version == "v0":
            low = centre.floor().detach().unsqueeze(-1)
            rest, grid = centre.unsqueeze(-1) - low, torch.arange(size[axis])
            f = (grid == low) * (1 - rest) + (grid == low + 1) * rest
        elif version == "gauss":
            f = torch.exp(-0.5 * (distance / (SIG[row].abs() + 0.27).unsqueeze(-1)) ** 2)  # type: ignore[index]
        else:
            sigma = 1.0 if SIG is None else SIG[row].abs().unsqueeze(-1) + 1
            f = torch.relu(sigma - distance.abs())
        shape = [1] * rank
        shape[axis] = size[axis]
        product = product * f.reshape(*weight.shape, *shape)
    if version != "v0":
        total = product.sum([*range(-rank, 0)], keepdim=True) + 1e-7
        product = product / (total.detach() if fixed else total)
    return (weight.reshape(*weight.shape, *[1] * rank) * product).sum(weight.dim() - 1)


def operands(
    filters: tuple[int, ...], elements: int, size: tuple[int, ...], version: str, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (*filters, elements)

    def normal(*lead: int) -> Tensor:
        # Multiples of 1/1024, so that every type agrees on which side of a kink a grid point lies.
        return (torch.randn(*lead, *shape, generator=generator, dtype=torch.float64) * 1024).round() / 1024

    made = [normal(), normal(len(size)) * max(1, max(size) // 4)]
    return [*made, normal(len(size)) * 0.5] if version in ("max", "gauss") else made


def apart(got: Tensor, exact: Tensor) -> float:
    """The relative distance in the Euclidean norm."""
    got, exact = got.detach(), exact.detach()
    scale = float(exact.double().norm())
    return float((got.double() - exact.double()).norm()) / scale if scale else float(got.double().norm())


Shape = tuple[tuple[int, ...], int, tuple[int, ...]]
"""leading sizes, elements, grid"""


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    rank = draw(st.integers(1, 3))
    filters = draw(st.sampled_from([(1, 1), (3, 2), (16, 1), (17, 1), (5, 7)]))
    return filters, draw(st.integers(1, 5)), tuple(draw(st.integers(1, 7)) for _ in range(rank))


@pytest.mark.parametrize("isa", ISAS)
@given(
    shapes(), st.sampled_from(VERSIONS), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_construction_and_gradients_follow_the_definition(
    isa: str, shape: Shape, version: str, dtype: torch.dtype, seed: int
) -> None:
    _core.set_kernels(f"[.]{isa}$")
    try:
        check_definition(shape, version, dtype, seed)
    finally:
        _core.set_kernels(None)


def check_definition(shape: Shape, version: str, dtype: torch.dtype, seed: int) -> None:
    """The kernel and its gradients are those of :func:`literal`, up to rounding."""
    filters, elements, size = shape
    given = [t.to(dtype).requires_grad_() for t in operands(filters, elements, size, version, seed)]
    exact_given = [t.detach().double().requires_grad_() for t in given]
    exact = literal(exact_given[0], exact_given[1], [*exact_given, None][2], size, version)
    upstream = torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = striate.dcls_kernel(*given, dilated_kernel_size=size, version=version)
    found = torch.autograd.grad(got, given, upstream.to(dtype))
    upstream = upstream.to(dtype).double()
    limit = 1e-13 if dtype == torch.float64 else 2e-6
    sigma = [*exact_given, None][2]
    # What sums of numbers without their signs would be: rounding is relative to that.
    whole = literal(exact_given[0].abs(), exact_given[1], sigma, size, version).norm()
    assert got.dtype == dtype and (got.double() - exact).norm() <= limit * whole
    fixed = literal(exact_given[0], exact_given[1], sigma, size, version, True)
    scales = [torch.zeros(()) for _ in exact_given]
    for part in (upstream.clamp(min=0), upstream.clamp(max=0)):
        # A moved element takes from one grid point what it gives to another: two parts that mostly cancel.
        halves = torch.autograd.grad(fixed, exact_given, part, retain_graph=True)
        both = torch.autograd.grad(exact, exact_given, part, retain_graph=True)
        scales = [s + h.norm() + (b - h).norm() for s, h, b in zip(scales, halves, both, strict=True)]
    exact_found = torch.autograd.grad(exact, exact_given, upstream)
    for mine, theirs, scale in zip(found, exact_found, scales, strict=True):
        assert (mine.double() - theirs).norm() <= limit * scale


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(9,), (7, 5), (3, 5, 4)])
def test_quarter_positions_are_exact(isa: str, dtype: torch.dtype, size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-4, 5, (19, 2, 3), generator=generator).double()
    P = torch.randint(-8, 9, (len(size), 19, 2, 3), generator=generator).double() / 4
    given = [weight.to(dtype).requires_grad_(), P.to(dtype).requires_grad_()]
    exact_given = [weight.requires_grad_(), P.requires_grad_()]
    exact = literal(weight, P, None, size, "v0")
    upstream = torch.randint(-3, 4, exact.shape, generator=generator).double()
    _core.set_kernels(f"[.]{isa}$")
    try:
        got = striate.dcls_kernel(*given, dilated_kernel_size=size, version="v0")
        found = torch.autograd.grad(got, given, upstream.to(dtype))
    finally:
        _core.set_kernels(None)
    assert torch.equal(got.double(), exact)
    for mine, theirs in zip(found, torch.autograd.grad(exact, exact_given, upstream), strict=True):
        assert torch.equal(mine.double(), theirs)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("size", "slips"),
    [((9,), False), ((7, 7), False), ((8, 8), False), ((5, 5, 5), False), ((5, 9), True), ((3, 5, 7), True)],
)
def test_published_construction(published: Any, version: str, size: tuple[int, ...], slips: bool) -> None:
    mine = [t.requires_grad_() for t in operands((4, 3), 5, size, version)]
    theirs = [t.detach().clone().requires_grad_() for t in mine]
    build = getattr(published, f"ConstructKernel{len(size)}d")(4, 3, 1, 5, size, version)
    expected = build(theirs[0], theirs[1], [*theirs, None][2])
    got = striate.dcls_kernel(*mine, dilated_kernel_size=size, version=version, reference_slips=slips)
    assert apart(got, expected) < 1e-13
    upstream = torch.randn_like(expected)
    pairs = zip(
        torch.autograd.grad(got, mine, upstream), torch.autograd.grad(expected, theirs, upstream), strict=True
    )
    assert all(apart(a, b) < 1e-12 for a, b in pairs)


def test_kernels_that_are_not_square_keep_their_weight() -> None:
    weight, P = torch.ones(1, 1, 1), torch.zeros(2, 1, 1, 1)
    P[0] = 3
    right = striate.dcls_kernel(weight, P, dilated_kernel_size=(3, 9), version="v1")
    assert right[0, 0, 1, 7] == pytest.approx(1, abs=1e-6) and right.sum() == pytest.approx(1, abs=1e-6)
    slip = striate.dcls_kernel(weight, P, dilated_kernel_size=(3, 9), version="v1", reference_slips=True)
    assert slip.abs().sum() == 0
    downwards = striate.dcls_kernel(weight, P, dilated_kernel_size=(9, 3), version="v0")
    assert downwards[0, 0, 7, 1] == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 2)])
def test_derivatives(version: str, size: tuple[int, ...]) -> None:
    # Away from the kinks of the piecewise linear profiles, where no finite difference is right.
    given = operands((2, 1), 2, size, version)
    given[1] = (given[1].round() + 0.3).requires_grad_()
    given[0].requires_grad_()
    if len(given) == 3:
        given[2] = (given[2].abs() * 0.2 + 0.4).requires_grad_()

    def build(*tensors: Tensor) -> Tensor:
        return striate.dcls_kernel(*tensors, dilated_kernel_size=size, version=version)

    assert torch.autograd.gradcheck(build, given, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(build, given)


@pytest.mark.parametrize("version", ["v1", "gauss"])
def test_functional_transforms(version: str) -> None:
    size = (4, 3)
    given = operands((3, 2), 2, size, version)

    def build(*tensors: Tensor) -> Tensor:
        return striate.dcls_kernel(*tensors, dilated_kernel_size=size, version=version)

    def plain(*tensors: Tensor) -> Tensor:
        return literal(tensors[0], tensors[1], [*tensors, None][2], size, version)

    batch = [torch.stack([t, 0.5 * t, -t]) for t in given]
    assert apart(torch.func.vmap(build)(*batch), torch.func.vmap(plain)(*batch)) < 1e-13
    argnums = tuple(range(len(given)))
    pairs = ((torch.func.jacrev, torch.func.jacrev), (torch.func.jacfwd, torch.func.jacrev))
    for mine, theirs in pairs:
        for a, b in zip(mine(build, argnums)(*given), theirs(plain, argnums)(*given), strict=True):
            assert apart(a, b) < 1e-12
    mine = torch.func.hessian(lambda *t: build(*t).square().sum(), argnums)(*given)
    exact = torch.func.hessian(lambda *t: plain(*t).square().sum(), argnums)(*given)
    for a, b in zip(
        torch.utils._pytree.tree_leaves(mine), torch.utils._pytree.tree_leaves(exact), strict=True
    ):
        assert (a - b).abs().max() < 1e-10


def test_third_derivative() -> None:
    P = torch.tensor([[[[0.3]]]], dtype=torch.float64, requires_grad=True)
    weight, SIG = torch.ones(1, 1, 1, dtype=torch.float64), torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    found, expected = [], []
    for collected, value in (
        (found, striate.dcls_kernel(weight, P, SIG, dilated_kernel_size=5)[0, 0, 1]),
        (expected, literal(weight, P, SIG, (5,), "gauss")[0, 0, 1]),
    ):
        for _ in range(3):
            (value,) = torch.autograd.grad(value, P, create_graph=True)
            value = value.sum()
            collected.append(float(value.detach()))
    assert found == pytest.approx(expected, rel=1e-12)


def test_operator_contract() -> None:
    weight, P, SIG = (t.float() for t in operands((3, 2), 4, (5, 4), "gauss"))
    statics = ([5, 4], "gauss", 0.27, [1, 0])
    torch.library.opcheck(torch.ops.striate.dcls_kernel.default, (weight, P, SIG, *statics))
    torch.library.opcheck(
        torch.ops.striate.dcls_kernel.default, (weight, P, None, [5, 4], "triangle", 1.0, [1, 0])
    )
    grad = torch.randn(3, 2, 5, 4)
    torch.library.opcheck(torch.ops.striate.dcls_kernel_grad.default, (grad, weight, P, SIG, *statics))


def test_compiled_layer() -> None:
    torch.manual_seed(0)
    layer = nn.Dcls2d(6, 6, kernel_count=4, dilated_kernel_size=7, padding=3, groups=6)
    x = torch.randn(2, 6, 9, 9)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    expected, got = layer(x), compiled(x)
    assert torch.equal(got, expected)
    parameters = list(layer.parameters())
    pairs = zip(
        torch.autograd.grad(got.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_threads_do_not_change_bits() -> None:
    weight, P, SIG = (t.float().requires_grad_() for t in operands((200, 1), 20, (17, 17), "gauss"))
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        kernel = striate.dcls_kernel(weight, P, SIG, dilated_kernel_size=17)
        found.append((kernel, *torch.autograd.grad(kernel.sin().sum(), (weight, P, SIG))))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_half_precision_is_rounded_once() -> None:
    given = [t.bfloat16() for t in operands((3, 2), 4, (7, 7), "gauss")]
    got = striate.dcls_kernel(*given, dilated_kernel_size=7)
    wide = striate.dcls_kernel(*(t.float() for t in given), dilated_kernel_size=7)
    assert got.dtype == torch.bfloat16 and torch.equal(got, wide.bfloat16())


def test_strided_operands_and_empty_ones() -> None:
    weight, P, SIG = operands((4, 3), 6, (5, 5), "gauss")
    expected = striate.dcls_kernel(
        weight[..., ::2], P[..., ::2], SIG[..., ::2].contiguous(), dilated_kernel_size=5
    )
    got = striate.dcls_kernel(
        weight.mT.contiguous().mT[..., ::2], P[..., ::2], SIG[..., ::2], dilated_kernel_size=5
    )
    assert torch.equal(got, expected)
    nothing = striate.dcls_kernel(weight[..., :0], P[..., :0], SIG[..., :0], dilated_kernel_size=5)
    assert torch.equal(nothing, torch.zeros(4, 3, 5, 5, dtype=torch.float64))
    assert striate.dcls_kernel(weight[:0], P[:, :0], SIG[:, :0], dilated_kernel_size=5).shape == (0, 3, 5, 5)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"version": "v2"}, ValueError, "version: expected one of"),
        ({"SIG": None}, ValueError, "SIG: expected a tensor for version 'gauss'"),
        ({"version": "v1"}, ValueError, "SIG: expected None for version 'v1'"),
        ({"dilated_kernel_size": (5, 5, 5)}, ValueError, "dilated_kernel_size: expected 2"),
        ({"dilated_kernel_size": 0}, ValueError, "dilated_kernel_size: expected 2"),
        ({"P": torch.zeros(2, 3, 2, 5)}, RuntimeError, "P: expected"),
        ({"P": torch.zeros(4, 3, 2, 4)}, RuntimeError, "P: expected"),
        ({"P": torch.zeros(2, 3, 2, 4).double()}, RuntimeError, "P: expected torch.float32"),
        ({"SIG": torch.zeros(1, 3, 2, 4)}, RuntimeError, "SIG: expected the shape of P"),
        ({"weight": torch.zeros(3, 2, 4, dtype=torch.int64)}, RuntimeError, "weight: expected a floating"),
        ({"weight": 1.0}, TypeError, "weight must be a Tensor"),
    ],
)
def test_bad_arguments(change: dict[str, Any], kind: type, message: str) -> None:
    call = {
        "weight": torch.zeros(3, 2, 4),
        "P": torch.zeros(2, 3, 2, 4),
        "SIG": torch.zeros(2, 3, 2, 4),
        "dilated_kernel_size": 5,
        "version": "gauss",
    } | change
    with pytest.raises(kind, match=message):
        striate.dcls_kernel(call.pop("weight"), call.pop("P"), call.pop("SIG"), **call)


LAYERS = [
    ("Dcls1d", {"dilated_kernel_size": 9, "padding": 4, "groups": 2}, 1),
    ("Dcls2d", {"dilated_kernel_size": 7, "stride": 2, "version": "v1"}, 2),
    ("Dcls2d", {"dilated_kernel_size": 5, "padding": 2, "groups": 4, "version": "v0"}, 2),
    ("Dcls2d", {"dilated_kernel_size": 5, "padding": 2, "padding_mode": "circular", "version": "max"}, 2),
    ("Dcls3d", {"dilated_kernel_size": 5, "bias": False}, 3),
    ("Dcls3_1d", {"dilated_kernel_size": 5, "dense_kernel_size": (3, 2)}, 3),
    ("Dcls2dK1d", {"dilated_kernel_size": 7, "flat_dim": 0}, 2),
    ("Dcls2dK1d", {"dilated_kernel_size": 7, "flat_dim": 1, "version": "gauss"}, 2),
]


@pytest.mark.parametrize(("name", "options", "rank"), LAYERS)
def test_published_layers(published: Any, name: str, options: dict[str, Any], rank: int) -> None:
    torch.manual_seed(5)
    theirs = getattr(published, name)(4, 8, kernel_count=3, **options)
    torch.manual_seed(5)
    mine = getattr(compat, name)(4, 8, kernel_count=3, **options)
    state = theirs.state_dict()
    assert list(mine.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in mine.state_dict().items())
    x = torch.randn(2, 4, *[9] * rank)
    expected = theirs(x)
    assert apart(mine(x), expected) < 1e-5
    assert apart(nn.merge(mine)(x), expected) < 1e-5
    theirs.load_state_dict(mine.state_dict())


def test_dcls2_1d_spread() -> None:
    torch.manual_seed(0)
    layer, old = (
        kind(4, 4, 3, dense_kernel_size=3, dilated_kernel_size=7) for kind in (nn.Dcls2_1d, compat.Dcls2_1d)
    )
    old.load_state_dict(layer.state_dict())
    assert layer.weight.shape == (4, 4, 3, 3) and layer.kernel().shape == (4, 4, 3, 7)
    centre = layer.P[0].detach().unsqueeze(-1) + 3
    for module, base in ((layer, 0.27), (old, 1.0)):
        f = torch.exp(-0.5 * ((torch.arange(7) - centre) / (0.23 + base)) ** 2)
        exact = (layer.weight.unsqueeze(-1) * f / (f.sum(-1, keepdim=True) + 1e-7)).sum(-2)
        assert apart(module.kernel(), exact) < 1e-6


def test_clamping_is_asked_for() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(nn.Dcls2d(2, 2, 3, dilated_kernel_size=(3, 7), version="v1"))
    layer = model[0]
    assert layer.limits() == (3, 1)  # P[0] moves along the width
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    handle = nn.clamp_after_step(optimizer, model)
    layer.P.grad = torch.full_like(layer.P, -100)
    optimizer.step()
    assert bool((layer.P[0] == 3).all()) and bool((layer.P[1] == 1).all())
    handle.remove()
    optimizer.step()
    assert bool((layer.P > 50).all())
    layer.clamp_parameters()
    assert bool((layer.P[0] == 3).all())


def delay_layer(groups: int, size: int) -> nn.Dcls1d:
    torch.manual_seed(1)
    layer = nn.Dcls1d(4, 6, 1, dilated_kernel_size=size, groups=groups, version="v0")
    with torch.no_grad():
        layer.P.uniform_(-(size // 2), max(size // 2 - 1, 0))
        layer.weight.copy_(torch.randint(-4, 5, layer.weight.shape))
        assert layer.bias is not None
        layer.bias.fill_(1)
    layer.round_positions_()
    return layer


STEP_ROWS = [row["name"] for row in host_rows("delay_step")]


@pytest.mark.parametrize("row", STEP_ROWS)
@pytest.mark.parametrize(("groups", "size", "batch"), [(1, 9, 2), (2, 8, 1), (2, 5, 37), (1, 1, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_prefix_of_steps_equals_the_causal_layer(
    row: str, groups: int, size: int, batch: int, dtype: torch.dtype
) -> None:
    layer = delay_layer(groups, size).to(dtype)
    x = torch.randint(-4, 5, (batch, 4, 20)).to(dtype)
    state, found = layer.initial_state(batch), []
    memory = state.ring.data_ptr()
    _core.set_kernels(f"^{row}$")
    try:
        with torch.no_grad():
            for sample in x.unbind(-1):
                output, state = layer.step(sample, state)
                found.append(output)
    finally:
        _core.set_kernels(None)
    assert state.ring.data_ptr() == memory
    for length in range(1, 21):  # what follows a prefix must not show in it
        expected = layer(torch.nn.functional.pad(x[..., :length], (size - 1, 0)))
        assert torch.equal(torch.stack(found[:length], -1), expected)


def test_steps_on_threads_branches_and_gradients() -> None:
    torch.manual_seed(0)
    layer = nn.Dcls1d(64, 96, 1, dilated_kernel_size=25, version="v0")
    layer.round_positions_()
    x, found = torch.randn(30, 64, 5), []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        state = layer.initial_state(30)
        with torch.no_grad():
            found.append(torch.stack([layer.step(sample, state)[0] for sample in x.unbind(-1)]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    branch = state.clone()
    with torch.no_grad():
        assert torch.equal(layer.step(x[..., 0], branch)[0], layer.step(x[..., 0], state)[0])
    state = layer.initial_state(30)
    steps = torch.stack([layer.step(sample, state)[0] for sample in x.unbind(-1)], -1)
    whole = layer(torch.nn.functional.pad(x, (24, 0)))
    (mine,), (right,) = (torch.autograd.grad(y.square().sum(), [layer.weight]) for y in (steps, whole))
    assert apart(steps, whole) < 1e-5 and apart(mine, right) < 1e-5
    with pytest.raises(RuntimeError, match=r"input: expected \[30, 64\], got \[29, 64\]"):
        layer.step(x[:29, :, 0], state)
    with pytest.raises(RuntimeError, match="kernel_count 1"):
        nn.Dcls1d(4, 6, 2, dilated_kernel_size=9).initial_state(1)


def test_parameter_groups_list_shared_positions_once() -> None:
    first, second = (nn.Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4) for _ in range(2))
    second.P = first.P
    model = torch.nn.Sequential(first, second, torch.nn.Linear(2, 2))
    plain, moving = nn.dcls_parameter_groups(model, lr=0.1, weight_decay=0.05, position_lr_scale=5)
    assert len(plain["params"]) == 6 and len(moving["params"]) == 3
    assert (
        moving["lr"] == pytest.approx(0.5) and moving["weight_decay"] == 0 and plain["weight_decay"] == 0.05
    )
    x = torch.randn(1, 4, 9, 9)
    model[:2](x).square().sum().backward()
    shared, first.P.grad = first.P.grad, None
    other = torch.nn.Parameter(first.P.detach().clone())
    second.P = other
    model[:2](x).square().sum().backward()
    assert apart(first.P.grad + other.grad, shared) < 1e-5


def test_repulsion() -> None:
    P = torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64).reshape(1, 1, 1, 3).requires_grad_()
    loss = nn.repulsion_loss([P])
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    assert P.grad is not None and P.grad.flatten().tolist() == pytest.approx([1.0, -1.0, 0.0])
    together = torch.zeros(2, 1, 1, 2, requires_grad=True)
    loss = nn.repulsion_loss([together])
    loss.backward()
    assert float(loss.detach()) == 1 and together.grad is not None and bool(together.grad.isfinite().all())


def test_initial_values() -> None:
    layer = nn.Dcls2d(64, 64, 32, dilated_kernel_size=17, version="gauss")
    assert float(layer.P.detach().std()) == pytest.approx(0.5, abs=0.01)
    assert float(layer.weight.detach().abs().max()) <= 1 / math.sqrt(64 * 32)
    assert bool((layer.SIG == 0.23).all()) and bool((nn.Dcls1d(2, 2, 3, version="max").SIG == 0).all())
    with pytest.raises(ValueError, match="version: expected one of"):
        nn.Dcls1d(2, 2, 3, version="v3")
    with pytest.raises(ValueError, match="in_channels: expected a multiple of groups 2"):
        nn.Dcls1d(3, 4, 3, groups=2)
