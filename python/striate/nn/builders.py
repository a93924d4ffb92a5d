"""Layers whose kernels are moving points, densities, blurs, waves or small networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ._built import BuiltConv, Ints, wide


def _lines(sizes: Sequence[int], parameter: Tensor) -> list[Tensor]:
    """Points of [-1, 1] along every axis, as builders compute with the parameter."""
    like = wide(parameter)
    return [torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device) for size in sizes]


class _SMPConv(BuiltConv):
    """Moving points: kernel[c, u] = sum_j a[c, j] max(0, 1 - |p_j - u|_1 / r_j) on the grid u of [-1, 1]^D."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        n_points: int | None = None,
        *,
        shared: bool | None = None,
        radius: float | None = None,
        coordinate_std: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__((in_channels, out_channels), kernel_size, **options)
        depthwise = in_channels == out_channels == self.groups
        self.shared = depthwise if shared is None else shared
        if self.shared and not depthwise:
            raise ValueError(
                f"shared: expected in_channels = out_channels = groups, got {in_channels}, {out_channels}"
            )
        self.n_points = max(1, math.prod(self.kernel_size) // 4) if n_points is None else n_points
        self.initial_radius = min(1.0, 4 / max(self.kernel_size)) if radius is None else radius
        self.coordinate_std = coordinate_std
        owners = 1 if self.shared else out_channels
        weights = (1, out_channels) if self.shared else (out_channels, in_channels // self.groups)
        self.weight_coord = self._empty(owners, self.n_points, self.rank)
        self.radius = self._empty(owners, self.n_points, *[1] * self.rank)
        self.weights = self._empty(*weights, self.n_points)
        self._register_bias()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Points normal around the middle (1-D: before the end, one-sided), small weights, one radius."""
        low, high = (-1.0, 0.0) if self.rank == 1 else (-1.0, 1.0)
        torch.nn.init.trunc_normal_(self.weight_coord, std=self.coordinate_std, a=low, b=high)
        torch.nn.init.trunc_normal_(self.weights, std=0.02)
        with torch.no_grad():
            if self.rank == 1:
                self.weight_coord.mul_(2).add_(1)
            self.radius.fill_(self.initial_radius)
        self._uniform_bias(self.in_channels // self.groups * math.prod(self.kernel_size))

    def clamp_parameters(self) -> None:
        """Keep radii in [0.001, 1], or [0.0001, 1] for points of their own; due after every optimizer step."""
        with torch.no_grad():
            self.radius.clamp_(1e-3 if self.shared else 1e-4, 1.0)

    def coordinates(self) -> Tensor:
        """``[D, *K]``: where every tap lies. In 2-D these are (x, -y): the published kernel is rotated on its grid."""
        lines = _lines(self.kernel_size, self.radius)
        if self.rank == 1:
            return lines[0].unsqueeze(0)
        rows, columns = torch.meshgrid(*lines, indexing="ij")
        return torch.stack((columns, -rows))

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, *K]``."""
        points = wide(self.weight_coord)
        apart = points.reshape(*points.shape, *[1] * self.rank) - self.coordinates()
        cones = F.relu(1 - apart.abs().sum(2) / wide(self.radius))
        if not self.shared:
            cones = cones / ((cones != 0).sum(1, keepdim=True) + 1e-6)
        made = torch.matmul(wide(self.weights), cones.flatten(2)).to(self.weights.dtype)
        return made.reshape(self.out_channels, self.in_channels // self.groups, *self.kernel_size)


class SMPConv1d(_SMPConv):
    """1-D convolution with self-moving points (Kim and Park: SMPConv, arXiv 2304.02330, equations 2 and 3).

    Args:
        in_channels, out_channels, kernel_size: as in :class:`torch.nn.Conv1d`.
        n_points: J, by default a quarter of the taps.
        shared: one set of points for all channels, whose kernels are plain sums (the depthwise image model; default
            where in_channels = out_channels = groups). Otherwise every output channel has its own points, and a tap
            is divided by the number of points that reach it (the sequence model).
        radius: initial radius on the grid [-1, 1], by default 4 / K; it is learned.
        coordinate_std: of the initial positions.
        options: stride, padding, groups, bias, padding_mode, device, dtype.

    Parameters are ``weight_coord [1 or O, J, D]``, ``radius [1 or O, J, 1...]``, ``weights [1, O, J]`` or
    ``[O, I/g, J]``, ``bias``. Call :meth:`clamp_parameters` after every optimizer step.
    """

    rank = 1


class SMPConv2d(_SMPConv):
    """2-D form of :class:`SMPConv1d`."""

    rank = 2


class _WeightedConv(BuiltConv):
    """y = conv(x, W * Phi) with Phi the outer product of a symmetric density per axis."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        density: Sequence[float] | None = None,
        *,
        trainable: bool = False,
        **options: Any,
    ) -> None:
        super().__init__((in_channels, out_channels), kernel_size, **options)
        half = self.kernel_size[0] // 2
        if len(set(self.kernel_size)) > 1 or self.kernel_size[0] % 2 == 0:
            raise ValueError(
                f"kernel_size: expected the same odd size along every axis, got {self.kernel_size}"
            )
        values = torch.ones(half) if density is None else torch.as_tensor(density, dtype=torch.float32)
        if values.shape != (half,):
            raise ValueError(f"density: expected {half} numbers, the outermost first, got {density!r}")
        self.weight = self._empty(out_channels, in_channels // self.groups, *self.kernel_size)
        values = values.to(self.weight)
        if trainable:
            self.density = torch.nn.Parameter(values)
        else:
            self.register_buffer("density", values)
        self._register_bias()
        torch.nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self._uniform_bias(in_channels // self.groups * math.prod(self.kernel_size))

    def kernel(self) -> Tensor:
        """The weight times the density of its taps."""
        density = wide(self.density)
        along = torch.cat([density, density.new_ones(1), density.flip(0)])
        product = wide(self.weight)
        for axis in range(self.rank):
            product = product * along.reshape(*[1] * (axis + 2), -1, *[1] * (self.rank - 1 - axis))
        return product.to(self.weight.dtype)


class WeightedConv1d(_WeightedConv):
    """Convolution with a density over its taps: y = conv(x, W * Phi), Phi = alpha x ... x alpha.

    alpha = [density, 1, density reversed] (Cammarasana and Patane: Optimal density functions for weighted
    convolution, arXiv 2505.24527). With density 1 it is a plain convolution.

    Args:
        in_channels, out_channels, kernel_size: as in :class:`torch.nn.Conv1d`; the size odd.
        density: (K - 1) / 2 numbers, the outermost first; ones by default.
        trainable: whether the density is a parameter or a buffer.
        options: stride, padding, groups, bias, padding_mode, device, dtype.
    """

    rank = 1


class WeightedConv2d(_WeightedConv):
    """2-D form of :class:`WeightedConv1d`."""

    rank = 2


class WeightedConv3d(_WeightedConv):
    """3-D form of :class:`WeightedConv1d`."""

    rank = 3


class GaborConv2d(BuiltConv):
    r"""Gabor filters, one per pair of output and input channel, built in the graph so that all four numbers learn.

    .. math:: g(x, y) = e^{-(x'^2 + y'^2) / 2 (\sigma + 0.001)^2} \cos(f x' + \psi) / (2 \pi \sigma^2),\quad
        x' = x \cos\theta + y \sin\theta,\; y' = y \cos\theta - x \sin\theta

    (Alekseev and Bobe: GaborNet, arXiv 1904.13204, equation 3.) The published layer writes its kernel past autograd,
    so that nothing it shows is learned, and stretches odd grids: ``linspace(-ceil(k/2) + 1, ceil(k/2), k)``.

    Args:
        in_channels, out_channels, kernel_size: as in :class:`torch.nn.Conv2d`.
        reference_grid: the published grid; by default x and y are whole numbers around floor(k / 2).
        options: stride, padding, groups, bias, padding_mode, device, dtype; bias is off by default.

    Parameters are ``freq``, ``theta``, ``sigma`` and ``psi``, ``[O, I/g]`` each.
    """

    rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        *,
        reference_grid: bool = False,
        bias: bool = False,
        **options: Any,
    ) -> None:
        super().__init__((in_channels, out_channels), kernel_size, bias=bias, **options)
        self.reference_grid = reference_grid
        shape = (out_channels, in_channels // self.groups)
        self.freq, self.theta, self.sigma, self.psi = (self._empty(*shape) for _ in range(4))
        self._register_bias()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """f = (pi / 2) 2^(-r / 2) for r in 0..4, theta a multiple of pi / 8, sigma = pi / f, psi in [0, pi)."""
        shape, where = self.freq.shape, self.freq.device
        with torch.no_grad():
            self.freq.copy_(math.pi / 2 * math.sqrt(2) ** -torch.randint(0, 5, shape, device=where).float())
            self.theta.copy_(math.pi / 8 * torch.randint(0, 8, shape, device=where))
            self.sigma.copy_(math.pi / self.freq)
            self.psi.uniform_(0, math.pi)
        self._uniform_bias(shape[1] * math.prod(self.kernel_size))

    def _line(self, size: int) -> Tensor:
        far = math.ceil(size / 2)
        first, last = (1 - far, far) if self.reference_grid else (-(size // 2), size - 1 - size // 2)
        return torch.linspace(first, last, size, dtype=wide(self.freq).dtype, device=self.freq.device)

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, kh, kw]``."""
        y, x = torch.meshgrid(*(self._line(size) for size in self.kernel_size), indexing="ij")
        freq, theta, sigma, psi = (
            wide(p)[..., None, None] for p in (self.freq, self.theta, self.sigma, self.psi)
        )
        turned = x * theta.cos() + y * theta.sin()
        squared = turned.square() + (y * theta.cos() - x * theta.sin()).square()
        envelope = torch.exp(-0.5 * squared / (sigma + 1e-3).square())
        made = envelope * torch.cos(freq * turned + psi) / (2 * math.pi * sigma.square())
        return made.to(self.freq.dtype)


_COVARIANCES = {"spherical": 1, "diagonal": 2, "full": 3}  # numbers that each is given by


class GaussianComposedConv2d(BuiltConv):
    r"""A free kernel behind a Gaussian blur of learned covariance: y = f * (g_Sigma * x) = (g_Sigma o f) * x.

    (Shelhamer, Wang, Darrell: Blurring the Line Between Structure and Learning, arXiv 1904.11487, section 3.)
    Sigma = L L^T with L = [[e^a, 0], [b, e^c]], g normalised to sum 1 on a grid of ceil(2 sigma) taps to each side.
    The size of that grid is no function of sigma to autograd. The blur runs first, on maps that it enlarges by its
    own reach, and then f: the sum is the same up to the borders, and f is not enlarged.

    Args:
        in_channels, out_channels, kernel_size: as in :class:`torch.nn.Conv2d`; of f.
        covariance: ``"spherical"`` (1 number), ``"diagonal"`` (2: rows, columns) or ``"full"`` (3: a, c, b).
        sigma: the initial standard deviation, in pixels.
        options: stride, padding, groups, bias, device, dtype.

    Parameters are ``weight``, ``log_sigma`` and ``bias``. :meth:`kernel` is the composed kernel; as its size grows
    with sigma, so must the padding, which :meth:`merged` sees to.
    """

    rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        *,
        covariance: str = "spherical",
        sigma: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__((in_channels, out_channels), kernel_size, **options)
        if covariance not in _COVARIANCES:
            raise ValueError(f"covariance: expected one of {', '.join(_COVARIANCES)}, got {covariance!r}")
        if isinstance(self.padding, str) or self.padding_mode != "zeros":
            raise ValueError("padding: expected integers, and zeros to pad with")
        if not sigma > 0:
            raise ValueError(f"sigma: expected a positive number, got {sigma}")
        self.covariance = covariance
        self.weight = self._empty(out_channels, in_channels // self.groups, *self.kernel_size)
        self.log_sigma = self._empty(_COVARIANCES[covariance])
        self._register_bias()
        torch.nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._uniform_bias(self.weight[0].numel())
        with torch.no_grad():
            self.log_sigma.fill_(math.log(sigma))
            self.log_sigma[2:] = 0

    def _factor(self) -> tuple[Tensor, Tensor, Tensor]:
        """e^a, b and e^c."""
        numbers = wide(self.log_sigma)
        scales = numbers[:2].exp()
        rows, columns = scales[0], scales[-1]
        lower = numbers[2] if self.covariance == "full" else rows.new_zeros(())
        return rows, lower, columns

    def blur(self) -> Tensor:
        """g_Sigma, ``[2 ry + 1, 2 rx + 1]``, of half parameters in float32."""
        rows, lower, columns = self._factor()
        spreads = (rows.detach(), (lower.detach().square() + columns.detach().square()).sqrt())
        reach = [max(1, math.ceil(2 * float(spread))) for spread in spreads]
        y, x = torch.meshgrid(
            *(torch.arange(-r, r + 1, dtype=rows.dtype, device=rows.device) for r in reach), indexing="ij"
        )
        whitened = y / rows  # L^-1 (y, x), row by row
        squared = whitened.square() + ((x - lower * whitened) / columns).square()
        values = torch.exp(-0.5 * squared)
        return values / values.sum()

    def kernel(self) -> Tensor:
        """The composed kernel ``[O, I/g, kh + 2 ry, kw + 2 rx]``."""
        g = self.blur()
        full = [size - 1 for size in g.shape]
        each = wide(self.weight).flatten(0, 1).unsqueeze(1)
        composed = F.conv2d(each, g[None, None], padding=full)  # g is symmetric about its centre
        return composed.reshape(*self.weight.shape[:2], *composed.shape[2:]).to(self.weight.dtype)

    def _reaching(self, g: Tensor) -> tuple[int, int]:
        """The padding of f plus the reach of the blur."""
        assert not isinstance(self.padding, str)
        return self.padding[0] + g.shape[0] // 2, self.padding[1] + g.shape[1] // 2

    def forward(self, input: Tensor) -> Tensor:
        """Blur ``[N, C, H, W]`` as far as f will look, then convolve."""
        g = self.blur()
        every = g.expand(self.in_channels, 1, *g.shape)
        blurred = ops.depthwise_conv2d(input, every, padding=self._reaching(g))
        return ops.conv2d(blurred, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def merged(self) -> torch.nn.Module:
        """A plain convolution, with the padding that its larger kernel needs."""
        own, self.padding = self.padding, self._reaching(self.blur())
        try:
            return super().merged()
        finally:
            self.padding = own


def _linear(layer: Any, input: Tensor) -> Tensor:
    """A linear layer, of half parameters in float32."""
    return F.linear(input, wide(layer.weight), None if layer.bias is None else wide(layer.bias))


class _Sine(torch.nn.Module):
    """sin(omega (A c + b))."""

    def __init__(self, inputs: int, outputs: int, omega: float, bound: float) -> None:
        super().__init__()
        self.linear, self.omega = torch.nn.Linear(inputs, outputs), omega
        torch.nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, coordinates: Tensor) -> Tensor:
        return torch.sin(self.omega * _linear(self.linear, coordinates))


class _ContinuousKernelConv(BuiltConv):
    """kernel[o, i, t] = network(t)[o, i] at the points t of [-1, 1]^D."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        *,
        hidden: int = 32,
        depth: int = 3,
        network: str = "siren",
        omega: float = 30.0,
        **options: Any,
    ) -> None:
        super().__init__((in_channels, out_channels), kernel_size, **options)
        if network not in ("siren", "mfn"):
            raise ValueError(f"network: expected siren or mfn, got {network!r}")
        if min(hidden, depth) < 1:
            raise ValueError(f"hidden and depth: expected positive integers, got {hidden} and {depth}")
        self.network, per_group = network, in_channels // self.groups
        deep = self.rank if network == "mfn" else hidden
        bound = math.sqrt(6 / hidden) / omega
        first = _Sine(self.rank, hidden, omega, 1 / self.rank)
        later = [
            _Sine(deep, hidden, omega, 1 / self.rank if network == "mfn" else bound) for _ in range(depth - 1)
        ]
        self.waves = torch.nn.ModuleList([first, *later])
        mixes = [torch.nn.Linear(hidden, hidden) for _ in range(depth - 1 if network == "mfn" else 0)]
        self.mixes = torch.nn.ModuleList(mixes)
        for mix in mixes:  # a sine has variance 1/2, and so has its product with a mix of variance 1
            torch.nn.init.normal_(mix.weight, std=math.sqrt(2 / hidden))
        self.out = torch.nn.Linear(hidden, out_channels * per_group, bias=False)
        # Unit variance through the convolution: a kernel of unit variance has this many taps to sum.
        torch.nn.init.normal_(
            self.out.weight, std=math.sqrt(2 / (hidden * per_group * math.prod(self.kernel_size)))
        )
        self._register_bias()
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)
        self.to(**{name: value for name, value in self.factory.items() if value is not None})

    def kernel(self) -> Tensor:
        """The dense kernel ``[O, I/g, *K]``."""
        lines = _lines(self.kernel_size, self.out.weight)
        coordinates = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
        state = self.waves[0](coordinates)
        for index, wave in enumerate(list(self.waves)[1:]):
            if self.network == "mfn":
                state = wave(coordinates) * _linear(self.mixes[index], state)
            else:
                state = wave(state)
        values = _linear(self.out, state).movedim(-1, 0).to(self.out.weight.dtype)
        return values.reshape(self.out_channels, -1, *self.kernel_size)


class ContinuousKernelConv1d(_ContinuousKernelConv):
    """Convolution whose kernel a small network draws, so that its size costs no parameters.

    ``siren``: layers sin(omega (A h + b)) of the coordinates (Romero et al.: CKConv, arXiv 2102.02611, section 4;
    initial values of Sitzmann et al., arXiv 2006.09661). ``mfn``: h_i = sin(omega (A_i c + b_i)) * (B_i h_{i-1}), a
    multiplicative filter network (Fathony et al., ICLR 2021, equation 2).

    Args:
        in_channels, out_channels, kernel_size: as in :class:`torch.nn.Conv1d`.
        hidden, depth, network, omega: width, number of sine layers, ``"siren"`` or ``"mfn"``, frequency.
        options: stride, padding, groups, bias, padding_mode, device, dtype.
    """

    rank = 1


class ContinuousKernelConv2d(_ContinuousKernelConv):
    """2-D form of :class:`ContinuousKernelConv1d`."""

    rank = 2
