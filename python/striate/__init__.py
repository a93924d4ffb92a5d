"""striate: fast convolution primitives for PyTorch."""

from __future__ import annotations

import torch as _torch

if tuple(int(part) for part in _torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    raise ImportError(f"striate needs torch >= 2.10, but torch {_torch.__version__} is installed")

from . import _bridge, _core, compat, nn
from ._core import forget as cache_clear
from ._core import kernels
from .ops import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
    fft_conv1d,
    fft_conv2d,
    fft_conv3d,
)
from .ops._explain import explain

__version__: str = _core.version
_route = _bridge.install()
accelerate = nn.accelerate
distill_modal = nn.distill_modal

__all__ = [
    "__version__",
    "accelerate",
    "cache_clear",
    "compat",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "distill_modal",
    "explain",
    "fft_conv1d",
    "fft_conv2d",
    "fft_conv3d",
    "kernels",
    "nn",
]
