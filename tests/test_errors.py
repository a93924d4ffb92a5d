"""Wrong calls: torch's exception class where torch has one, a message that names the argument and its value, and a
process that works afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import raw
import striate

R, T, V = RuntimeError, TypeError, ValueError
x = torch.randn(2, 4, 9, 9)
w = torch.randn(4, 1, 3, 3)
dense = torch.randn(6, 4, 3, 3)
up = torch.randn(4, 1, 3, 3)
line, taps = torch.randn(2, 4, 9), torch.randn(4, 1, 3)
volume, cube = torch.randn(1, 2, 5, 5, 5), torch.randn(2, 1, 3, 3, 3)
huge = 2**63

# (id, call on a module with conv functions, class, words of the message); every call is also made on torch
SHARED: list[tuple[str, Callable[[Any], Any], type[Exception], tuple[str, ...]]] = [
    ("rank too low", lambda m: m.conv2d(x[0, 0], w, groups=4), R, ("input", "[9, 9]", "4D")),
    ("rank too high", lambda m: m.conv2d(x[None], w, groups=4), R, ("input", "[1, 2, 4, 9, 9]")),
    ("rank 1-D", lambda m: m.conv1d(x, taps, groups=4), R, ("input", "3D")),
    ("rank 3-D", lambda m: m.conv3d(volume[0, 0], cube, groups=2), R, ("input", "5D")),
    ("weight rank", lambda m: m.conv2d(x, taps, groups=4), R, ("[4, 1, 3]",)),
    ("weight rank transposed", lambda m: m.conv_transpose2d(x, taps), R, ("[4, 1, 3]",)),
    ("channels", lambda m: m.conv2d(x, torch.randn(6, 3, 3, 3)), R, ("3 channels", "got 4")),
    (
        "channels depthwise",
        lambda m: m.conv2d(x, torch.randn(3, 1, 3, 3), groups=3),
        R,
        ("3 channels", "got 4"),
    ),
    (
        "channels transposed",
        lambda m: m.conv_transpose2d(x, torch.randn(5, 1, 3, 3)),
        R,
        ("5 channels", "got 4"),
    ),
    ("channels unbatched", lambda m: m.conv2d(x[0], torch.randn(3, 1, 3, 3), groups=3), R, ("3 channels",)),
    ("groups zero", lambda m: m.conv2d(x, w, groups=0), R, ("groups=0",)),
    ("groups negative", lambda m: m.conv2d(x, w, groups=-1), R, ("groups=-1",)),
    ("groups float", lambda m: m.conv2d(x, w, groups=4.0), T, ("groups", "4.0")),
    ("groups string", lambda m: m.conv2d(x, w, groups="4"), T, ("groups", "'4'")),
    ("groups None", lambda m: m.conv2d(x, w, groups=None), T, ("groups", "None")),
    ("groups indivisible", lambda m: m.conv2d(x, torch.randn(5, 2, 3, 3), groups=2), R, ("divisible by 2",)),
    ("groups above outputs", lambda m: m.conv2d(x, torch.randn(2, 1, 3, 3), groups=4), R, ("at least 4",)),
    ("groups transposed", lambda m: m.conv_transpose2d(x, up, groups=3), R, ("divisible by 3",)),
    ("groups zero transposed", lambda m: m.conv_transpose2d(x, up, groups=0), R, ("groups=0",)),
    ("stride zero", lambda m: m.conv2d(x, w, stride=0, groups=4), R, ("stride", "0")),
    ("stride negative", lambda m: m.conv2d(x, w, stride=-2, groups=4), R, ("stride", "-2")),
    ("stride one zero", lambda m: m.conv2d(x, w, stride=(1, 0), groups=4), R, ("stride", "[1, 0]")),
    ("stride too long", lambda m: m.conv2d(x, w, stride=(1, 1, 1), groups=4), R, ("stride", "[1, 1, 1]")),
    ("stride empty", lambda m: m.conv2d(x, w, stride=(), groups=4), R, ("stride", "[]")),
    ("stride float", lambda m: m.conv2d(x, w, stride=1.0, groups=4), T, ("stride", "1.0")),
    ("stride string", lambda m: m.conv2d(x, w, stride="1", groups=4), T, ("stride", "'1'")),
    ("stride None", lambda m: m.conv2d(x, w, stride=None, groups=4), T, ("stride", "None")),
    ("stride bool", lambda m: m.conv2d(x, w, stride=True, groups=4), T, ("stride", "True")),
    ("stride float inside", lambda m: m.conv2d(x, w, stride=(2.0, 1), groups=4), T, ("stride", "2.0")),
    ("stride tensor", lambda m: m.conv2d(x, w, stride=torch.tensor([1, 1]), groups=4), T, ("stride",)),
    ("stride overflows", lambda m: m.conv2d(x, w, stride=huge, groups=4), V, ("stride", str(huge))),
    ("stride zero transposed", lambda m: m.conv_transpose2d(x, up, stride=0), R, ("stride", "0")),
    ("padding negative", lambda m: m.conv2d(x, w, padding=-1, groups=4), R, ("padding", "-1")),
    ("padding too long", lambda m: m.conv2d(x, w, padding=(1, 1, 1), groups=4), R, ("padding", "[1, 1, 1]")),
    ("padding word", lambda m: m.conv2d(x, w, padding="full", groups=4), R, ("padding", "'full'")),
    ("padding float", lambda m: m.conv2d(x, w, padding=1.0, groups=4), T, ("padding", "1.0")),
    ("padding None", lambda m: m.conv2d(x, w, padding=None, groups=4), T, ("padding", "None")),
    ("padding overflows", lambda m: m.conv2d(x, w, padding=huge, groups=4), V, ("padding", str(huge))),
    ("padding giant", lambda m: m.conv2d(x, w, padding=2**40, groups=4), R, ("padding",)),
    ("same with stride", lambda m: m.conv2d(x, w, stride=2, padding="same", groups=4), R, ("same", "[2, 2]")),
    ("padding negative transposed", lambda m: m.conv_transpose2d(x, up, padding=-1), R, ("padding", "-1")),
    (
        "padding word transposed",
        lambda m: m.conv_transpose2d(x, up, padding="same"),
        T,
        ("padding", "'same'"),
    ),
    ("padding swallows output", lambda m: m.conv_transpose2d(x, up, padding=20), R, ("padding", "[20, 20]")),
    ("dilation zero", lambda m: m.conv2d(x, w, dilation=0, groups=4), R, ("dilation", "0")),
    ("dilation negative", lambda m: m.conv2d(x, w, dilation=-3, groups=4), R, ("dilation", "-3")),
    ("dilation float", lambda m: m.conv2d(x, w, dilation=1.0, groups=4), T, ("dilation", "1.0")),
    ("dilation giant", lambda m: m.conv2d(x, w, dilation=2**31, groups=4), R, ("kernel",)),
    ("dilation overflows", lambda m: m.conv2d(x, w, dilation=huge, groups=4), V, ("dilation", str(huge))),
    (
        "kernel beyond input",
        lambda m: m.conv2d(x, torch.randn(4, 1, 11, 3), groups=4),
        R,
        ("[9, 9]", "[11, 3]"),
    ),
    ("kernel beyond input 1-D", lambda m: m.conv1d(line, torch.randn(4, 1, 10), groups=4), R, ("[10]",)),
    ("kernel empty", lambda m: m.conv2d(x, torch.randn(4, 1, 0, 3), groups=4), R, ("kernel", "[0, 3]")),
    ("no outputs", lambda m: m.conv2d(x, torch.randn(0, 4, 3, 3)), R, ("[0, 4, 3, 3]",)),
    ("no outputs transposed", lambda m: m.conv_transpose2d(x, torch.randn(4, 0, 3, 3)), R, ("[4, 0, 3, 3]",)),
    ("empty space", lambda m: m.conv2d(x[:, :, :0], w, groups=4), R, ("[0, 9]",)),
    ("empty space padded", lambda m: m.conv2d(x[:, :, :0], dense, padding=2), R, ("[0, 9]",)),
    ("bias short", lambda m: m.conv2d(x, w, torch.randn(3), groups=4), R, ("bias", "4 elements", "[3]")),
    ("bias long", lambda m: m.conv2d(x, w, torch.randn(5), groups=4), R, ("bias", "4 elements", "[5]")),
    ("bias matrix", lambda m: m.conv2d(x, w, torch.randn(4, 1), groups=4), R, ("bias", "[4, 1]")),
    ("bias scalar tensor", lambda m: m.conv2d(x, w, torch.tensor(1.0), groups=4), R, ("bias", "[]")),
    ("bias number", lambda m: m.conv2d(x, w, 1.0, groups=4), T, ("bias", "float")),
    ("bias of the input side", lambda m: m.conv_transpose2d(x, up, torch.randn(4)), R, ("bias", "[4]")),
    ("bias dtype", lambda m: m.conv2d(x, w, torch.randn(4).double(), groups=4), R, ("bias", "float64")),
    ("weight double", lambda m: m.conv2d(x, w.double(), groups=4), R, ("weight", "float64")),
    ("weight half", lambda m: m.conv2d(x, w.bfloat16(), groups=4), R, ("weight", "bfloat16")),
    ("weight other half", lambda m: m.conv2d(x.half(), w.bfloat16(), groups=4), R, ("weight", "bfloat16")),
    ("weight integer", lambda m: m.conv2d(x, w.long(), groups=4), R, ("weight", "int64")),
    ("weight real beside complex", lambda m: m.conv2d(x + 0j, w, groups=4), R, ("complex64",)),
    ("bool", lambda m: m.conv2d(x.bool(), w.bool(), groups=4), R, ("input", "bool")),
    (
        "float8",
        lambda m: m.conv2d(x.to(torch.float8_e5m2), w.to(torch.float8_e5m2), groups=4),
        R,
        ("float8",),
    ),
    ("numpy input", lambda m: m.conv2d(x.numpy(), w, groups=4), T, ("input",)),
    ("list weight", lambda m: m.conv2d(x, [1.0]), T, ("weight", "list")),
    ("None weight", lambda m: m.conv2d(x, None), T, ("weight", "NoneType")),
    ("None input", lambda m: m.conv2d(None, w), T, ("input", "NoneType")),
    ("unknown keyword", lambda m: m.conv2d(x, w, group=4), T, ("group",)),
    ("missing weight", lambda m: m.conv2d(x), T, ("weight",)),
    ("too many", lambda m: m.conv2d(x, w, None, 1, 0, 1, 4, 1), T, ("conv2d",)),
    ("sparse", lambda m: m.conv2d(x.to_sparse(), w, groups=4), R, ("Sparse",)),
    (
        "output_padding large",
        lambda m: m.conv_transpose2d(x, up, None, 2, 0, 2),
        R,
        ("output_padding", "[2, 2]"),
    ),
    (
        "output_padding plain",
        lambda m: m.conv_transpose2d(x, up, None, 1, 0, 1),
        R,
        ("output_padding", "[1, 1]"),
    ),
    (
        "output_padding negative",
        lambda m: m.conv_transpose2d(x, up, None, 2, 0, -1),
        R,
        ("output_padding", "-1"),
    ),
    (
        "output_padding word",
        lambda m: m.conv_transpose2d(x, up, None, 2, 0, "1"),
        T,
        ("output_padding", "'1'"),
    ),
    (
        "output_padding long",
        lambda m: m.conv_transpose2d(x, up, None, 2, 0, (1, 1, 1)),
        R,
        ("output_padding",),
    ),
]

# mistakes that torch does not refuse, or that only our own functions know
OWN: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("meta weight", lambda: striate.conv2d(x, w.to("meta"), groups=4), R, ("weight", "meta")),
    ("meta bias", lambda: striate.conv2d(x, w, torch.randn(4, device="meta"), groups=4), R, ("bias", "meta")),
    (
        "depthwise weight rank",
        lambda: striate.depthwise_conv2d(x, torch.randn(4, 3)),
        R,
        ("weight", "[4, 3]"),
    ),
    ("depthwise channels", lambda: striate.depthwise_conv2d(x, torch.randn(6, 3, 3)), R, ("divisible by 4",)),
    ("depthwise dense", lambda: striate.depthwise_conv2d(x, torch.randn(4, 4, 3, 3)), R, ("16 channels",)),
    ("depthwise no channels", lambda: striate.depthwise_conv2d(x[:, :0], w[:0]), R, ("groups=0",)),
    ("depthwise has no groups", lambda: striate.depthwise_conv2d(x, w, groups=4), T, ("groups",)),  # type: ignore[call-arg]
    ("dilation zero transposed", lambda: striate.conv_transpose2d(x, up, dilation=0), R, ("dilation", "0")),
    ("stride giant transposed", lambda: striate.conv_transpose2d(x, up, stride=2**40), R, ("stride",)),
    ("explain a bad line", lambda: striate.explain("conv fwd f32"), V, ()),
    ("explain a foreign function", lambda: striate.explain(torch.relu, x), T, ("relu",)),
]


def _healthy() -> None:
    torch.testing.assert_close(striate.conv2d(x, w, None, 1, 1, 1, 4), F.conv2d(x, w, None, 1, 1, 1, 4))


def _raised(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize(
    ("call", "kind", "words"), [row[1:] for row in SHARED], ids=[row[0] for row in SHARED]
)
def test_wrong_calls_raise_what_torch_raises(
    call: Callable[[Any], Any], kind: type[Exception], words: tuple[str, ...]
) -> None:
    for _ in range(2):  # the second time past every memo
        ours = _raised(lambda: call(striate))
        assert isinstance(ours, kind), ours
        assert all(word in str(ours) for word in words), ours
    torchs = _raised(lambda: call(F))
    assert isinstance(torchs, kind), torchs
    _healthy()


@pytest.mark.parametrize(("call", "kind", "words"), [row[1:] for row in OWN], ids=[row[0] for row in OWN])
def test_mistakes_of_our_own(call: Callable[[], Any], kind: type[Exception], words: tuple[str, ...]) -> None:
    ours = _raised(call)
    assert isinstance(ours, kind), ours
    assert all(word in str(ours) for word in words), ours
    _healthy()


@pytest.mark.parametrize(
    "call",
    [
        lambda: raw.conv(x, w, None, [0, 1], [0, 0], [1, 1], 4),
        lambda: raw.conv(x, w, None, [1, 1], [0] * 6, [1, 1], 4),
        lambda: raw.conv(x, w, None, [1, 1], [0, 0], [1, 1], 3),
        lambda: raw.conv(x, w, torch.randn(5), [1, 1], [0, 0], [1, 1], 4),
        lambda: raw.conv(x, w.double(), None, [1, 1], [0, 0], [1, 1], 4),
        lambda: raw.conv(x.long(), w.long(), None, [1, 1], [0, 0], [1, 1], 4),
        lambda: raw.conv(x, w, None, [1, 1], [-5, -5], [1, 1], 4),
        lambda: raw.conv(x, w, None, [1], [0], [1], 4),
        lambda: raw.conv(x[0, 0], w, None, [1, 1], [0, 0], [1, 1], 4),
        lambda: raw.conv_grad_input(x, w, None, [1, 1], [9, 9], [0, 0], [1, 1], 4),
        lambda: raw.conv_grad_weight(x, x, [3, 3], [1, 1], [0, 0], [1, 1], 4, False),
    ],
)
def test_raw_operators_raise_and_live(call: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        call()
    _healthy()


def test_the_raw_operator_warns_before_a_gradient_is_lost() -> None:
    a = x.clone().requires_grad_()
    y = raw.conv(a, w, None, [1, 1], [0, 0], [1, 1], 4)
    with pytest.warns(UserWarning, match="autograd kernel was not registered"):
        y.sum().backward()
