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
from .fft_conv import fft_conv1d, fft_conv2d, fft_conv3d

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "fft_conv1d",
    "fft_conv2d",
    "fft_conv3d",
]
