"""Layers with torch.nn's own argument names and state_dict keys."""

from ._accelerate import Report, accelerate
from .builders import (
    ContinuousKernelConv1d,
    ContinuousKernelConv2d,
    GaborConv2d,
    GaussianComposedConv2d,
    SMPConv1d,
    SMPConv2d,
    WeightedConv1d,
    WeightedConv2d,
    WeightedConv3d,
)
from .causal import CausalConv1d
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .dcls import (
    Dcls1d,
    Dcls2_1d,
    Dcls2d,
    Dcls2dK1d,
    Dcls3_1d,
    Dcls3d,
    clamp_after_step,
    dcls_parameter_groups,
    repulsion_loss,
)
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
from .hyena import HyenaFilter, HyenaOperator
from .long_conv import LongConv, MultiresConv1d, SGConv1d
from .modal import ModalConv1d, distill_modal
from .pool import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from .reparam import CrossConv2d, DilatedReparamConv2d, InceptionDWConv2d, RepLKBlockConv2d, SLaKConv2d, merge
from .shiftwise import ShiftwiseConv2d
from .spectral import AdaptiveFrequencyFilter2d, GlobalFilter2d, SpectralPooling2d

__all__ = [
    "AdaptiveFrequencyFilter2d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "CausalConv1d",
    "CondConv2d",
    "ContinuousKernelConv1d",
    "ContinuousKernelConv2d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossConv2d",
    "Dcls1d",
    "Dcls2_1d",
    "Dcls2d",
    "Dcls2dK1d",
    "Dcls3_1d",
    "Dcls3d",
    "DilatedReparamConv2d",
    "GaborConv2d",
    "GaussianComposedConv2d",
    "GlobalFilter2d",
    "HyenaFilter",
    "HyenaOperator",
    "InceptionDWConv2d",
    "Involution2d",
    "LongConv",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "ModalConv1d",
    "MultiresConv1d",
    "PartialChannelConv2d",
    "PartialConv2d",
    "PartialPaddingConv2d",
    "RepLKBlockConv2d",
    "Report",
    "SGConv1d",
    "SLaKConv2d",
    "SMPConv1d",
    "SMPConv2d",
    "ShiftwiseConv2d",
    "SliceRecurrent2d",
    "SpaceToDepth",
    "SpectralPooling2d",
    "WeightedConv1d",
    "WeightedConv2d",
    "WeightedConv3d",
    "accelerate",
    "clamp_after_step",
    "dcls_parameter_groups",
    "distill_modal",
    "merge",
    "repulsion_loss",
    "spatially_varying_conv2d",
]
