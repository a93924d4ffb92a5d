"""The layer of the ShiftwiseConv repository under its name, spelling included."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..nn.shiftwise import ShiftwiseConv2d

__all__ = ["ShifthWiseConv2dImplicit"]


class ShifthWiseConv2dImplicit(ShiftwiseConv2d):
    """:class:`striate.nn.ShiftwiseConv2d` on most channels; the rest, the ghosts, pass unchanged.

    The output has the convolved channels first and the ghosts behind them, so channels change places. Which are
    ghosts follows from their number, as in the published layer; neither torch's nor numpy's global random state is
    touched. BatchNorms are plain: ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` turns them into the published
    ones.

    Args:
        in_channels, out_channels: must be equal.
        big_kernel, small_kernel, bn, N_path, N_rep: as in :class:`striate.nn.ShiftwiseConv2d`.
        stride: 1.
        ghost_ratio: share of channels that pass; an even number of channels is convolved.
        group, use_small_conv, bias: accepted and without effect, as there.
    """

    ghost: Tensor
    rep: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        big_kernel: int,
        small_kernel: int = 3,
        stride: int = 1,
        group: int = 1,
        bn: bool = True,
        use_small_conv: bool = True,
        ghost_ratio: float = 0.23,
        N_path: int = 2,
        N_rep: int = 4,
        bias: bool = False,
        **factory: Any,
    ) -> None:
        if in_channels != out_channels or stride != 1:
            raise ValueError(
                f"expected as many out_channels as in_channels and stride 1, "
                f"got {in_channels}, {out_channels} and {stride}"
            )
        convolved = int(in_channels * (1 - ghost_ratio)) // 2 * 2
        super().__init__(convolved, big_kernel, small_kernel, N_path, N_rep, bn, **factory)
        drawn = np.random.RandomState(123).choice(in_channels, in_channels - convolved, replace=False)
        ghost = torch.from_numpy(np.sort(drawn)).to(factory.get("device"))
        keep = torch.ones(in_channels, dtype=torch.bool, device=ghost.device)
        keep[ghost] = False
        self.register_buffer("ghost", ghost, persistent=False)
        self.register_buffer("rep", keep.nonzero().flatten(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size, channels in another order."""
        return torch.cat((super().forward(inputs[:, self.rep]), inputs[:, self.ghost]), 1)

    def merge_branches(self) -> None:
        """Sum the paths, the first step of the published re-parameterisation; :meth:`reparameterize` takes all."""
        self.merge_paths()

    def merged(self) -> torch.nn.Module:
        """The strips on the convolved channels, then the ghosts."""
        return _WithGhosts(super().merged(), self.rep, self.ghost)


class _WithGhosts(torch.nn.Module):
    rep: Tensor
    ghost: Tensor

    def __init__(self, body: torch.nn.Module, rep: Tensor, ghost: Tensor) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("rep", rep)
        self.register_buffer("ghost", ghost)

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat((self.body(input[:, self.rep]), input[:, self.ghost]), 1)
