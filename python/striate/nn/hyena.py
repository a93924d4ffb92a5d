"""The Hyena operator and its implicit filters (Poli et al. 2023, arXiv 2302.10866)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops import causal_conv1d, fft_conv1d
from ._projections import from_rows, into_rows, untouched
from .conv import Conv1d
from .modal import ModalConv1d, distill_modal


class Sin(nn.Module):
    """sin(freq x) with a frequency per feature."""

    def __init__(self, features: int, w: float = 10.0) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, features), float(w)))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., features]`` to the same."""
        return torch.sin(self.freq * x)


class PositionalEmbedding(nn.Module):
    """Time in [0, 1] and the real and imaginary parts of (emb_dim - 1) / 2 slow complex exponentials."""

    t: Tensor

    def __init__(self, emb_dim: int, seq_len: int) -> None:
        super().__init__()
        if emb_dim < 3 or emb_dim % 2 == 0:
            raise ValueError(f"emb_dim: expected an odd number of at least 3, got {emb_dim}")
        bands = (emb_dim - 1) // 2
        t = torch.linspace(0, 1, seq_len).view(1, -1, 1)
        phase = torch.linspace(1e-4, bands - 1, bands) * (2 * math.pi * torch.arange(seq_len) / seq_len).view(
            1, -1, 1
        )
        self.z = nn.Parameter(torch.cat([t, phase.cos(), -phase.sin()], -1))
        self.register_buffer("t", t)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """Embedding ``[1, length, emb_dim]`` and time ``[1, length, 1]``."""
        return self.z[:, :length], self.t[:, :length]


class ExponentialModulation(nn.Module):
    """A window ``exp(-t |delta|) + shift``, from fast to slow decay over the channels."""

    deltas: Tensor

    def __init__(self, channels: int, shift: float = 0.0, fast: float = 0.3, slow: float = 1.5) -> None:
        super().__init__()
        self.shift = shift
        ends = math.log(1e-2) / slow, math.log(1e-2) / fast
        self.register_buffer("deltas", torch.linspace(*ends, channels).view(1, 1, -1))

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """``h`` [1, L, channels] under the window."""
        return h * (torch.exp(-t * self.deltas.abs()) + self.shift)


class HyenaFilter(nn.Module):
    """Kernels ``h(t) = MLP(embedding(t)) (exp(-t |delta|) + shift)`` with sine activations.

    The parameters have the names of the authors' standalone implementation.

    Args:
        d_model: number of kernels.
        emb_dim: features of the positional embedding, odd.
        order: width of the MLP.
        seq_len: the longest kernel.
        w: frequency that the sines begin with.
        num_inner_mlps: hidden layers after the first.
    """

    def __init__(
        self,
        d_model: int,
        emb_dim: int = 3,
        order: int = 16,
        seq_len: int = 1024,
        *,
        w: float = 1.0,
        num_inner_mlps: int = 2,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.bias = nn.Parameter(torch.randn(d_model))
        self.pos_emb = PositionalEmbedding(emb_dim, seq_len)
        sine = Sin(order, w)
        layers: list[nn.Module] = [nn.Linear(emb_dim, order), sine]
        for _ in range(num_inner_mlps):
            layers += [nn.Linear(order, order), sine]
        self.implicit_filter = nn.Sequential(*layers, nn.Linear(order, d_model, bias=False))
        self.modulation = ExponentialModulation(d_model, shift)

    def filter(self, length: int) -> Tensor:
        """Kernels ``[d_model, length]``; tap 0 meets the current sample."""
        z, t = self.pos_emb(length)
        return self.modulation(t, self.implicit_filter(z))[0].T

    def forward(self, input: Tensor, pregate: Tensor | None = None) -> Tensor:
        """``[N, d_model, L]`` to h * v + bias v for v = pregate input."""
        return fft_conv1d(
            input, self.filter(input.shape[-1]), order="convolution", pregate=pregate, skip=self.bias
        )


class HyenaOperator(nn.Module):
    """Long gated convolutions in place of attention: v = (h_i * (x_i v)) + b_i x_i v for i = order-1..1, times x_0.

    Projections and a short causal convolution make x_0, ..., x_{order-1} and v (equation 8 and algorithm 3 of the
    paper). Parameters have the names of the authors' standalone implementation, so that state_dicts are exchanged.

    Args:
        d_model: features of input and output.
        l_max: the longest input.
        order: number of gates.
        filter_order: width of the filters' MLP.
        dropout: of the gated signal.
        filter_args: further arguments of :class:`HyenaFilter`; or ``modes``, which makes the filters sums of so many
            oscillations, :class:`ModalConv1d`, the form into which :meth:`distill` brings trained ones.

    Shape: ``[N, L, d_model]`` to the same, L <= l_max.
    """

    def __init__(
        self,
        d_model: int,
        l_max: int,
        order: int = 2,
        filter_order: int = 64,
        dropout: float = 0.0,
        **filter_args: float,
    ) -> None:
        super().__init__()
        if order < 2:
            raise ValueError(f"order: expected at least 2, got {order}")
        self.d_model, self.l_max, self.order = d_model, l_max, order
        width = d_model * (order + 1)
        self.dropout = nn.Dropout(dropout)
        self.in_proj = nn.Linear(d_model, width)
        self.out_proj = nn.Linear(d_model, d_model)
        self.short_filter = Conv1d(width, width, 3, padding=2, groups=width)
        filters = d_model * (order - 1)
        self.filter_fn: HyenaFilter | ModalConv1d
        if "modes" in filter_args:
            self.filter_fn = ModalConv1d(filters, **filter_args)  # type: ignore[arg-type]
        else:
            self.filter_fn = HyenaFilter(filters, order=filter_order, seq_len=l_max, **filter_args)  # type: ignore[arg-type]

    def distill(self, modes: int) -> None:
        """Replace the filters, in place, by sums of ``modes`` oscillations (Massaroli et al. 2023, arXiv 2310.18780).

        Args:
            modes: see :func:`distill_modal`, which it calls on the filters of full length.
        """
        with torch.no_grad():
            modal = distill_modal(self.filter_fn.filter(self.l_max), modes)
            modal.D.add_(self.filter_fn.bias)
        self.filter_fn = modal

    def forward(self, input: Tensor) -> Tensor:
        """``[N, L, d_model]`` to the same."""
        length = input.shape[-2]
        if length > self.l_max:
            raise ValueError(f"input: expected at most {self.l_max} positions, got {length}")
        projected = into_rows(self.in_proj, input)
        if type(self.short_filter) is Conv1d and untouched(self.short_filter):
            taps = self.short_filter.weight.squeeze(1)
            short = causal_conv1d(projected, taps, self.short_filter.bias)
        else:
            short = self.short_filter(projected)[..., :length]
        *gates, v = short.split(self.d_model, dim=1)
        kernels = self.filter_fn.filter(length).unflatten(0, (self.order - 1, self.d_model))
        bias = self.filter_fn.bias.unflatten(0, (self.order - 1, self.d_model))
        for i, gate in enumerate(reversed(gates[1:])):
            v = self.dropout(v * gate)
            v = fft_conv1d(v, kernels[i], order="convolution", skip=bias[i])
        return from_rows(self.out_proj, v * gates[0])
