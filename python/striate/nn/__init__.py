"""Layers with torch.nn's own argument names and state_dict keys."""

from ._accelerate import Report, accelerate
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .hyena import HyenaFilter, HyenaOperator
from .long_conv import LongConv, MultiresConv1d, SGConv1d
from .modal import ModalConv1d, distill_modal
from .spectral import AdaptiveFrequencyFilter2d, GlobalFilter2d, SpectralPooling2d

__all__ = [
    "AdaptiveFrequencyFilter2d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "GlobalFilter2d",
    "HyenaFilter",
    "HyenaOperator",
    "LongConv",
    "ModalConv1d",
    "MultiresConv1d",
    "Report",
    "SGConv1d",
    "SpectralPooling2d",
    "accelerate",
    "distill_modal",
]
