"""Long convolutions that are also recurrences: sums of decaying oscillations, and how a kernel becomes one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops import fft_conv1d


class ModalConv1d(nn.Module):
    """Depthwise causal convolution with ``h_t = Re sum_n R_n l_n^t + D`` at t = 0, ``|l_n| < 1``.

    It is computed as a convolution (:meth:`forward`), or sample by sample in O(modes) with
    s <- l s + u, y = Re sum_n R_n s_n + D u (:meth:`step`), as in Massaroli et al. 2023, arXiv 2310.18780, section 3.

    Args:
        channels: channels of input and output.
        modes: oscillations per channel.

    Parameters: ``log_decay`` and ``angle`` [channels, modes] with l = exp(-exp(log_decay) + i angle), ``residue``
    [channels, modes, 2] and ``D`` [channels].

    Shape: ``[N, channels, L]`` to the same.
    """

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__()
        self.channels, self.modes = channels, modes
        # Time constants from 1 to 1000 samples, frequencies over the whole band.
        self.log_decay = nn.Parameter(-torch.rand(channels, modes) * math.log(1000.0))
        self.angle = nn.Parameter(torch.rand(channels, modes) * math.pi)
        self.residue = nn.Parameter(torch.randn(channels, modes, 2) / modes)
        self.D = nn.Parameter(torch.randn(channels))

    def _log_poles(self) -> Tensor:
        return torch.complex(-self.log_decay.exp(), self.angle)

    def kernel(self, length: int) -> Tensor:
        """The kernel ``[channels, length]`` without D."""
        # l^(a B + b) = (l^B)^a l^b: two short tables and a product of matrices in place of a long table.
        block = max(1, math.isqrt(length - 1) + 1)
        log_poles = self._log_poles()
        steps = torch.arange(block, device=log_poles.device)
        inner = torch.exp(log_poles.unsqueeze(-1) * steps)
        outer = torch.exp(log_poles.unsqueeze(-1) * (steps * block)) * torch.view_as_complex(
            self.residue
        ).unsqueeze(-1)
        product = outer.real.mT @ inner.real - outer.imag.mT @ inner.imag
        return product.flatten(1)[:, :length]

    # The names by which a Hyena operator asks for its filters.
    filter = kernel

    @property
    def bias(self) -> Tensor:
        """The skip term."""
        return self.D

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, L]`` to the same, as a convolution."""
        return fft_conv1d(input, self.kernel(input.shape[-1]), order="convolution", skip=self.D)

    def initial_state(self, batch: int) -> Tensor:
        """The state before the first sample, complex ``[batch, channels, modes]``."""
        dtype = torch.complex128 if self.angle.dtype == torch.float64 else torch.complex64
        return torch.zeros(batch, self.channels, self.modes, dtype=dtype, device=self.angle.device)

    def step(self, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One sample ``[N, channels]`` and the state before it, to the output and the state after it.

        The first state is :meth:`initial_state`.
        """
        state = self._log_poles().exp() * state + input.unsqueeze(-1)
        residue = torch.view_as_complex(self.residue)
        return (residue * state).real.sum(-1) + self.D * input, state

    def recurrence(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``[N, channels, L]`` and a state, to the output and the state after it, sample by sample."""
        state = self.initial_state(input.shape[0]) if state is None else state
        outputs = []
        for sample in input.unbind(-1):
            output, state = self.step(sample, state)
            outputs.append(output)
        return torch.stack(outputs, -1), state

    def prefill(self, input: Tensor) -> Tensor:
        """The state after ``[N, channels, L]``, s = sum_t l^(L - 1 - t) u_t, at once."""
        steps = torch.arange(input.shape[-1] - 1, -1, -1, device=input.device)
        powers = torch.exp(self._log_poles().unsqueeze(-1) * steps)
        return torch.einsum("cml,ncl->ncm", powers, input.to(powers.dtype))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, modes={self.modes}"


def hankel_singular_values(kernel: Tensor, size: int = 256) -> Tensor:
    """Singular values ``[C, s]`` of the Hankel matrix of h_1, h_2, ... of kernels ``[C, L]``, largest first.

    A recurrence with r real states cannot be closer to the kernel than the value number r + 1.
    """
    return torch.linalg.svdvals(_hankel(kernel.double(), size))


def distill_modal(kernel: Tensor, modes: int, *, size: int = 256) -> ModalConv1d:
    """The :class:`ModalConv1d` with ``modes`` oscillations per channel whose kernel is near ``kernel`` [C, L].

    Poles come from the shift of the signal space of the Hankel matrix (Kung 1978), residues from least squares over
    the whole kernel. A kernel that is a sum of at most ``modes`` oscillations is recovered to rounding.

    Args:
        kernel: ``[C, L]``, tap 0 at the current sample; at least 4 taps.
        modes: oscillations per channel; a real pole counts as one.
        size: rows of the Hankel matrix at most; more see slower decays, at a cost of size^3 per channel.
    """
    if kernel.dim() != 2 or kernel.shape[1] < 4:
        raise ValueError(f"kernel: expected [C, L] with at least 4 taps, got {tuple(kernel.shape)}")
    if modes < 1:
        raise ValueError(f"modes: expected at least 1, got {modes}")
    layer = ModalConv1d(kernel.shape[0], modes).to(kernel.dtype)
    with torch.no_grad():
        for channel, taps in enumerate(kernel.detach().double()):
            poles, residues = _fit(taps, modes, size)
            used = slice(0, len(poles))
            layer.log_decay[channel] = 0.0
            layer.angle[channel] = 0.0
            layer.residue[channel] = 0.0
            layer.log_decay[channel, used] = torch.log(-torch.log(poles.abs()))
            layer.angle[channel, used] = poles.angle()
            layer.residue[channel, used] = torch.view_as_real(residues)
            layer.D[channel] = taps[0] - residues.real.sum()
    return layer


def _hankel(kernel: Tensor, size: int) -> Tensor:
    rows = min(size, (kernel.shape[-1] - 1) // 2)
    return kernel[..., 1 : 1 + 2 * rows].unfold(-1, rows, 1)


def _fit(taps: Tensor, modes: int, size: int) -> tuple[Tensor, Tensor]:
    """Poles in the upper half plane and their residues."""
    hankel = _hankel(taps, size)
    vectors, values, _ = torch.linalg.svd(hankel)
    # A state for each direction that is not rounding; two for an oscillation.
    states = int((values > values[:1] * 1e-12 * len(hankel)).sum())
    states = max(1, min(2 * modes, states, len(hankel) - 1))
    signal = vectors[:, :states]
    poles = torch.linalg.eigvals(torch.linalg.lstsq(signal[:-1], signal[1:]).solution)
    poles = poles[poles.imag > -1e-9 * poles.abs()]
    radius = poles.abs().clamp(1e-8, 1 - 1e-9)
    poles = torch.polar(radius, poles.angle())
    residues = _residues(taps, poles)
    if len(poles) > modes:  # real poles, one state each: keep those that carry most
        energy = residues.abs().square() / (1 - radius.square())
        poles = poles[energy.topk(modes).indices]
        residues = _residues(taps, poles)
    return poles, residues


def _residues(taps: Tensor, poles: Tensor) -> Tensor:
    """Least squares of taps 1, 2, ... over Re R l^t; a real pole has a real residue."""
    steps = torch.arange(1, len(taps), dtype=torch.float64)
    powers = torch.exp(torch.log(poles) * steps.unsqueeze(-1))
    real = poles.imag.abs() <= 1e-9 * poles.abs()
    columns = torch.cat([powers.real, -powers.imag[:, ~real]], 1)
    # The driver that tolerates poles that lie close together.
    found = torch.linalg.lstsq(columns, taps[1:].unsqueeze(-1), driver="gelsd").solution[:, 0]
    residues = torch.complex(found[: len(poles)], torch.zeros(len(poles), dtype=torch.float64))
    residues[~real] += 1j * found[len(poles) :]
    return residues
