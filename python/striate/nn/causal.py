"""The causal convolution as a layer, for whole sequences and step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops


class CausalConv1d(torch.nn.Conv1d):
    """:func:`striate.causal_conv1d` with its weight ``[channels, 1, kernel_size]`` and bias ``[channels]``.

    The state_dict is that of ``torch.nn.Conv1d(channels, channels, kernel_size, groups=channels,
    padding=kernel_size - 1)``, whose first L outputs it computes.

    Args:
        channels: D, the number of channels.
        kernel_size: W, at least 1.
        bias: whether there is a bias.
        activation: None, ``"silu"`` or ``"swish"``.
        device, dtype: as in ``torch.nn.Conv1d``.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if activation not in (None, "silu", "swish"):
            raise NotImplementedError(
                f"CausalConv1d: activation must be None, 'silu' or 'swish', not {activation!r}"
            )
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=kernel_size - 1,
            groups=channels,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.activation = activation

    def forward(
        self,
        x: Tensor,
        *,
        initial_states: Tensor | None = None,
        return_final_states: bool = False,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Any:
        """``[B, D, L]`` to ``[B, D, L]``; the arguments of :func:`striate.causal_conv1d`."""
        return ops.causal_conv1d(
            x,
            self.weight.squeeze(1),
            self.bias,
            activation=self.activation,
            initial_states=initial_states,
            return_final_states=return_final_states,
            seq_idx=seq_idx,
            cu_seqlens=cu_seqlens,
        )

    def new_state(self, batch: int, steps: int | None = None) -> Tensor:
        """A state of zeros for :meth:`step`, ``[batch, D, steps]``; no steps means ``kernel_size - 1``."""
        size = self.kernel_size[0] - 1 if steps is None else steps
        return self.weight.new_zeros(batch, self.in_channels, size)

    @torch.no_grad()
    def step(
        self,
        x: Tensor,
        conv_state: Tensor,
        *,
        cache_seqlens: Tensor | None = None,
        conv_state_indices: Tensor | None = None,
    ) -> Tensor:
        """``[B, D]`` or ``[B, D, L]`` after what ``conv_state`` remembers, which moves on in place; no gradient.

        The arguments of :func:`striate.causal_conv1d_update`.
        """
        return ops.causal_conv1d_update(
            x,
            conv_state,
            self.weight.squeeze(1),
            self.bias,
            activation=self.activation,
            cache_seqlens=cache_seqlens,
            conv_state_indices=conv_state_indices,
        )

    def extra_repr(self) -> str:
        """Torch's, and the activation."""
        return f"{super().extra_repr()}, activation={self.activation!r}"
