"""conv1d beyond the crossover: transforms instead of sums, chosen by rule, with the same answers and derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import striate
from striate import _core
from striate.ops import _long
from striate.ops._fft import fft_conv, fft_conv_grad_kernel

F32, F64 = torch.float32, torch.float64


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def row(*args: object, **named: object) -> str:
    return striate.explain(striate.conv1d, *args, **named).row


def long_case(
    dtype: torch.dtype = F32, multiplier: int = 1, taps: int = 200
) -> tuple[Tensor, Tensor, Tensor]:
    x, w = random(2, 8, 1500, dtype=dtype), random(8 * multiplier, 1, taps, seed=1, dtype=dtype)
    return x, w, random(8 * multiplier, seed=2, dtype=dtype)


@pytest.mark.parametrize("padding", [0, 3, 199, "same"])
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_answers_and_gradients_are_those_of_sums(
    dtype: torch.dtype, multiplier: int, padding: int | str
) -> None:
    operands = [t.requires_grad_() for t in long_case(dtype, multiplier)]
    exact = [t.detach().double().requires_grad_() for t in operands]
    assert row(*operands, padding=padding, groups=8).startswith("fft_conv.")
    y = striate.conv1d(*operands, padding=padding, groups=8)
    true = F.conv1d(*exact, padding=padding, groups=8)
    g = random(*true.shape, seed=3, dtype=dtype)
    x, w, _ = exact
    unit = 50 * torch.finfo(dtype).eps
    assert y.shape == true.shape and y.dtype == dtype
    assert (y - true).abs().max() <= unit * x.abs().max() * w.abs().sum(-1).max()
    got, expected = torch.autograd.grad(y, operands, g), torch.autograd.grad(true, exact, g.double())
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= unit * 200 * theirs.abs().mean() + 1e-12
    assert torch.equal(striate.depthwise_conv1d(*operands, padding=padding), y)
    assert torch.equal(striate.conv1d(operands[0][0], *operands[1:], padding=padding, groups=8), y[0])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"taps": 127}, "127 taps"),
        ({"stride": 2}, "stride or dilation"),
        ({"dilation": 2}, "stride or dilation"),
        ({"padding": 200}, "padding 200"),
        ({"size": 220}, "too few"),
        ({"dtype": torch.bfloat16}, "bfloat16"),
        ({"layout": "nhwc"}, "not neighbours"),
        ({"filter": "-^fft_conv"}, "forbidden"),
        ({"filter": "^depthwise|reference"}, "forbidden"),
    ],
)
def test_everything_else_is_summed(change: dict[str, object], word: str) -> None:
    x, w, b = long_case(change.get("dtype", F32), taps=change.get("taps", 200))
    x = x[..., : change.get("size", 1500)].contiguous()
    if change.get("layout"):
        x = x.mT.contiguous().mT
    options = {name: change[name] for name in ("stride", "dilation", "padding") if name in change}
    _core.set_kernels(change.get("filter"))
    try:
        found = striate.explain(striate.conv1d, x, w, b, groups=8, **options)
    finally:
        _core.set_kernels(None)
    assert not found.row.startswith("fft") and ("fft_conv", True) in [
        (name, word in why) for name, why in found.refusals
    ]


def test_explain_names_the_row_and_the_rule() -> None:
    x, w, b = long_case()
    found = striate.explain(striate.conv1d, x, w, b, groups=8)
    assert found.row.startswith("fft_conv.") and "200 taps" in found.why
    assert striate.explain(torch.nn.Sequential(striate.nn.Conv1d(8, 8, 200, groups=8)), x).row == found.row
    assert "taps" not in striate.explain(striate.conv1d, x, w[..., :9], b, groups=8).why


def test_exact_integers_remain_behind_the_switch() -> None:
    x, w = torch.randint(-8, 9, (2, 8, 1500)).float(), torch.randint(-8, 9, (8, 1, 200)).float()
    _core.set_kernels("-^fft_conv")
    try:
        assert torch.equal(striate.conv1d(x, w, groups=8), F.conv1d(x, w, groups=8))
    finally:
        _core.set_kernels(None)


def test_samples_do_not_depend_on_their_batch() -> None:
    for length, taps in ((1500, 200), (5000, 1000), (40_000, 129)):
        x, w = random(5, 4, length), random(4, 1, taps, seed=1)
        y = striate.conv1d(x, w, groups=4)
        for count in (1, 2):
            assert torch.equal(y[1 : 1 + count], striate.conv1d(x[1 : 1 + count], w, groups=4))


def test_derivatives_of_derivatives_and_transforms() -> None:
    x, w = random(1, 64, 300, dtype=F64), random(64, 1, 140, seed=1, dtype=F64)
    assert row(x, w, groups=64).startswith("fft")

    def few(a: Tensor, b: Tensor) -> Tensor:  # a few numbers of a problem that is long enough
        return striate.conv1d(x + a.sum() * x, w * b.sum(), groups=64).flatten()[:3]

    a, b = (random(2, seed=seed, dtype=F64).requires_grad_() for seed in (3, 4))
    assert torch.autograd.gradcheck(few, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(few, (a, b))
    xs, ws = torch.stack([x, 2 * x]), torch.stack([w, w - 1])
    got = torch.func.vmap(lambda a, b: striate.conv1d(a, b, groups=64))(xs, ws)
    each = [striate.conv1d(a, b, groups=64) for a, b in zip(xs, ws, strict=True)]
    assert torch.allclose(got, torch.stack(each), rtol=0, atol=1e-10)


@pytest.mark.slow
def test_compiles() -> None:
    x, w, b = (t.requires_grad_() for t in long_case())
    compiled = torch.compile(
        lambda x, w, b: striate.conv1d(x, w, b, groups=8, padding=7).square(), fullgraph=True
    )
    y, exact = compiled(x, w, b), striate.conv1d(x, w, b, groups=8, padding=7).square()
    assert torch.allclose(y, exact, rtol=1e-4, atol=1e-3)
    for got, expected in zip(
        torch.autograd.grad(y.sum(), (x, w, b)), torch.autograd.grad(exact.sum(), (x, w, b)), strict=True
    ):
        assert torch.allclose(got, expected, rtol=1e-3, atol=float(expected.abs().max()) * 1e-4)


def test_autocast_is_summed_in_half() -> None:
    x, w, b = long_case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _long.unfit(x) == "autocast"
        assert striate.conv1d(x, w, b, groups=8).dtype == torch.bfloat16


def test_kept_values_are_found_again_and_never_stale() -> None:
    x, k = random(3, 5, 700), random(5, 300, seed=1)
    striate.cache_clear()
    fresh = fft_conv(x, k, (0,), (0,), False, False)
    for _ in range(3):
        assert torch.equal(fft_conv(x, k, (0,), (0,), False, False, True), fresh)
    # Other settings and types of the same numbers are others.
    for rest in ((0,), (0,), True, False), ((5,), (0,), True, False), ((299,), (0,), False, True):
        plain = fft_conv(x, k, *rest)
        assert torch.equal(fft_conv(x, k, *rest, True), plain)
        assert torch.equal(
            fft_conv(x.double(), k.double(), *rest, True), fft_conv(x.double(), k.double(), *rest)
        )
    # No version counter sees this.
    k.numpy()[2, 100] += 1
    changed = fft_conv(x, k, (0,), (0,), False, False, True)
    assert not torch.equal(changed, fresh) and torch.equal(changed, fft_conv(x, k, (0,), (0,), False, False))
    for row_name in ("portable", "avx2", "avx512"):  # values have each instruction set's own order
        _core.set_kernels(rf"^fft_conv\.{row_name}$")
        try:
            plain, kept = (fft_conv(x, k, (0,), (0,), False, False, keep) for keep in (False, True))
        finally:
            _core.set_kernels(None)
        assert torch.equal(plain, kept)
    striate.cache_clear()
    assert torch.equal(fft_conv(x, k, (0,), (0,), False, False, True), changed)


def test_one_long_transform_has_the_same_bits_on_all_threads() -> None:
    threads, found = torch.get_num_threads(), []
    cases = [
        ((1, 1, 150_001), (1, 150_001)),
        ((1, 2, 40_000), (2, 40_000)),
        ((1, 1, 300, 301), (1, 300, 301)),
    ]
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            for sizes, taps in cases:
                for dtype in (F32, F64, torch.bfloat16):
                    x, k = (
                        random(*sizes, dtype=dtype),
                        random(*taps, seed=1, dtype=F64 if dtype == F64 else F32),
                    )
                    zero = (0,) * (len(sizes) - 2)
                    y = fft_conv(x, k, zero, zero, False, False)
                    found.append((count, y, fft_conv_grad_kernel(y, x, taps[1:], False, zero, True, False)))
    finally:
        torch.set_num_threads(threads)
    alone = found[: len(found) // 3]
    for at, (_, y, dk) in enumerate(found):
        assert torch.equal(y, alone[at % len(alone)][1]) and torch.equal(dk, alone[at % len(alone)][2])
