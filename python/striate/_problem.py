"""Problem lines: the one place in Python that formats them.

A problem line names one piece of work for the Rust core, a test case, a benchmark case and a bug report alike::

    conv fwd bf16:f32 nhwc cpu n8 g96 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3

``i`` is the spatial input size of the *convolution*; for the input gradient (which is also the transposed
convolution) it is the size of the tensor produced.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

DTYPE_WORDS = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}


def is_channels_last(tensor: Tensor) -> bool:
    """Dense with channels innermost and not contiguous as well; for one spatial axis this is the NLC layout."""
    return not tensor.is_contiguous() and tensor.movedim(1, -1).is_contiguous()


def layout_word(tensor: Tensor) -> str:
    """The layout of a pass, decided by its first tensor: ``nhwc`` or ``nchw`` whatever the rank."""
    return "nhwc" if is_channels_last(tensor) else "nchw"


def pad_pairs(padding: Sequence[int], rank: int) -> tuple[tuple[int, int], ...]:
    """(lo, hi) per axis from ``rank`` symmetric entries or ``2 * rank`` entries lo0, hi0, lo1, hi1, ..."""
    if len(padding) == rank:
        return tuple((p, p) for p in padding)
    return tuple(zip(padding[::2], padding[1::2], strict=True))


def _sizes(letter: str, values: Sequence[int]) -> str:
    return letter + "x".join(str(int(v)) for v in values)


def _pads(pairs: Sequence[tuple[int, int]]) -> str:
    return "p" + "x".join(f"{int(lo)}+{int(hi)}" for lo, hi in pairs)


class Config(NamedTuple):
    """How the raw operators are asked to convolve: the piece of a problem line that no tensor tells.

    It travels as one string, ``s1x1 d1x1 p3+3x3+3 g96``, because torch spends half a microsecond on every list.
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int | None = None
    """None: every input channel is a group"""
    kernel: tuple[int, ...] | None = None
    """of a weight gradient"""
    output_padding: tuple[int, ...] | None = None
    """of a transposed convolution"""
    wide: bool = False
    """a weight gradient in the accumulator's type"""
    tf32: bool = False
    """products of float32 numbers may round them to ten bits"""

    def __str__(self) -> str:
        words = [_sizes("s", self.stride), _sizes("d", self.dilation), _pads(self.padding)]
        if self.groups is not None:
            words.append(f"g{int(self.groups)}")
        if self.kernel is not None:
            words.append(_sizes("k", self.kernel))
        if self.output_padding is not None:
            words.append(_sizes("o", self.output_padding))
        return " ".join(words + ["wide"] * self.wide + ["tf32"] * self.tf32)


def config(
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int | None,
    output_padding: Sequence[int] | None = None,
) -> Config:
    """A configuration; padding as for :func:`pad_pairs`."""
    extra = None if output_padding is None else tuple(output_padding)
    pairs = pad_pairs(padding, len(stride))
    return Config(tuple(stride), tuple(dilation), pairs, groups, output_padding=extra)


def _read(text: str) -> Config:
    words = {word[0]: word[1:] for word in text.split(" ")}

    def ints(letter: str) -> tuple[int, ...]:
        return tuple(int(part) for part in words[letter].split("x"))

    pads = [pair.split("+") for pair in words["p"].split("x")]
    return Config(
        ints("s"),
        ints("d"),
        tuple((int(lo), int(hi)) for lo, hi in pads),
        int(words["g"]) if "g" in words else None,
        ints("k") if "k" in words else None,
        ints("o") if "o" in words else None,
        "w" in words,
        "t" in words,
    )


_recall = functools.lru_cache(maxsize=4096)(_read)


def read_config(text: str) -> Config:
    """The configuration that ``str`` wrote."""
    return _read(text) if torch.compiler.is_dynamo_compiling() else _recall(text)


def conv_line(
    pass_: str,
    dtypes: tuple[torch.dtype, torch.dtype],
    where: tuple[str, str],
    channels: tuple[int, int, int, int],
    axes: tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int], Sequence[int]],
) -> str:
    """Format a line.

    ``dtypes`` = (activation, weight), ``where`` = (layout word, device), ``channels`` = (batch, groups, input
    channels per group, output channels per group), ``axes`` = (input, kernel, stride, dilation, padding).
    """
    activation, weight = (DTYPE_WORDS[d] for d in dtypes)
    dtype = activation if activation == weight else f"{activation}:{weight}"
    n, groups, c_in, c_out = (int(v) for v in channels)
    size, kernel, stride, dilation, padding = axes
    pads = _pads(pad_pairs(padding, len(stride)))
    return " ".join(
        (
            f"conv {pass_} {dtype} {where[0]} {where[1]} n{n} g{groups} ci{c_in} co{c_out}",
            _sizes("i", size),
            _sizes("k", kernel),
            _sizes("s", stride),
            _sizes("d", dilation),
            pads,
        )
    )
