"""Layers of the shift-wise convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ops.shiftwise import Permutations, branches_of, shiftwise_permutations, shiftwise_strips
from ._normed import normed_branches
from .conv import Conv2d
from .reparam import CrossConv2d, fold_norm

# Leaving blocks out needs columns for lanes, which costs about this share of the time on small planes.
_SPARSE = 0.25


class ShiftwiseConv2d(torch.nn.Module):
    """y = BN(H) + BN(V) + BN(I) + x with the three sums of :func:`striate.shiftwise_conv2d`.

    The parameters have the published layer's names: ``LoRAs.0.weight``, ..., ``bn_lora1``, ``bn_lora2``,
    ``bn_small``; after :meth:`merge_paths` the paths are one, ``LoRA.weight``, and after :meth:`reparameterize` the
    layer is one cross-shaped kernel, ``cross.tall``, ``cross.wide`` and ``cross.bias``. The permutations follow from
    the shape and the seed, and are therefore buffers outside the state_dict.

    Args:
        channels: C of ``[N, C, H, W]``.
        big_kernel, small_kernel: K and s, s at most K.
        n_path: sets of small kernels; they are summed.
        n_rep: times that the maps are permuted; summed as well.
        bn: whether H, V and I pass a BatchNorm each.
        seed, device, dtype: keywords; the seed is of the permutations.
    """

    horizontal: Tensor
    vertical: Tensor
    identity: Tensor
    mask: Tensor | None
    cross: CrossConv2d | None

    def __init__(
        self,
        channels: int,
        big_kernel: int,
        small_kernel: int = 3,
        n_path: int = 2,
        n_rep: int = 4,
        bn: bool = True,
        *,
        seed: int = 123,
        **factory: Any,
    ) -> None:
        super().__init__()
        if not 1 <= small_kernel <= big_kernel:
            raise ValueError(f"small_kernel: expected 1 to big_kernel {big_kernel}, got {small_kernel}")
        if min(channels, n_path, n_rep) < 1:
            raise ValueError(
                f"channels, n_path, n_rep: expected at least 1, got {channels}, {n_path}, {n_rep}"
            )
        self.channels, self.big_kernel, self.small_kernel = channels, big_kernel, small_kernel
        permutations = shiftwise_permutations(channels, big_kernel, small_kernel, n_rep, seed)
        for name, tensor in permutations._asdict().items():
            self.register_buffer(name, tensor.to(factory.get("device")), persistent=False)
        maps = channels * permutations.horizontal.shape[-1]
        self.LoRA: torch.nn.Module | None = None
        self.LoRAs = torch.nn.ModuleList(
            Conv2d(
                channels, maps, small_kernel, padding=small_kernel - 1, groups=channels, bias=False, **factory
            )
            for _ in range(n_path)
        )
        norms = [torch.nn.BatchNorm2d(channels, **factory) if bn else None for _ in range(3)]
        self.bn_lora1, self.bn_lora2, self.bn_small = norms
        self.register_buffer("mask", None, persistent=False)
        self.sparse, self.cross = False, None

    @property
    def permutations(self) -> Permutations:
        """Which map goes where."""
        return Permutations(self.horizontal, self.vertical, self.identity)

    def weights(self) -> Tensor:
        """``[N_path, C * nk, 1, s, s]``, without the filters that a mask takes out."""
        if self.cross is not None:
            raise RuntimeError("weights: expected a layer with small kernels, got one after reparameterize()")
        convs: list[Any] = list(self.LoRAs) if self.LoRA is None else [self.LoRA]
        stacked = torch.stack([conv.weight for conv in convs])
        return stacked if self.mask is None else stacked * self.mask

    def set_mask(self, mask: Tensor | None) -> None:
        """Take out small filters: ``mask`` is ``[C * nk, 1, 1, 1]``, or ``[N_path, ...]``, of zeros and ones.

        Where enough blocks of the strips are zero for it, they are left out at run time, in :meth:`merged` layers
        too. A block is the sum of one map per repetition: under a mask of density d and one mask for all paths
        a share (1 - d) ** n_rep of them is zero.
        """
        paths, maps = self.weights().shape[:2]
        if mask is not None and mask.shape not in ((maps, 1, 1, 1), (paths, maps, 1, 1, 1)):
            raise RuntimeError(
                f"mask: expected [{maps}, 1, 1, 1] or [{paths}, {maps}, 1, 1, 1], got {list(mask.shape)}"
            )
        self.mask, self.sparse = mask, False
        if mask is not None:
            with torch.no_grad():
                strips = shiftwise_strips((self.weights() != 0).double(), self.permutations)
            zero = sum(float((strip == 0).double().mean()) for strip in strips[:2]) / 2
            self.sparse = zero >= _SPARSE

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same size."""
        if self.cross is not None:
            merged: Tensor = self.cross(input)
            return merged
        branches = branches_of(input, self.weights(), self.big_kernel, self.permutations)
        norms = (self.bn_lora1, self.bn_lora2, self.bn_small)
        wide, tall, square = normed_branches(input, branches, norms, self.small_kernel if self.sparse else 0)
        total: Tensor = wide + tall + square + input
        return total

    def merge_paths(self) -> None:
        """Sum the paths into one, in place; nothing else changes."""
        if self.LoRA is None:
            merged = self.weights().detach().sum(0)
            first: Any = self.LoRAs[0]
            first.weight = torch.nn.Parameter(merged)
            del self.LoRAs
            self.LoRA, self.mask = first, None

    def reparameterize(self) -> None:
        """Become one cross-shaped depthwise kernel with the BatchNorms and the identity folded in, in place.

        It equals the layer in evaluation: BatchNorms are taken with their running statistics, also in training mode.
        The kernel is kept as its two strips, which cost less than the square around them; ``cross.dense_kernel()``
        is ``[C, 1, K, K]``. A second call changes nothing.
        """
        if self.cross is None:
            with torch.no_grad():
                self.cross = self._folded().train(self.training)
            self.LoRA = self.mask = self.bn_lora1 = self.bn_lora2 = self.bn_small = None
            self.LoRAs = torch.nn.ModuleList()

    def merged(self) -> torch.nn.Module:
        """What :meth:`reparameterize` makes of the layer, which stays as it is."""
        return self._folded() if self.cross is None else self.cross

    def _folded(self) -> CrossConv2d:
        kernels = shiftwise_strips(self.weights(), self.permutations)
        norms = (self.bn_lora1, self.bn_lora2, self.bn_small)
        zero = kernels[0].new_zeros(self.channels)
        folded = [
            (kernel, zero) if norm is None else fold_norm(kernel, None, norm)
            for kernel, norm in zip(kernels, norms, strict=True)
        ]
        (wide, b1), (tall, b2), (square, b3) = folded
        far, near, small = self.big_kernel // 2, self.small_kernel // 2, self.small_kernel
        wide = wide.clone()
        wide[..., far - near : far - near + small] += square
        wide[..., near, far] += 1
        grain = small if self.sparse else 0
        return CrossConv2d((tall, far, near), (wide, near, far), b1 + b2 + b3, grain)
