"""Public operators, one file per family."""

from .causal import causal_conv1d, causal_conv1d_update
from .conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
)
from .dcls import dcls_kernel
from .fft_conv import fft_conv1d, fft_conv2d, fft_conv3d
from .pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    min_pool1d,
    min_pool2d,
    min_pool3d,
    sum_pool1d,
    sum_pool2d,
    sum_pool3d,
)
from .shiftwise import shiftwise_conv2d, shiftwise_permutations

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "causal_conv1d",
    "causal_conv1d_update",
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
    "fft_conv1d",
    "fft_conv2d",
    "fft_conv3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "min_pool1d",
    "min_pool2d",
    "min_pool3d",
    "shiftwise_conv2d",
    "shiftwise_permutations",
    "sum_pool1d",
    "sum_pool2d",
    "sum_pool3d",
]
