"""The modules of the flashfftconv package, for any length, width and dtype, without buffers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import fft_conv1d


class FlashFFTConv(nn.Module):
    """Circular convolution modulo ``seqlen``, cut to the input's length; causal where it does not wrap.

    y[t] = postgate[t] sum_j k[j] v[(t - j) mod seqlen] with v = pregate * u for t < L, zero beyond L (Fu et al. 2023,
    arXiv 2311.05908). With seqlen >= L + Lk - 1 this is the causal convolution.

    Unlike the original: any ``seqlen``, any number of channels, odd lengths, gates one at a time, float32 and float64
    input, spectra that cannot overflow, no twiddle buffers in the state_dict.

    Args:
        seqlen: the length of the transform.
        dtype: kept for the signature; input of any floating dtype is taken as it comes.
        use_32_butterfly: kept for the signature.
    """

    def __init__(
        self, seqlen: int, dtype: torch.dtype = torch.float16, use_32_butterfly: bool = True
    ) -> None:
        super().__init__()
        if seqlen < 1:
            raise ValueError(f"seqlen: expected at least 1, got {seqlen}")
        self.seqlen, self.dtype, self.use_32_butterfly = seqlen, dtype, use_32_butterfly

    def extra_repr(self) -> str:
        """What the constructor was told."""
        return f"{self.seqlen}, dtype={self.dtype}"

    def forward(
        self, u: Tensor, k: Tensor, pregate: Tensor | None = None, postgate: Tensor | None = None
    ) -> Tensor:
        """``u`` [B, H, L], ``k`` [H, Lk] or [1, Lk] in float32 or the dtype of u, gates as u; L, Lk <= seqlen."""
        length, taps = u.shape[-1], k.shape[-1]
        if max(length, taps) > self.seqlen:
            raise ValueError(
                f"u, k: expected at most seqlen = {self.seqlen} positions, got {length} and {taps}"
            )
        gates: dict[str, Any] = {"order": "convolution", "postgate": postgate}
        if length + taps - 1 <= self.seqlen:
            return fft_conv1d(u, k, pregate=pregate, **gates)
        if length == self.seqlen:
            return fft_conv1d(u, k, padding="circular", pregate=pregate, **gates)
        v = F.pad(u if pregate is None else u * pregate, (0, self.seqlen - length))
        y = fft_conv1d(v, k, padding="circular", order="convolution")[..., :length]
        return y if postgate is None else y * postgate


class PartialFFTConv(nn.Module):
    """Causal convolution with the first ``N_partial`` taps of a kernel.

    The transforms are as short as the kept taps allow, so that work is saved and not only multiplied by zero.
    """

    def __init__(self, N_partial: int) -> None:
        super().__init__()
        if N_partial < 1:
            raise ValueError(f"N_partial: expected at least 1, got {N_partial}")
        self.N_partial = N_partial

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """``x`` [B, H, L], ``k`` [H, Lk] or [1, Lk]."""
        return fft_conv1d(x, k[..., : self.N_partial], order="convolution")


class FrequencySparseFFTConv(nn.Module):
    """Convolution with a kernel of which only the lowest ``N_partial / 2`` of ``L + 1`` frequencies are kept.

    The frequencies are those of a transform of 2 L, as in the original. The low-pass kernel (which is no longer causal)
    is made once per kernel where no gradient of that is wanted, and the input is then convolved like any other: no work
    of its transform is saved, because on a processor little could be.
    """

    def __init__(self, N_partial: int) -> None:
        super().__init__()
        if N_partial < 0:
            raise ValueError(f"N_partial: expected at least 0, got {N_partial}")
        self.N_partial = N_partial
        # Length, kernel and its low frequencies. Kernels are known again by their numbers (ADR 9).
        self._kept: tuple[int, Tensor, Tensor] | None = None

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """``x`` [B, H, L], ``k`` [H, Lk] or [1, Lk] with Lk <= 2 L."""
        length = x.shape[-1]
        low = self._low(k.to(torch.float64 if x.dtype == torch.float64 else torch.float32), length)
        # Modulo 2 L the second half stands for taps that look ahead.
        ahead = F.pad(low[..., length + 1 :].flip(-1), (1, 0))
        return fft_conv1d(x, low[..., :length], order="convolution", kernel_reversed=ahead)

    def _low(self, k: Tensor, length: int) -> Tensor:
        """The kept frequencies of a kernel, as taps modulo 2 L."""
        keeps = not (
            (torch.is_grad_enabled() and k.requires_grad)
            or torch.compiler.is_compiling()
            or torch._C._are_functorch_transforms_active()
        )
        kept = self._kept
        if keeps and kept is not None and kept[0] == length and _same(kept[1], k):
            return kept[2]
        spectrum = torch.fft.rfft(k, n=2 * length)
        spectrum = torch.where(torch.arange(length + 1, device=k.device) < self.N_partial // 2, spectrum, 0)
        low = torch.fft.irfft(spectrum, n=2 * length)
        if keeps:
            self._kept = (length, k.detach().clone(), low.detach())
        return low


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
