"""Problems to be measured: the Python reading of a problem line, what it costs, and the files that list them.

The core validates every line; this module only takes valid lines apart. Operations and bytes come from the
geometry and are never typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from math import prod
from pathlib import Path

import numpy as np
import torch

from .. import _core
from .._problem import DTYPE_WORDS, conv_line
from .specs import Spec

PASSES = ("fwd", "dx", "dw")
STEP = "fwdbwd"  # a forward pass and both gradients through autograd, as a training step has them
DEVICES = ("cpu", "cuda")
DTYPES = {word: dtype for dtype, word in DTYPE_WORDS.items()}

_LINE = re.compile(
    r"conv (?P<pass>\w+) (?P<dtype>\w+)(:(?P<weight>\w+))? (?P<layout>\w+) (?P<device>\w+) n(?P<n>\d+) g(?P<g>\d+) "
    r"ci(?P<ci>\d+) co(?P<co>\d+) i(?P<i>[\dx]+) k(?P<k>[\dx]+) s(?P<s>[\dx]+) d(?P<d>[\dx]+) p(?P<p>[-+\dx]+)"
)


def _ints(word: str) -> tuple[int, ...]:
    return tuple(int(part) for part in word.split("x"))


@dataclass(frozen=True)
class Problem:
    """One pass of one convolution; shapes are those of the forward convolution whatever the pass.

    ``c_in`` and ``c_out`` count channels per group, ``pads`` holds (low, high) per spatial axis.
    """

    pass_: str
    dtype: torch.dtype
    weight_dtype: torch.dtype
    layout: str
    device: str
    batch: int
    groups: int
    c_in: int
    c_out: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, line: str) -> Problem:
        """Read a line, ``fwdbwd`` for all three passes among them; ValueError, in the words of the core, if invalid."""
        if line.split()[1:2] == [STEP]:
            return cls.parse(line.replace(STEP, PASSES[0], 1)).of(STEP)
        line = _normal(line)
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"expected a line like 'conv fwd f32 nchw cpu n1 g8 ...', got {line!r}")
        word = found.groupdict()
        dtype = DTYPES[word["dtype"]]
        pads = [part.split("+") for part in word["p"].split("x")]
        return cls(
            pass_=word["pass"],
            dtype=dtype,
            weight_dtype=DTYPES[word["weight"]] if word["weight"] else dtype,
            layout=word["layout"],
            device=word["device"],
            batch=int(word["n"]),
            groups=int(word["g"]),
            c_in=int(word["ci"]),
            c_out=int(word["co"]),
            size=_ints(word["i"]),
            kernel=_ints(word["k"]),
            stride=_ints(word["s"]),
            dilation=_ints(word["d"]),
            pads=tuple((int(low), int(high)) for low, high in pads),
        )

    def __str__(self) -> str:
        return conv_line(
            self.pass_,
            (self.dtype, self.weight_dtype),
            (self.layout, self.device),
            (self.batch, self.groups, self.c_in, self.c_out),
            (self.size, self.kernel, self.stride, self.dilation, self.padding),
        )

    def of(self, pass_: str) -> Problem:
        """The same convolution, another pass."""
        return replace(self, pass_=pass_)

    def in_dtype(self, dtype: torch.dtype) -> Problem:
        """The same convolution on tensors of one other dtype."""
        return replace(self, dtype=dtype, weight_dtype=dtype)

    def on(self, device: str) -> Problem:
        """The same convolution on another device."""
        return replace(self, device=device)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def padding(self) -> tuple[int, ...]:
        """lo0, hi0, lo1, hi1, ... as the raw operators take it."""
        return tuple(pad for pair in self.pads for pad in pair)

    @property
    def output(self) -> tuple[int, ...]:
        """Spatial size of the forward output."""
        axes = zip(self.size, self.kernel, self.stride, self.dilation, self.pads, strict=True)
        return tuple((i + lo + hi - d * (k - 1) - 1) // s + 1 for i, k, s, d, (lo, hi) in axes)

    @property
    def output_padding(self) -> tuple[int, ...]:
        """Positions of the input at its high end that no window reaches."""
        axes = zip(self.size, self.kernel, self.stride, self.dilation, self.pads, strict=True)
        return tuple((i + lo + hi - d * (k - 1) - 1) % s for i, k, s, d, (lo, hi) in axes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of input ``x``, weight ``w`` and output gradient ``g``."""
        return {
            "x": (self.batch, self.groups * self.c_in, *self.size),
            "w": (self.groups * self.c_out, self.c_in, *self.kernel),
            "g": (self.batch, self.groups * self.c_out, *self.output),
        }

    @property
    def macs(self) -> int:
        """Multiply-adds, counting only taps that meet real input; the same for each pass, thrice for all three."""
        axes = zip(self.size, self.kernel, self.stride, self.dilation, self.pads, self.output, strict=True)
        meetings = prod(_meetings(i, k, s, d, lo, o) for i, k, s, d, (lo, _), o in axes)
        return meetings * self.batch * self.groups * self.c_in * self.c_out * self._passes

    @property
    def bytes(self) -> int:
        """Bytes of the two operands read once and the result written once, in every pass."""
        wide = {"x": self.dtype.itemsize, "w": self.weight_dtype.itemsize, "g": self.dtype.itemsize}
        return sum(prod(shape) * wide[name] for name, shape in self.shapes.items()) * self._passes

    @property
    def im2col(self) -> int:
        """Bytes of the matrix that unfolds one group of one sample for a matrix product: every tap at every output."""
        return prod(self.kernel) * self.c_in * prod(self.output) * self.dtype.itemsize

    @property
    def _passes(self) -> int:
        return len(PASSES) if self.pass_ == STEP else 1

    @property
    def terms(self) -> int:
        """Longest sum behind one element of the result."""
        if self.pass_ in ("dw", STEP):
            return self.batch * prod(self.output)
        return prod(self.kernel) * (self.c_in if self.pass_ == "fwd" else self.c_out)

    @property
    def short(self) -> str:
        """Kernel and shape for a table, such as ``7x7 8x128x56x56 s2``."""
        text = _x(self.kernel) if self.rank > 1 else f"k{self.kernel[0]}"
        text += f" {self.batch}x{self.groups * self.c_in}x{_x(self.size)}"
        if set(self.stride) != {1}:
            text += f" s{_x(self.stride[:1] if len(set(self.stride)) == 1 else self.stride)}"
        if set(self.dilation) != {1}:
            text += f" d{_x(self.dilation[:1] if len(set(self.dilation)) == 1 else self.dilation)}"
        if any(high == 0 < low for low, high in self.pads):
            text += " causal"
        return text + (" last" if self.layout == "nhwc" else "")


def _normal(line: str) -> str:
    """The line as the core prints it; it need not have a kernel for the line's device."""
    words = line.split()
    elsewhere = words[4] if len(words) > 4 and words[4] in DEVICES[1:] else None
    try:
        return _core.explain(line)["problem"]
    except RuntimeError:
        if elsewhere is None:
            raise
        here = " ".join([*words[:4], DEVICES[0], *words[5:]])
        return _core.explain(here)["problem"].replace(f" {DEVICES[0]} ", f" {elsewhere} ", 1)


def _x(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values))


def _meetings(size: int, kernel: int, stride: int, dilation: int, low: int, output: int) -> int:
    """(output, tap) pairs of one axis that meet a position inside the tensor."""
    start = np.arange(output, dtype=np.int64) * stride - low
    first = np.maximum(0, -(start // dilation))  # the first tap at or after position 0
    last = np.minimum(kernel - 1, (size - 1 - start) // dilation)
    return int(np.maximum(0, last - first + 1).sum())


@dataclass(frozen=True)
class Entry:
    """A problem and where it comes from: the file's name and the remark behind the line."""

    family: str
    label: str
    problem: Problem | Spec


def parse(line: str) -> Problem | Spec:
    """A convolution, or a line of another family; ValueError says what is wrong with it."""
    return Problem.parse(line) if line.split()[:1] == ["conv"] else Spec.parse(line)


def named(words: Sequence[str]) -> list[Entry]:
    """Entries of words of a command line: families, files, lines in quotes, or one line without them."""
    from .families import operators  # the families read specs, which are problems too

    if len(words) > 1 and (words[0] == "conv" or words[0] in operators()):
        words = [" ".join(words)]
    found: list[Entry] = []
    for word in words:
        found += [Entry("line", "", parse(word))] if " " in word.strip() else load(word)
    return found


def families() -> list[str]:
    """Names of the problem files that come with the package."""
    folder = files(__package__) / "problems"
    return sorted(item.name.removesuffix(".txt") for item in folder.iterdir() if item.name.endswith(".txt"))


def load(source: str) -> list[Entry]:
    """Entries of a family that comes with the package, or of a file; ValueError names a line that is wrong."""
    if source in families():
        name, text = source, (files(__package__) / "problems" / f"{source}.txt").read_text()
    elif Path(source).is_file():
        name, text = Path(source).stem, Path(source).read_text()
    else:
        raise ValueError(
            f"expected a family ({', '.join(families())}), a file or a problem line, got {source!r}"
        )
    return list(_entries(name, text))


def _entries(family: str, text: str) -> Iterator[Entry]:
    for number, raw in enumerate(text.splitlines(), 1):
        line, _, label = raw.partition("#")
        if not line.strip():
            continue
        try:
            problem = parse(line.strip())
        except ValueError as error:
            raise ValueError(f"{family} line {number}: {error}") from None
        yield Entry(family, label.strip(), problem)
