"""channel_sum: equal bits on integers for every row and thread count, and all of autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies import host_rows
from striate import _core
from striate.ops._convolution import channel_sum

ROWS = [row["name"] for row in host_rows("channel_sum")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def integers(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("row", ROWS)
@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=5),
    st.sampled_from(DTYPES),
    st.sampled_from(["dense", "last", "sliced", "expanded"]),
)
@settings(max_examples=60, deadline=None)
def test_integers_sum_exactly(row: str, shape: list[int], dtype: torch.dtype, form: str) -> None:
    x = integers(tuple(shape), dtype)
    if form == "last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif form == "sliced":
        x = x[..., ::2]
    elif form == "expanded":
        x = x[:1].expand_as(x) if shape[0] else x
    _core.set_kernels(f"^{row}$")
    try:
        got = channel_sum(x, True)
    finally:
        _core.set_kernels(None)
    expected = x.double().sum([axis for axis in range(x.dim()) if axis != 1])
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(got.double(), expected)


@pytest.mark.parametrize("shape", [(8, 1, 300, 301), (40, 64, 33, 31), (3, 200, 4097)])
@pytest.mark.parametrize("last", [False, True])
def test_bits_do_not_depend_on_threads(shape: tuple[int, ...], last: bool) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(channel_sum(x, False))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    axes = [axis for axis in range(x.dim()) if axis != 1]
    # Each of the chains of a plane rounds once a step: far fewer than one rounding per number and channel.
    bound = x.abs().double().sum(axes) * 2**-24 * 64
    assert ((found[0].double() - x.double().sum(axes)).abs() <= bound).all()


def test_derivatives() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: channel_sum(t, False), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: channel_sum(t, False) ** 2, (x,))
    stacked = torch.randn(5, 2, 3, 4)
    got = torch.func.vmap(lambda t: channel_sum(t, False), in_dims=1)(stacked)
    assert torch.allclose(got, stacked.sum((0, 3)), atol=1e-5)
    torch.library.opcheck(torch.ops.striate.channel_sum.default, (stacked, False))
