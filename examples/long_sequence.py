"""Convolve with kernels as long as the sequence, three ways, and watch time and memory of each.

    python examples/long_sequence.py [--length 65536] [--quick]

The same causal convolution by `striate.fft_conv1d`, by `torch.fft`, and, where it ends in sensible time, by torch's
direct `conv1d`. Results are compared before anything is timed; the fastest of some turns is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import striate

Call = Callable[[Tensor, Tensor], Tensor]


def by_torch_fft(x: Tensor, kernel: Tensor) -> Tensor:
    """The textbook: transforms of twice the length."""
    size = 2 * x.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(kernel, size), size)[..., : x.shape[-1]]


def by_striate(x: Tensor, kernel: Tensor) -> Tensor:
    """The same in one call; tap 0 meets the current sample."""
    return striate.fft_conv1d(x, kernel, order="convolution")


def directly(x: Tensor, kernel: Tensor) -> Tensor:
    """One multiplication for every pair of samples."""
    taps = kernel.shape[-1]
    return F.conv1d(F.pad(x, (taps - 1, 0)), kernel.flip(-1).unsqueeze(1), groups=kernel.shape[0])


def seconds(call: Call, x: Tensor, kernel: Tensor) -> float:
    """Of one call."""
    start = time.perf_counter()
    call(x, kernel)
    return time.perf_counter() - start


def main() -> int:
    """Compare and time, for kernels that grow up to the sequence; 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=65536)
    parser.add_argument("--quick", action="store_true", help="a short sequence and one turn")
    args = parser.parse_args()
    torch.manual_seed(0)
    length, turns = (1024, 1) if args.quick else (args.length, 5)
    x = torch.randn(2, 8, length)
    print(f"{'taps':>8}{'fft_conv1d':>14}{'torch.fft':>14}{'conv1d':>14}   (ms, 2 x 8 x {length})")
    worst = 0.0
    for taps in (64, 512, 4096, 32768, 262144):
        if taps > length:
            break
        kernel = torch.randn(8, taps) / taps**0.5
        calls: dict[str, Call] = {"striate": by_striate, "torch.fft": by_torch_fft}
        if taps * length <= 1 << 25:
            calls["direct"] = directly
        results = [call(x, kernel) for call in calls.values()]
        worst = max(worst, *(float((result - results[0]).abs().max()) for result in results))
        times = {name: min(seconds(call, x, kernel) for _ in range(turns)) for name, call in calls.items()}
        cells = (
            f"{times[name] * 1e3:14.2f}" if name in times else f"{'-':>14}"
            for name in ("striate", "torch.fft", "direct")
        )
        print(f"{taps:8}" + "".join(cells))
    print(f"largest difference between results: {worst:.1e}")
    return int(worst > 1e-3)


if __name__ == "__main__":
    sys.exit(main())
