"""How an operation that is not a convolution reaches the Rust core: settings as text, tensors as addresses.

The tensors may have any strides that its kernel rows take; results are allocated, or updated in place, by the caller.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _core
from ._problem import DTYPE_WORDS
from ._rows import by_torch

_WORDS = DTYPE_WORDS | {torch.int32: "i32", torch.int64: "i64"}
_HOME = os.getpid()
_Given = tuple[int, str, Sequence[int], Sequence[int]]


def _given(tensor: Tensor) -> _Given:
    return tensor.data_ptr(), _WORDS[tensor.dtype], tensor.shape, tensor.stride()


def words(**settings: int | float | str | Sequence[int]) -> str:
    """Settings as the core reads them: ``words(window=(3, 3), ceil=True)`` is ``"window=3x3 ceil=1"``."""
    return _words(tuple(settings), *map(_frozen, settings.values()))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@functools.lru_cache(maxsize=4096, typed=True)
def _words(names: tuple[str, ...], *values: Any) -> str:
    def text(value: Any) -> str:
        if isinstance(value, (str, float)):
            return str(value)
        return "x".join(str(int(part)) for part in (value if isinstance(value, Sequence) else (value,)))

    return " ".join(f"{name}={text(value)}" for name, value in zip(names, values, strict=True))


def call(op: str, settings: str, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> str:
    """Run ``op`` of the core on CPU tensors and return the name of the kernel row that ran.

    Raises ValueError where no row takes the request: public functions validate before they come here.
    """
    given = [None if tensor is None else _given(tensor) for tensor in operands]
    return _core.call(op, settings, given, [_given(tensor) for tensor in results], torch.get_num_threads())


def on_device(op: str, settings: str, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Run ``op`` on tensors of a CUDA device, on torch's current stream; False where no row of ours takes it."""
    given = [None if tensor is None else _given(tensor) for tensor in operands]
    device = results[0].device.index
    return _core.cuda_call(op, settings, given, [_given(tensor) for tensor in results], device) is not None


Request = tuple[str, str, Sequence[Tensor | None], Any]
"""what :func:`call` is given; a tensor stands for one result, else they are a list"""


def results_of(made: Any) -> Sequence[Tensor]:
    """The results of a request."""
    return (made,) if isinstance(made, Tensor) else made


def on_host(request: Callable[..., Request]) -> Callable[..., Any]:
    """The kernel on host memory of an operator whose arguments ``request`` turns into a call."""

    def kernel(*args: Any) -> Any:
        op, settings, operands, made = request(*args)
        call(op, settings, operands, results_of(made))
        return made

    return kernel


_copy_on_device = by_torch("copy", "Tensor.contiguous: nothing there waits for threads that a fork has lost")(
    Tensor.contiguous
)


def dense(tensor: Tensor) -> Tensor:
    """``tensor.contiguous()``, also in a forked child, where torch's copy would wait for threads that it has not."""
    if tensor.is_contiguous():
        return tensor
    if not tensor.is_cpu:
        made: Tensor = _copy_on_device(tensor)
        return made
    if os.getpid() == _HOME:
        return tensor.contiguous()
    made = torch.empty(tensor.shape, dtype=tensor.dtype)
    call("copy", "", (tensor,), (made,))
    return made
