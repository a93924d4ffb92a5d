"""Layers with learnable spacings: the published package's constructors, parameter names and state_dict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import dcls as _ops
from ..ops.delays import delay_step
from ._built import BuiltConv, Ints, sizes

_SIGMA = {"gauss": 0.23, "max": 0.0}


class _Dcls(BuiltConv):
    """What all layers share; ``learnable`` axes move, and come last in the kernel."""

    learnable: int
    SIG: torch.nn.Parameter | None

    def __init__(
        self,
        channels: tuple[int, int],
        kernel_count: int,
        kernel_size: tuple[int, ...],
        *,
        dense: tuple[int, ...] = (),
        version: str = "gauss",
        reference_slips: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(channels, self._full_size(dense, kernel_size), **options)
        if version not in _ops.VERSIONS:
            raise ValueError(f"version: expected one of {', '.join(_ops.VERSIONS)}, got {version!r}")
        if kernel_count < 1:
            raise ValueError(f"kernel_count: expected a positive integer, got {kernel_count}")
        self.kernel_count, self.version, self.reference_slips = kernel_count, version, reference_slips
        self.dilated_kernel_size = kernel_size
        shape = (self.out_channels, self.in_channels // self.groups, *dense, kernel_count)
        self.weight = self._empty(*shape)
        self.P = self._empty(self.learnable, *shape)
        self.register_parameter("SIG", self._empty(self.learnable, *shape) if version in _SIGMA else None)
        self._register_bias()
        self.reset_parameters()

    def _full_size(self, dense: tuple[int, ...], learned: tuple[int, ...]) -> tuple[int, ...]:
        return (*dense, *learned)

    def reset_parameters(self) -> None:
        """Kaiming-uniform weights, normal positions of standard deviation 0.5, SIG 0.23 (gauss) or 0 (max)."""
        torch.nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._uniform_bias(math.prod(self.weight.shape[1:]))
        with torch.no_grad():
            for positions in self.P:
                self._initial(positions)
            if self.SIG is not None:
                self.SIG.fill_(_SIGMA[self.version])
        self.clamp_parameters()

    def _initial(self, positions: Tensor) -> None:
        positions.normal_(0, 0.5)

    def limits(self) -> tuple[int, ...]:
        """For every row of P the largest distance from the centre that lies on the grid."""
        axes = range(self.learnable) if self.reference_slips else _ops.axes_of(self.version, self.learnable)
        return tuple(self.dilated_kernel_size[axis] // 2 for axis in axes)

    def clamp_parameters(self) -> None:
        """Move positions back onto the grid; due after every optimizer step (see :func:`clamp_after_step`)."""
        with torch.no_grad():
            for positions, limit in zip(self.P, self.limits(), strict=True):
                positions.clamp_(-limit, limit)

    def round_positions_(self) -> None:
        """For inference: whole positions, and SIG = 0, the narrowest spread."""
        with torch.no_grad():
            self.P.round_()
            if self.SIG is not None:
                self.SIG.zero_()
        self.clamp_parameters()

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, *K]`` of :func:`striate.dcls_kernel`."""
        return self._built(self.dilated_kernel_size)

    def _built(self, size: tuple[int, ...]) -> Tensor:
        return _ops.dcls_kernel(
            self.weight,
            self.P,
            self.SIG,
            dilated_kernel_size=size,
            version=self.version,
            reference_slips=self.reference_slips,
        )

    def extra_repr(self) -> str:
        """The convolution, then what is learned."""
        return f"{super().extra_repr()}, kernel_count={self.kernel_count}, version={self.version!r}"


def _idle(map_size: int, kernel: int, padding: int, stride: int) -> int:
    """Rows of a kernel, as many on either side, that meet nothing but padding at every output position."""
    last = (map_size + 2 * padding - kernel) // stride * stride  # where the last output position starts
    return 0 if last < 0 else max(0, min(padding - last, kernel - padding - map_size))


class _DclsNd(_Dcls):
    def _met(self, input: Tensor) -> tuple[Tensor, tuple[int, ...] | str]:
        if isinstance(self.padding, str) or input.dim() <= self.rank:
            return super()._met(input)
        axes = zip(input.shape[-self.rank :], self.kernel_size, self.padding, self.stride, strict=True)
        idle = [_idle(*axis) for axis in axes]
        if not any(idle):
            return super()._met(input)
        padding = tuple(p - n for p, n in zip(self.padding, idle, strict=True))
        if self.version == "v0" and not self.reference_slips:
            # Without a sum over the whole grid, a smaller grid of the same centre holds the same numbers.
            return self._built(tuple(k - 2 * n for k, n in zip(self.kernel_size, idle, strict=True))), padding
        return F.pad(self.kernel(), [-n for n in reversed(idle) for _ in range(2)]), padding

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilated_kernel_size: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        version: str = "gauss",
        **options: Any,
    ) -> None:
        super().__init__(
            (in_channels, out_channels),
            kernel_count,
            sizes(dilated_kernel_size, self.learnable),
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            version=version,
            **options,
        )


class Dcls1d(_DclsNd):
    """1-D convolution with ``kernel_count`` elements per kernel at learned positions (arXiv 2112.03740).

    Args:
        in_channels, out_channels, stride, padding, groups, bias, padding_mode: as in :class:`torch.nn.Conv1d`.
        kernel_count: elements per kernel, m.
        dilated_kernel_size: the grid that they move on.
        version: ``"v0"``, ``"v1"``, ``"max"`` or ``"gauss"``: how an element spreads over the grid points beside it;
            see :func:`striate.dcls_kernel`.
        reference_slips, device, dtype: keywords; the first computes as the published package does where that is
            wrong.

    Parameters are ``weight [O, I/g, m]``, ``P [1, O, I/g, m]``, ``SIG`` of that shape for ``max`` and ``gauss``, and
    ``bias``. With one element per kernel (m = 1) a position is a delay, and :meth:`step` computes one time step.
    """

    rank = learnable = 1

    def initial_state(self, batch: int) -> DelayState:
        """The past before the first :meth:`step`: zeros. The delays are those of this moment."""
        if self.kernel_count != 1 or self.stride != (1,):
            raise RuntimeError(
                f"step: expected kernel_count 1 and stride 1, got {self.kernel_count} and {self.stride[0]}"
            )
        ring = self.weight.new_zeros(self.dilated_kernel_size[0], self.in_channels, batch)
        return DelayState(ring, self.delays().to(torch.int32))

    def delays(self) -> Tensor:
        """``[O, I/g]``: how many steps ago the sample lies that meets the weight, positions rounded."""
        size = self.dilated_kernel_size[0]
        centre = self.P.detach()[0, ..., 0].round().long() + size // 2
        return (size - 1 - centre).clamp(0, size - 1)

    def step(self, input: Tensor, state: DelayState) -> tuple[Tensor, DelayState]:
        """One time step of the causal layer (left padding K - 1) with every element on one grid point.

        It reads one sample per weight instead of K, so it costs 1/K of the convolution, and copies nothing but the new
        sample. It equals the layer of version v0 after :meth:`round_positions_`; the other versions spread an element
        even then, by up to 0.1 % of its weight to each neighbour.

        Args:
            input: ``[N, C]``, the new sample.
            state: of :meth:`initial_state`; the sample is written over its oldest one.

        Returns:
            ``[N, O]`` and the state.
        """
        expected = (state.ring.shape[2], self.in_channels)
        if input.shape != expected:
            raise RuntimeError(f"input: expected {list(expected)}, got {list(input.shape)}")
        state.push(input)
        return delay_step(state.ring, self.weight[..., 0], state.delays, self.bias, state.head), state


class DelayState:
    """The last K samples of every channel, for :meth:`Dcls1d.step`.

    ``ring`` is ``[K, C, N]``, ``head`` its newest slot, ``delays`` ``[O, I/g]`` of int32.
    """

    def __init__(self, ring: Tensor, delays: Tensor) -> None:
        self.ring, self.delays, self.head = ring, delays, 0

    def push(self, sample: Tensor) -> None:
        """Write ``[N, C]`` over the oldest sample."""
        self.head = (self.head + 1) % self.ring.shape[0]
        self.ring[self.head] = sample.t()

    def clone(self) -> DelayState:
        """A state of its own, to branch off from here."""
        made = DelayState(self.ring.clone(), self.delays)
        made.head = self.head
        return made


class Dcls2d(_DclsNd):
    """2-D form of :class:`Dcls1d`; ``P [2, O, I/g, m]``.

    ``P[0]`` moves along the width and ``P[1]`` along the height, except for ``v0``, where it is the other way round.
    ``use_implicit_gemm`` is accepted and changes nothing.
    """

    rank = learnable = 2

    def __init__(self, *args: Any, use_implicit_gemm: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)


class Dcls3d(_DclsNd):
    """3-D form of :class:`Dcls1d`; ``P [3, O, I/g, m]`` counts axes from the last (``v0``: first, last, middle)."""

    rank = learnable = 3


class _DclsNx1d(_Dcls):
    learnable = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dense_kernel_size: Ints = 1,
        dilated_kernel_size: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        version: str = "gauss",
        **options: Any,
    ) -> None:
        dense = sizes(dense_kernel_size, self.rank - 1)
        super().__init__(
            (in_channels, out_channels),
            kernel_count,
            sizes(dilated_kernel_size, 1),
            dense=dense,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            version=version,
            **options,
        )
        self.dense_kernel_size = dense

    def _initial(self, positions: Tensor) -> None:
        limit = self.dilated_kernel_size[0] // 2
        positions.uniform_(-limit, limit)


class Dcls2_1d(_DclsNx1d):  # noqa: N801
    """2-D convolution, dense along the height, with learned positions along the width.

    ``weight`` is ``[O, I/g, dense, m]``. The published layer of this name spreads ``gauss`` by
    ``|SIG| + 1`` instead of 0.27: ``reference_slips=True`` does so too.
    """

    rank = 2

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, dense, K]``."""
        if not (self.reference_slips and self.version == "gauss"):
            return super().kernel()
        size = _ops.check(self.weight, self.P, self.SIG, self.dilated_kernel_size, self.version)
        return _ops.spread(self.weight, self.P, self.SIG, (size, "gauss", 1.0, (0,)))


class Dcls3_1d(_DclsNx1d):  # noqa: N801
    """3-D convolution, dense along the first two axes, with learned positions along the last."""

    rank = 3


class Dcls2dK1d(_Dcls):
    """2-D convolution with a 1-D kernel of learned positions: K x 1 for ``flat_dim`` 0, 1 x K for 1."""

    rank, learnable = 2, 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilated_kernel_size: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        version: str = "v1",
        flat_dim: int = 0,
        **options: Any,
    ) -> None:
        if flat_dim not in (0, 1):
            raise ValueError(f"flat_dim: expected 0 or 1, got {flat_dim}")
        self._flat = flat_dim
        super().__init__(
            (in_channels, out_channels),
            kernel_count,
            sizes(dilated_kernel_size, 1),
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            version=version,
            **options,
        )
        self.flat_dim = flat_dim

    def _full_size(self, dense: tuple[int, ...], learned: tuple[int, ...]) -> tuple[int, ...]:
        return (*learned, 1) if self._flat == 0 else (1, *learned)

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, K, 1]`` or ``[O, I/g, 1, K]``."""
        return super().kernel().unsqueeze(-1 - self.flat_dim)


def clamp_after_step(optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> Any:
    """Clamp the positions of every layer of ``module`` after each step of ``optimizer``; returns the hook's handle."""
    layers = [layer for layer in module.modules() if isinstance(layer, _Dcls)]

    def clamp(*_: Any) -> None:
        for layer in layers:
            layer.clamp_parameters()

    return optimizer.register_step_post_hook(clamp)


def dcls_parameter_groups(
    module: torch.nn.Module, lr: float, weight_decay: float = 0.0, position_lr_scale: float = 5.0
) -> list[dict[str, Any]]:
    """Parameter groups as the layers are trained: positions and spreads learn faster and do not decay.

    Args:
        module: a model; parameters that it shares are listed once.
        lr, weight_decay: of all other parameters.
        position_lr_scale: 5 for images (ConvNeXt-dcls), 100 for learned delays.

    Returns:
        Two groups for a torch optimizer; the second holds ``P`` and ``SIG`` of every layer with learned positions.
    """
    moving = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, _Dcls)
        for parameter in (layer.P, layer.SIG)
        if parameter is not None
    }
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if id(p) not in moving], "lr": lr, "weight_decay": weight_decay},
        {
            "params": [p for p in parameters if id(p) in moving],
            "lr": lr * position_lr_scale,
            "weight_decay": 0.0,
        },
    ]


def repulsion_loss(positions: Iterable[Tensor], reach: float = 1.0) -> Tensor:
    """The mean over kernels of ``sum_{i < j} max(0, 1 - |p_i - p_j| / reach)^2``, summed over the tensors.

    It keeps elements of one kernel from falling onto each other, as KPConv keeps its points apart (Thomas et al.,
    arXiv 1904.08889, equation 10).

    Args:
        positions: ``P [d, O, I/g, m]`` of the layers.
        reach: distance in grid points from which elements leave each other alone.
    """
    total = None
    for P in positions:
        first, second = torch.triu_indices(P.shape[-1], P.shape[-1], 1, device=P.device)
        apart = P.index_select(-1, first) - P.index_select(-1, second)
        squared = apart.square().sum(0)
        # The square root has no derivative at 0; elements that coincide repel with gradient zero.
        distance = torch.where(squared > 0, squared, 1).sqrt() * (squared > 0)
        loss = (1 - distance / reach).relu().square().sum(-1).mean()
        total = loss if total is None else total + loss
    if total is None:
        raise ValueError("positions: expected at least one tensor, got none")
    return total
