"""Draw the pictures of the documentation; --check only compares.

    python docs/pictures/draw.py [--check]

What an operator reads is not drawn by hand: it is where the derivative of the marked output is not zero, asked of the
operator itself. What records show is drawn by `tools/plots.py`. The files are written number by number instead of by a
plotting library, so that they do not change with its version; --check allows for the last digit, which depends on the
processor.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from canvas import BLUE, GREY, ORANGE, Drawing
from torch import Tensor

import striate
from striate import nn

HERE = Path(__file__).parent
CELL, GAP, TOP = 13, 34, 22


def reads(call: Callable[[Tensor], Tensor], size: tuple[int, ...], at: tuple[int, ...]) -> Tensor:
    """1 where the output at ``at`` depends on the input, else 0."""
    x = torch.linspace(1, 2, torch.Size(size).numel()).view(size).requires_grad_()
    call(x)[at].backward()
    assert x.grad is not None
    return (x.grad != 0).float()


def shades(kernel: Tensor) -> Tensor:
    """The magnitudes of a kernel, the largest 1."""
    kernel = kernel.detach().abs()
    return kernel / kernel.max()


Panel = tuple[str, Tensor, tuple[int, int] | None]


def planes(panels: Sequence[Panel], cell: int = CELL) -> Drawing:
    """Planes [H, W] of shades in [0, 1] beside each other; the marked cell is the output."""
    widths = [max(cell * plane.shape[1], 6 * len(title)) for title, plane, _ in panels]
    height = max(plane.shape[0] for _, plane, _ in panels) * cell
    drawing = Drawing(sum(widths) + GAP * (len(panels) - 1) + 16, TOP + height + 10)
    x = 8.0
    for (title, plane, marked), width in zip(panels, widths, strict=True):
        drawing.text(x, 14, title)
        drawing.grid(x, TOP, cell, (plane.shape[0], plane.shape[1]))
        for row, line in enumerate(plane.tolist()):
            for column, shade in enumerate(line):
                drawing.shade(x + column * cell, TOP + row * cell, cell, shade)
        if marked is not None:
            drawing.frame(x + marked[1] * cell, TOP + marked[0] * cell, cell)
        x += width + GAP
    return drawing


def rows(panels: list[tuple[str, Tensor, int]]) -> Drawing:
    """Inputs above, outputs below, a line where they meet; the jacobians are [outputs, inputs]."""
    cell, tall = 22, 74
    width = max(max(max(jacobian.shape) * cell + 60, 6 * len(title)) for title, jacobian, _ in panels) + 10
    drawing = Drawing(width + 16, len(panels) * (tall + 40) + 6)
    for number, (title, jacobian, marked) in enumerate(panels):
        y = 14 + number * (tall + 40)
        drawing.text(8, y, title)
        outputs, inputs = jacobian.shape
        for o, i in jacobian.nonzero().tolist():
            near = o == marked
            centres = (60 + (i + 0.5) * cell, y + 28, 60 + (o + 0.5) * cell, y + 8 + tall - 18)
            drawing.line(*centres, BLUE if near else GREY, 2 if near else 1)
        drawing.text(8, y + 24, "input")
        drawing.text(8, y + tall + 1, "output")
        for top, count, marks, colour in (
            (y + 12, inputs, jacobian[marked].nonzero().flatten().tolist(), BLUE),
            (y + tall - 11, outputs, [marked], ORANGE),
        ):
            for place in range(count):
                left = 60 + place * cell + 3
                drawing.shade(left, top, 16, 1.0, colour if place in marks else "#ffffff")
                drawing.grid(left, top, 16, (1, 1))
    return drawing


def curves(panels: Sequence[tuple[str, Sequence[float]]]) -> Drawing:
    """Values in [-1, 1] over their index, one panel beside the other."""
    width, tall, gap = 150, 70, 20
    drawing = Drawing(len(panels) * (width + gap) + 12, tall + 46)
    for number, (name, values) in enumerate(panels):
        left = 10 + number * (width + gap)
        drawing.text(left, 14, name)
        drawing.line(left, 24 + tall / 2, left + width, 24 + tall / 2)
        drawing.path(
            [
                (left + width * i / (len(values) - 1), 24 + tall / 2 * (1 - value))
                for i, value in enumerate(values)
            ],
            BLUE,
        )
        drawing.text(left, tall + 38, f"0 ... {len(values) - 1} samples ago")
    return drawing


def jacobian(call: Callable[[Tensor], Tensor], length: int, x: Tensor | None = None) -> Tensor:
    """[outputs, inputs] of an operator on one sequence ``[1, 1, length]``."""
    x = torch.linspace(1, 2, length) if x is None else x
    full = torch.autograd.functional.jacobian(lambda v: call(v.view(1, 1, -1)).flatten(), x)
    return (full.abs() > 1e-6 * full.abs().max()).float()


def conv() -> Drawing:
    """One output of a convolution in groups."""
    weight = torch.ones(4, 2, 3, 3)
    got = reads(lambda x: striate.conv2d(x, weight, padding=1, groups=2), (1, 4, 6, 6), (0, 2, 2, 3))[0]
    return planes([(f"channel {c}", got[c], (2, 3) if c == 2 else None) for c in range(4)])


def depthwise() -> Drawing:
    """One output of depthwise convolutions: plain, dilated, strided."""

    def panel(k: int, at: int, **options: Any) -> Tensor:
        call = lambda x: striate.depthwise_conv2d(x, torch.ones(1, 1, k, k), **options)  # noqa: E731
        return reads(call, (1, 1, 9, 9), (0, 0, at, at))[0, 0]

    return planes(
        [
            ("5x5", panel(5, 4, padding=2), (4, 4)),
            ("3x3, dilation 2", panel(3, 4, padding=2, dilation=2), (4, 4)),
            ("3x3, stride 2: output (2, 2)", panel(3, 2, padding=1, stride=2), (4, 4)),
        ]
    )


def conv_transpose() -> Drawing:
    """Stride and taps of a transposed convolution."""
    weight = torch.ones(1, 1, 3)
    plain = jacobian(lambda x: striate.conv1d(x, weight, stride=2, padding=1), 9)
    back = jacobian(lambda x: striate.conv_transpose1d(x, weight, stride=2, padding=1), 5)
    return rows([("convolution, k = 3, stride 2", plain, 2), ("its transpose: the same lines", back, 3)])


def pool() -> Drawing:
    """Windows of a sum, and the element that a maximum depends on."""
    x = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
    total = jacobian(lambda v: striate.sum_pool1d(v, 3, 2, 1), 11)
    largest = jacobian(lambda v: striate.max_pool1d(v, 3, 2, 1), 11, x)
    return rows(
        [
            ("sum, window 3, stride 2, padding 1", total, 2),
            ("max of 3 1 4 1 5 9 2 6 5 3 5: its gradient goes to one input", largest, 2),
        ]
    )


def causal() -> Drawing:
    """Taps look back, and not into another sequence."""
    weight = torch.ones(1, 4)
    marks = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]])
    plain = jacobian(lambda x: striate.causal_conv1d(x, weight), 12)
    packed = jacobian(lambda x: striate.causal_conv1d(x, weight, seq_idx=marks), 12)
    return rows([("W = 4", plain, 6), ("seq_idx = 0 0 0 0 0 1 1 1 1 1 1 1", packed, 6)])


def fft_conv() -> Drawing:
    """The matrix of each padding; the shade says which tap."""
    kernel = torch.tensor([[1.0, 2, 3, 4, 5]])

    def panel(padding: str) -> Tensor:
        call = lambda x: striate.fft_conv1d(x.view(1, 1, -1), kernel, padding=padding)  # noqa: E731
        full = torch.autograd.functional.jacobian(lambda x: call(x).flatten(), torch.zeros(8))
        return full.round() / 5

    return planes(
        [
            (f"{word}: rows are outputs" if word == "causal" else word, panel(word), None)
            for word in ("causal", "same", "full", "circular")
        ]
    )


def dcls() -> Drawing:
    """Five elements at learned positions, as each version spreads them."""
    positions = torch.tensor([[-3.2, 0.0, 2.5, 3.0, -1.6], [2.7, 0.0, -2.5, 3.0, -3.0]]).view(2, 1, 1, 5)
    weight = torch.tensor([1.0, 1, 1, 1, 1]).view(1, 1, 5)
    panels: list[Panel] = []
    for version in ("v0", "v1", "max", "gauss"):
        places = positions.flip(0) if version == "v0" else positions
        sigma = torch.full_like(places, 0.5) if version in ("max", "gauss") else None
        kernel = striate.dcls_kernel(weight, places, sigma, dilated_kernel_size=9, version=version)
        panels.append((version, shades(kernel[0, 0]), None))
    return planes(panels)


def shiftwise() -> Drawing:
    """What one output of each of the three sums reads."""
    permutations = striate.shiftwise_permutations(1, 11, 3, 2)
    weights = torch.ones(2, 4, 1, 3, 3)

    def panel(which: int) -> Tensor:
        call = lambda x: striate.shiftwise_conv2d(x, weights, big_kernel=11, permutations=permutations)[which]  # noqa: E731
        return reads(call, (1, 1, 15, 15), (0, 0, 7, 7))[0, 0]

    names = ("H: 3 x 12", "V: 12 x 3", "I: 3 x 3")
    return planes([(name, panel(which), (7, 7)) for which, name in enumerate(names)], cell=10)


def reparam() -> Drawing:
    """The kernels that are trained side by side, and the one that replaces them."""
    torch.manual_seed(0)
    layer = nn.DilatedReparamConv2d(1, 7)
    panels: list[Panel] = []
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            size, dilation = module.kernel_size[0], module.dilation[0]
            reach = (size - 1) * dilation // 2
            plane = torch.zeros(7, 7)
            plane[3 - reach : 4 + reach : dilation, 3 - reach : 4 + reach : dilation] = 0.6
            panels.append(
                (f"{size}x{size}" + (f", dilation {dilation}" if dilation > 1 else ""), plane, None)
            )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(1.0)
    merged: Any = nn.merge(layer.eval())
    return planes([*panels, ("merged", shades(merged.weight[0, 0]), None)])


def built() -> Drawing:
    """Kernels as some builders make them."""
    torch.manual_seed(3)
    options: dict[str, Any] = {"padding": 5, "bias": False}
    density = [0.2, 0.4, 0.6, 0.8, 1.0]
    layers: list[tuple[str, Any]] = [
        ("SMPConv2d", nn.SMPConv2d(1, 1, 11, n_points=6, radius=0.35, coordinate_std=0.5, **options)),
        (
            "WeightedConv2d, density 0.2 ... 1",
            nn.WeightedConv2d(1, 1, 11, density=density, **options),
        ),
        ("GaborConv2d", nn.GaborConv2d(1, 1, 11, **options)),
        ("ContinuousKernelConv2d", nn.ContinuousKernelConv2d(1, 1, 11, omega=6.0, **options)),
    ]
    with torch.no_grad():
        for name, value in (("freq", 1.2), ("theta", 0.6), ("sigma", 2.2), ("psi", 0.3)):
            getattr(layers[2][1], name).fill_(value)
        layers[1][1].weight.fill_(1.0)
    return planes([(name, shades(layer.kernel()[0, 0]), None) for name, layer in layers], cell=11)


def dynamic() -> Drawing:
    """What one output of some layers reads."""
    slices = nn.SliceRecurrent2d(1, 3, directions="D")
    with torch.no_grad():
        for parameter in slices.parameters():
            parameter.fill_(0.1)
    mask = torch.ones(1, 1, 9, 9)
    mask[..., 3:7, 5:9] = 0
    partial = nn.PartialConv2d(1, 1, 5, padding=2)
    with torch.no_grad():
        partial.weight.fill_(1.0)
    size, at = (1, 1, 9, 9), (0, 0, 4, 4)
    holes = reads(lambda x: partial(x, mask)[0], size, at)[0, 0] + 0.12 * (1 - mask[0, 0])
    return planes(
        [
            ("PartialConv2d, 5x5, a hole in light blue", holes, (4, 4)),
            ("SliceRecurrent2d, downwards", reads(slices, size, (0, 0, 5, 4))[0, 0], (5, 4)),
            ("SpaceToDepth, channel 2", reads(nn.SpaceToDepth(), (1, 1, 8, 8), (0, 2, 1, 2))[0, 0], None),
        ]
    )


def long_layers() -> Drawing:
    """The kernels that layers of full length begin with, one channel of each."""
    torch.manual_seed(1)
    length = 128
    hyena: Any = nn.HyenaFilter(4, seq_len=length, w=10.0)
    modal = nn.ModalConv1d(4, 3)
    layers: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("SGConv1d", nn.SGConv1d(4, length, kernel_dim=8, activation=None, pointwise=False)),
        ("MultiresConv1d, Haar", nn.MultiresConv1d(4, length=length, wavelet="haar", activation=None)),
        ("ModalConv1d", modal),
    ]
    impulse = torch.zeros(1, 4, length)
    impulse[..., 0] = 1
    with torch.no_grad():
        kernels = [(name, call(impulse)[0, 1]) for name, call in layers]
        kernels.insert(2, ("HyenaFilter", hyena.filter(length).reshape(-1, length)[1]))
    return curves([(name, (kernel / kernel.abs().max()).tolist()) for name, kernel in kernels])


PICTURES: tuple[Callable[[], Drawing], ...] = (
    *(conv, depthwise, conv_transpose, pool, causal, fft_conv, dcls, shiftwise),
    *(reparam, built, dynamic, long_layers),
)


def parts(text: str) -> Iterator[str | float]:
    """A file as words and numbers."""
    for number, part in enumerate(re.split(r"(-?\d+\.\d+)", text)):
        yield float(part) if number % 2 else part


def same(one: str, other: str) -> bool:
    """Whether two files show the same; numbers may differ in the last digit."""
    left, right = list(parts(one)), list(parts(other))
    return len(left) == len(right) and all(
        abs(a - b) < 0.15 if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(left, right, strict=True)
    )


def main() -> int:
    """Draw, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a picture is not up to date")
    check, stale = parser.parse_args().check, 0
    for picture in PICTURES:
        path, text = HERE / f"{picture.__name__}.svg", picture().svg(picture.__doc__ or "")
        if not check:
            path.write_text(text)
        elif not path.exists() or not same(path.read_text(), text):
            print(f"docs/pictures/{path.name}: not what it is drawn from; draw it with `make docs`")
            stale += 1
    print(f"{len(PICTURES)} pictures")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
