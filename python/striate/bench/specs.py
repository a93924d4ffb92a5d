"""Problem lines of everything but single convolution passes: pooling, causal, long, learned kernels, layers.

``max_pool2d fwd f32 nchw cpu n8 c64 i112x112 k3x3`` reads like a convolution's line: operator, pass (``fwd`` or
``fwdbwd``), dtype, layout, device, then sizes behind their letters, which each operator names for itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from .._problem import DTYPE_WORDS

SPEC_PASSES = ("fwd", "fwdbwd")
_CHOICES = {
    "pass": SPEC_PASSES,
    "dtype": tuple(DTYPE_WORDS.values()),
    "layout": ("nchw", "nhwc"),
    "device": ("cpu", "cuda"),
}
_SIZE = re.compile(r"([a-z]+)(\d+(?:x\d+)*)")


@dataclass(frozen=True)
class Spec:
    """One line, taken apart; ``sizes`` are pairs of letter and numbers in the order of the line."""

    op: str
    pass_: str
    dtype: torch.dtype
    layout: str
    device: str
    sizes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, line: str) -> Spec:
        """Read a line; ValueError names the word that is wrong."""
        from .families import letters  # the families make what specs name

        words = line.split()
        op = words[0] if words else ""
        needed = letters(op)
        for (name, choices), word in zip(_CHOICES.items(), words[1:5] + [""] * 4, strict=False):
            if word not in choices:
                raise ValueError(f"{op}: {name}: expected one of {', '.join(choices)}, got {word!r}")
        found = [_SIZE.fullmatch(word) for word in words[5:]]
        sizes = {m[1]: tuple(int(part) for part in m[2].split("x")) for m in found if m}
        if None in found or set(sizes) != set(needed) or len(found) != len(needed):
            raise ValueError(
                f"{op}: expected sizes {' '.join(needed)} behind the device, got {' '.join(words[5:])!r}"
            )
        if not all(number for numbers in sizes.values() for number in numbers):
            raise ValueError(f"{op}: sizes must be at least 1, got {' '.join(words[5:])!r}")
        dtype = next(dtype for dtype, word in DTYPE_WORDS.items() if word == words[2])
        return cls(op, words[1], dtype, words[3], words[4], tuple((key, sizes[key]) for key in needed))

    def __str__(self) -> str:
        return " ".join((self.op, self.pass_, DTYPE_WORDS[self.dtype], self.layout, self.device, self._text))

    @property
    def _text(self) -> str:
        return " ".join(letter + "x".join(map(str, numbers)) for letter, numbers in self.sizes)

    def __getitem__(self, letter: str) -> tuple[int, ...]:
        return dict(self.sizes)[letter]

    def one(self, letter: str) -> int:
        """The number behind a letter that has one."""
        numbers = self[letter]
        if len(numbers) != 1:
            raise ValueError(f"{self.op}: expected one number behind {letter}, got {self._text!r}")
        return numbers[0]

    def of(self, pass_: str) -> Spec:
        """The same line, another pass."""
        return replace(self, pass_=pass_)

    def in_dtype(self, dtype: torch.dtype) -> Spec:
        """The same line in another dtype."""
        return replace(self, dtype=dtype)

    def on(self, device: str) -> Spec:
        """The same line on another device."""
        return replace(self, device=device)

    @property
    def short(self) -> str:
        """Operator and sizes for a table."""
        return f"{self.op} {self._text}" + (" last" if self.layout == "nhwc" else "")
