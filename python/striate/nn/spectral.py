"""Layers that work on the frequencies of planes: global and adaptive filters, spectral pooling and its filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops._planes import filter_planes


class GlobalFilter2d(nn.Module):
    """y = irfft2(K rfft2(x)): a circular convolution with a kernel as large as the plane (Rao et al. 2022).

    Parameter ``complex_weight`` [channels, height, width // 2 + 1, 2] as in HorNet (arXiv 2207.14284, section 3.2). For
    planes of another size it is resized bilinearly.

    Args:
        channels: channels of input and output.
        height: rows of the plane.
        width: columns of the plane.

    Shape: ``[N, channels, H, W]`` to the same; half input is computed in float32.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.channels, self.height, self.width = channels, height, width
        self.complex_weight = nn.Parameter(torch.empty(channels, height, width // 2 + 1, 2))
        nn.init.trunc_normal_(self.complex_weight, std=0.02)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        size = input.shape[-2:]
        weight: Tensor = self.complex_weight
        if (size[0], size[1] // 2 + 1) != tuple(weight.shape[1:3]):
            planes = weight.permute(3, 0, 1, 2)
            resized = F.interpolate(planes, (size[0], size[1] // 2 + 1), mode="bilinear", align_corners=True)
            weight = resized.permute(1, 2, 3, 0)
        x = _wide(input)
        return filter_planes(x, weight.to(x.dtype), False).to(input.dtype)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, {self.height}, {self.width}"


class AdaptiveFrequencyFilter2d(nn.Module):
    """y = irfft2(M rfft2(x)) + x with a mask M that a small complex network makes from the spectrum itself.

    M = softshrink(B2 act(B1 X + b1) + b2), with complex matrices that are block diagonal over the channels and act on
    real and imaginary parts apart (Huang et al. 2023, arXiv 2307.14008, section 3.3).

    Args:
        channels: channels of input and output.
        blocks: blocks of the matrices; divides channels.
        sparsity: threshold of the shrinkage.
        hidden_factor: width of the hidden layer in blocks.

    Parameters: ``w1`` [2, blocks, c, c hidden_factor], ``b1`` [2, blocks, c hidden_factor], ``w2``, ``b2`` likewise,
    real part first, with c = channels / blocks.

    Shape: ``[N, channels, H, W]`` to the same; half input is computed in float32.
    """

    def __init__(
        self, channels: int, blocks: int = 8, sparsity: float = 0.01, hidden_factor: int = 1
    ) -> None:
        super().__init__()
        if channels % blocks:
            raise ValueError(f"blocks: expected a divisor of {channels} channels, got {blocks}")
        self.channels, self.blocks, self.sparsity = channels, blocks, sparsity
        width, hidden = channels // blocks, channels // blocks * hidden_factor
        self.w1 = nn.Parameter(0.02 * torch.randn(2, blocks, width, hidden))
        self.b1 = nn.Parameter(0.02 * torch.randn(2, blocks, hidden))
        self.w2 = nn.Parameter(0.02 * torch.randn(2, blocks, hidden, width))
        self.b2 = nn.Parameter(0.02 * torch.randn(2, blocks, width))

    def forward(self, input: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same."""
        x = _wide(input)
        spectrum = torch.fft.rfft2(x, norm="ortho")
        blocks = spectrum.unflatten(1, (self.blocks, -1))
        real, imag = _blockwise(blocks.real, blocks.imag, self.w1, self.b1)
        real, imag = _blockwise(F.relu(real), F.relu(imag), self.w2, self.b2)
        mask = torch.complex(F.softshrink(real, self.sparsity), F.softshrink(imag, self.sparsity))
        y = torch.fft.irfft2(mask.flatten(1, 2) * spectrum, s=tuple(x.shape[-2:]), norm="ortho")
        return (y + x).to(input.dtype)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.channels}, blocks={self.blocks}, sparsity={self.sparsity}"


class SpectralPooling2d(nn.Module):
    """Resizes planes by keeping their lowest frequencies (Rippel et al. 2015, arXiv 1506.03767, section 4).

    Means are kept; a plane of no frequency beyond the smaller size's is resampled exactly.

    Args:
        output_size: rows and columns that are kept; at most the input's.

    Shape: ``[N, C, H, W]`` to ``[N, C, *output_size]``; half input is computed in float32.
    """

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, *output_size]``."""
        rows, columns = self.output_size
        if not (0 < rows <= input.shape[-2] and 0 < columns <= input.shape[-1]):
            raise ValueError(
                f"output_size: expected at most {tuple(input.shape[-2:])}, got {self.output_size}"
            )
        spectrum = torch.fft.rfft2(_wide(input), norm="forward")[..., : columns // 2 + 1]
        above, below = (rows + 1) // 2, rows // 2
        kept = torch.cat([spectrum[..., :above, :], spectrum[..., spectrum.shape[-2] - below :, :]], -2)
        return torch.fft.irfft2(kept, s=(rows, columns), norm="forward").to(input.dtype)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.output_size}"


class SpectralPoolingFilter2d(nn.Module):
    """y = irfft2(M rfft2(x)), which weighs low frequencies against high ones (Yun et al. 2023, arXiv 2308.11568).

    M is ``low`` at frequencies below ``radius``, in cycles per plane, 1 - low above and 1/3 at exactly the radius.

    Args:
        radius: of the disc of low frequencies.
        low: weight of low frequencies; several are for as many parts of the channels, cut as by torch.chunk.

    Shape: ``[N, C, H, W]`` to the same; half input is computed in float32.
    """

    def __init__(self, radius: float, low: float | Sequence[float] = (0.7, 0.8, 0.9)) -> None:
        super().__init__()
        self.radius = radius
        self.low = tuple(low) if isinstance(low, Sequence) else (low,)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same."""
        x = _wide(input)
        rows, columns = x.shape[-2:]
        if x.shape[1] < len(self.low):
            raise ValueError(f"input: expected at least {len(self.low)} channels, got {x.shape[1]}")
        place = {"dtype": x.dtype, "device": x.device}
        down, across = (
            torch.fft.fftfreq(rows, 1 / rows, **place),
            torch.fft.rfftfreq(columns, 1 / columns, **place),
        )
        frequency = torch.hypot(down.unsqueeze(1), across)
        masks = []
        for low in self.low:
            mask = torch.full_like(frequency, 1 / 3).masked_fill(frequency < self.radius, low)
            masks.append(mask.masked_fill(frequency > self.radius, 1 - low))
        parts = torch.fft.rfft2(x).chunk(len(masks), 1)
        mixed = torch.cat([mask * part for mask, part in zip(masks, parts, strict=True)], 1)
        return torch.fft.irfft2(mixed, s=(rows, columns)).to(input.dtype)

    def extra_repr(self) -> str:
        """Radius and weights."""
        return f"{self.radius}, low={self.low}"


def _wide(input: Tensor) -> Tensor:
    return input.float() if input.dtype in (torch.bfloat16, torch.float16) else input


def _blockwise(real: Tensor, imag: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A complex affine map of every block of channels, on ``[N, blocks, c, H, W]``."""

    def times(x: Tensor, part: int) -> Tensor:
        return torch.einsum("nbihw,bio->nbohw", x, weight[part])

    column = (slice(None), slice(None), None, None)
    return (
        times(real, 0) - times(imag, 1) + bias[0][column],
        times(imag, 0) + times(real, 1) + bias[1][column],
    )
