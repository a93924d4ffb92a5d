"""``DCLS.construct.modules`` of the package `dcls`: the same names, constructors and state_dict.

Kernels that are not square are right here and lose weight there; ``reference_slips=True`` restores that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..nn import dcls as _layers
from ..nn.dcls import Dcls1d, Dcls2d, Dcls2dK1d, Dcls3_1d, Dcls3d

__all__ = [
    "ConstructKernel1d",
    "ConstructKernel2d",
    "ConstructKernel3d",
    "Dcls1d",
    "Dcls2_1d",
    "Dcls2d",
    "Dcls2dK1d",
    "Dcls3_1d",
    "Dcls3d",
]


class Dcls2_1d(_layers.Dcls2_1d):  # noqa: N801
    """:class:`striate.nn.Dcls2_1d` with the spread of the published layer, which its checkpoints were trained with."""

    def __init__(self, *args: Any, reference_slips: bool = True, **options: Any) -> None:
        super().__init__(*args, reference_slips=reference_slips, **options)


class _ConstructKernel(torch.nn.Module):
    """The construction alone: ``forward(W, P, SIG)`` gives the dense kernel."""

    def __init__(
        self,
        out_channels: int,
        in_channels: int,
        groups: int,
        kernel_count: int,
        dilated_kernel_size: int | tuple[int, ...],
        version: str,
    ) -> None:
        super().__init__()
        self.out_channels, self.in_channels, self.groups = out_channels, in_channels, groups
        self.kernel_count, self.version = kernel_count, version
        self.dilated_kernel_size = dilated_kernel_size

    def forward(self, W: Tensor, P: Tensor, SIG: Tensor | None) -> Tensor:
        """The kernel ``[O, I/g, *K]``; SIG is ignored where the version has none."""
        spread = SIG if self.version in ("max", "gauss") else None
        return ops.dcls_kernel(
            W, P, spread, dilated_kernel_size=self.dilated_kernel_size, version=self.version
        )


class ConstructKernel1d(_ConstructKernel):
    """1-D."""


class ConstructKernel2d(_ConstructKernel):
    """2-D."""


class ConstructKernel3d(_ConstructKernel):
    """3-D."""
