"""Layers with torch.nn's own argument names and state_dict keys."""

from ._accelerate import Report, accelerate
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .dynamic import (
    CondConv2d,
    Involution2d,
    PartialChannelConv2d,
    PartialConv2d,
    PartialPaddingConv2d,
    SliceRecurrent2d,
    SpaceToDepth,
    spatially_varying_conv2d,
)

__all__ = [
    "CondConv2d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Involution2d",
    "PartialChannelConv2d",
    "PartialConv2d",
    "PartialPaddingConv2d",
    "Report",
    "SliceRecurrent2d",
    "SpaceToDepth",
    "accelerate",
    "spatially_varying_conv2d",
]
