"""What a CUDA device would do for a problem, done on the host: every launch of its recipe, with real addresses."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cuda_host import compile_host, launch
from striate import _call, _core


@functools.lru_cache(maxsize=256)
def conv_recipe(line: str, row: str | None = None) -> Any:
    """The recipe of a problem line, for whatever device the line names; of the one ``row``, if it is given."""
    words = line.split()
    words[4] = "cuda"
    if row is not None:
        _core.set_kernels(f"^{row}$")
    try:
        return _core.cuda_recipe(" ".join(words))
    finally:
        if row is not None:
            _core.set_kernels(None)


def call_on_host(
    op: str, settings: str, operands: Sequence[Tensor | None], results: Sequence[Tensor]
) -> bool:
    """In place of ``striate._call.on_device``: the launches of a device, on host tensors."""
    given = [None if tensor is None else _call._given(tensor) for tensor in operands]
    try:
        recipe = _core.cuda_call_recipe(op, settings, given, [_call._given(tensor) for tensor in results])
    except ValueError:
        return False
    emulate(recipe, operands, results, seed=1)
    return True


def emulate(
    recipe: Any,
    operands: Sequence[Tensor | None],
    results: Sequence[Tensor],
    seed: int = 0,
    sanitize: bool = False,
) -> None:
    """Run the launches in order on a workspace of NaN; ``sanitize`` catches every access outside the tensors."""
    workspace = torch.full((recipe["workspace"],), 255, dtype=torch.uint8)
    there = [tensor for tensor in (*operands, *results, workspace) if tensor is not None]

    def word(kind: str, number: int, offset: int) -> int:
        if kind == "value":
            return number
        if kind == "workspace":
            return workspace.data_ptr() + offset
        tensor = (operands if kind == "operand" else results)[number]
        return 0 if tensor is None else tensor.data_ptr() + offset

    for step in recipe["launches"]:
        arguments = b"".join(struct.pack("<q", word(*entry)) for entry in step["words"])
        kernel = compile_host(step["source"], sanitize).over(*there)
        launch(kernel, (step["grid"], 1, 1), step["block"], step["shared"], arguments, seed)
