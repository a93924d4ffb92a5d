"""When an operator on a CUDA device runs on striate's own rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from .. import _call
from .._listen import leave_to_torch


def own_rows() -> bool:
    """Whether the user has asked for them."""
    return os.environ.get("STRIATE_CUDA", "") == "1"


def refusal(dense: bool) -> str:
    """Why torch is the right choice, or an empty string.

    The CUDA rows are tested by running their text on the host and have not been timed on a device, so they are
    chosen only where the user asks for them: ``STRIATE_CUDA=1``.
    """
    if dense:
        return "not depthwise, device cuda"
    if not own_rows():
        return "device cuda; its rows have not been timed yet, STRIATE_CUDA=1 chooses them"
    return ""


def tf32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of our rows may round to tf32: float32, torch allows it for convolutions, and the device can.

    Torch says so in ``torch.backends.cudnn.conv.fp32_precision`` and, for all of cuDNN, ``allow_tf32``; it does by
    default. Tensor cores have had the type since compute capability 8.0.
    """
    if device.type != "cuda" or dtype != torch.float32 or not own_rows():
        return False
    return _allows_tf32() and _capability(device) >= (8, 0)


def _allows_tf32() -> bool:
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


# What is compiled keeps what was allowed when it was traced.
_allows_tf32._dynamo_marked_constant = True  # type: ignore[attr-defined]
_capability._dynamo_marked_constant = True  # type: ignore[attr-defined]


def shared_bytes(device: torch.device) -> int:
    """Shared memory that a block of the device may ask for; what the largest kernel needs, where there is none."""
    if device.type != "cuda":
        return 68 << 10
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def row_or(request: Callable[..., _call.Request], composed: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel on CUDA devices: a row of ours where the user has asked for them and one takes the call."""

    def kernel(*args: Any) -> Any:
        if own_rows():
            op, settings, operands, made = request(*args)
            results = _call.results_of(made)
            if not any(result.numel() for result in results):
                return made
            empty = any(operand is not None and not operand.numel() for operand in operands)
            if not empty and _call.on_device(op, settings, operands, results):
                return made
        leave_to_torch(refusal(dense=False) or "device cuda; no row takes this call")
        return composed(*args)

    return kernel
