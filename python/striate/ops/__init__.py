"""Public operators, one file per family."""

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
from .shiftwise import shiftwise_conv2d, shiftwise_permutations

__all__ = [
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
    "shiftwise_conv2d",
    "shiftwise_permutations",
]
