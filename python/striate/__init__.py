"""striate: fast convolution primitives for PyTorch."""

from __future__ import annotations

import torch as _torch

if tuple(int(part) for part in _torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    raise ImportError(f"striate needs torch >= 2.10, but torch {_torch.__version__} is installed")

from . import _bridge, _core, compat, nn
from ._core import forget as cache_clear
from ._rows import kernels
from .ops import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    causal_conv1d,
    causal_conv1d_update,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    dcls_kernel,
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
    fft_conv1d,
    fft_conv2d,
    fft_conv3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    min_pool1d,
    min_pool2d,
    min_pool3d,
    shiftwise_conv2d,
    shiftwise_permutations,
    sum_pool1d,
    sum_pool2d,
    sum_pool3d,
)
from .ops._explain import explain

__version__: str = _core.version
_route = _bridge.install()
accelerate = nn.accelerate
distill_modal = nn.distill_modal


def __getattr__(name: str) -> object:
    if name == "zoo":  # imported when it is first asked for, so that `import striate` stays quick
        from importlib import import_module

        return import_module(".zoo", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "__version__",
    "accelerate",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "cache_clear",
    "causal_conv1d",
    "causal_conv1d_update",
    "compat",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "dcls_kernel",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "distill_modal",
    "explain",
    "fft_conv1d",
    "fft_conv2d",
    "fft_conv3d",
    "kernels",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "min_pool1d",
    "min_pool2d",
    "min_pool3d",
    "nn",
    "shiftwise_conv2d",
    "shiftwise_permutations",
    "sum_pool1d",
    "sum_pool2d",
    "sum_pool3d",
]
