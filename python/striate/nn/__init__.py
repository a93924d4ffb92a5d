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
from .reparam import (
    CrossConv2d,
    DilatedReparamConv2d,
    InceptionDWConv2d,
    RepLKBlockConv2d,
    SLaKConv2d,
    merge,
)
from .shiftwise import ShiftwiseConv2d

__all__ = [
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
    "InceptionDWConv2d",
    "RepLKBlockConv2d",
    "Report",
    "SLaKConv2d",
    "SMPConv1d",
    "SMPConv2d",
    "ShiftwiseConv2d",
    "WeightedConv1d",
    "WeightedConv2d",
    "WeightedConv3d",
    "accelerate",
    "clamp_after_step",
    "dcls_parameter_groups",
    "merge",
    "repulsion_loss",
]
