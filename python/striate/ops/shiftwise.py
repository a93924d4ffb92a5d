"""Shift-wise convolution: a large kernel put together from shifted small ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import branches as _branches


class Permutations(NamedTuple):
    """Which small map goes where; all are integers below nk, per repetition and channel.

    ``horizontal[r, c, j]`` and ``vertical[r, c, j]`` are the map that slot j of channel c takes in repetition r,
    ``identity[r, c]`` the map that is not shifted at all.
    """

    horizontal: Tensor
    vertical: Tensor
    identity: Tensor

    def to(self, device: torch.device) -> Permutations:
        """The same on another device."""
        return Permutations(*(tensor.to(device) for tensor in self))


def shiftwise_permutations(
    channels: int, big_kernel: int, small_kernel: int, n_rep: int, seed: int = 123
) -> Permutations:
    """The permutations of the published layers, which draw them after ``torch.manual_seed(123)``.

    They come from a generator of their own: the global random state is neither read nor set.
    """
    slots = math.ceil(big_kernel / small_kernel)
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        drawn = [torch.randperm(slots, generator=generator) for _ in range(n_rep * channels)]
        return torch.stack(drawn).reshape(n_rep, channels, slots)

    horizontal, vertical = draw(), draw()
    identity = [torch.randint(0, slots, [channels], generator=generator) for _ in range(n_rep)]
    return Permutations(horizontal, vertical, torch.stack(identity))


def shiftwise_strips(weights: Tensor, permutations: Permutations) -> tuple[Tensor, Tensor, Tensor]:
    """The three kernels that a shift-wise convolution is.

    Args:
        weights: ``[N_path, C * nk, 1, s, s]``.
        permutations: as :func:`shiftwise_permutations` returns them.

    Returns:
        The wide strip ``[C, 1, s, nk * s]``, the tall strip ``[C, 1, nk * s, s]`` and the square ``[C, 1, s, s]``,
        summed over paths and repetitions.
    """
    _, channels, slots = permutations.horizontal.shape
    small = weights.shape[-1]
    blocks = weights.sum(0).reshape(channels, slots, small, small)

    def placed(maps: Tensor) -> Tensor:
        """[R, C, J] map numbers to [C, J, s, s]: the sum over repetitions of the maps named."""
        channel = torch.arange(channels, device=maps.device).reshape(1, channels, 1)
        return blocks[channel, maps].sum(0)

    wide = placed(permutations.horizontal).transpose(1, 2).reshape(channels, 1, small, slots * small)
    tall = placed(permutations.vertical).reshape(channels, 1, slots * small, small)
    return wide, tall, placed(permutations.identity.unsqueeze(-1))


def strips(
    kernels: tuple[Tensor, Tensor, Tensor], big_kernel: int
) -> tuple[_branches.Branch, _branches.Branch, _branches.Branch]:
    """The three kernels as branches: tap floor(K / 2) along a strip and floor(s / 2) across it on the output."""
    wide, tall, square = kernels
    far, near, one = big_kernel // 2, square.shape[-1] // 2, (1, 1)
    branch = _branches.Branch
    return (
        branch(wide, None, (near, far), one),
        branch(tall, None, (far, near), one),
        branch(square, None, (near, near), one),
    )


def shiftwise_conv2d(
    x: Tensor, weights: Tensor, *, big_kernel: int, permutations: Permutations, sparse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The three sums of shifted small convolutions that replace a large kernel, as (H, V, I).

    With :math:`u = \sum_p x * w_p` the nk small maps of every channel, nk = ceil(K / s),

    .. math:: H[c, y, x] = \sum_{r, j} u[c, \pi^h_{r c}(j)][y, x + j s + o], \quad
              V[c, y, x] = \sum_{r, j} u[c, \pi^v_{r c}(j)][y + j s + o, x], \quad
              I[c] = \sum_r u[c, \iota_{r c}]

    with the offset o that puts tap floor(K / 2) of the nk s taps in the middle, and zeros outside the input. That is
    exactly three depthwise convolutions of x, by a strip of s x nk s, one of nk s x s and a square (Li et al.:
    ShiftwiseConv, CVPR 2025, arXiv 2401.12736, section 3), so the nk times larger maps never exist and paths and
    repetitions cost nothing. The three run in one pass over x, and so do their gradients.

    Args:
        x: ``[N, C, H, W]``, in any dtype of :func:`striate.conv2d`.
        weights: ``[N_path, C * nk, 1, s, s]``; map j of channel c is filter ``c * nk + j``.
        big_kernel: K, at least s.
        permutations: for C channels and nk slots; :func:`shiftwise_permutations` makes the published ones.
        sparse: many small filters are zero. Blocks of a strip that are zero in all paths and repetitions are left
            out of the forward pass and of the gradient of x; one repetition leaves out as many blocks as filters
            are zero, four independent ones hardly any.

    Returns:
        Three tensors of the shape of x, differentiable any number of times in x and weights.

    Raises:
        RuntimeError: shapes that do not fit each other.
        ValueError: a big_kernel smaller than the small one.
    """
    branches = branches_of(x, weights, big_kernel, permutations)
    wide, tall, square = _branches.each(x, branches, weights.shape[-1] if sparse else 0)
    return wide, tall, square


def branches_of(
    x: Tensor, weights: Tensor, big_kernel: int, permutations: Permutations
) -> tuple[_branches.Branch, _branches.Branch, _branches.Branch]:
    """The branches whose results :func:`shiftwise_conv2d` returns for these arguments, which are checked."""
    _check(x, weights, big_kernel, permutations)
    return strips(shiftwise_strips(weights, permutations), big_kernel)


def _check(x: Tensor, weights: Tensor, big_kernel: int, permutations: Permutations) -> None:
    """Explains what does not fit."""
    if x.dim() != 4 or weights.dim() != 5 or weights.shape[2] != 1 or weights.shape[3] != weights.shape[4]:
        raise RuntimeError(
            "expected x [N, C, H, W] and weights [N_path, C * nk, 1, s, s], "
            f"got {list(x.shape)} and {list(weights.shape)}"
        )
    channels, small = x.shape[1], weights.shape[-1]
    if big_kernel < small:
        raise ValueError(f"big_kernel: expected at least the small kernel {small}, got {big_kernel}")
    slots = math.ceil(big_kernel / small)
    if weights.shape[1] != channels * slots:
        raise RuntimeError(
            f"weights: expected {channels * slots} filters for {channels} channels and {slots} slots, "
            f"got {weights.shape[1]}"
        )
    repetitions = permutations.identity.shape[0]
    for name, tensor, shape in zip(
        Permutations._fields,
        permutations,
        ((repetitions, channels, slots),) * 2 + ((repetitions, channels),),
        strict=True,
    ):
        if tensor.shape != shape:
            raise RuntimeError(f"permutations.{name}: expected {list(shape)}, got {list(tensor.shape)}")
