"""When a convolution on a CUDA device runs on striate's own rows."""

from __future__ import annotations

import os

import torch


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


def shared_bytes(device: torch.device) -> int:
    """Shared memory that a block of the device may ask for; what the largest kernel needs, where there is none."""
    if device.type != "cuda":
        return 68 << 10
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)
