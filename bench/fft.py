"""Long convolutions against torch.fft, in turns in one process.

    python bench/fft.py [--budget SECONDS] [--only PATTERN] [record.jsonl]

``torch.fft`` is rfft, product, irfft with padding to a power of two; ``torch.fft.cached`` has the kernel's spectrum
already. The direct convolution stands beside both where it decides which is used. Memory is what one call adds to the
process's peak.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import striate
from striate.bench.environment import environment, load_average
from striate.bench.records import Recorder
from striate.bench.timing import Local, race

Calls = dict[str, Callable[[], Any]]
MIB = 2.0**20


def power(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()


def by_torch(x: Tensor, k: Tensor, spectrum: Tensor | None = None) -> Tensor:
    """The causal convolution as it is usually written with torch.fft."""
    length = x.shape[-1]
    n = power(length + k.shape[-1] - 1)
    k_f = torch.fft.rfft(k, n=n) if spectrum is None else spectrum
    return torch.fft.irfft(torch.fft.rfft(x, n=n) * k_f, n=n)[..., :length]


def causal(samples: int, channels: int, length: int, taps: int) -> Calls:
    """Forward passes of a causal convolution."""
    x, k = torch.randn(samples, channels, length), torch.randn(channels, taps) / taps
    spectrum = torch.fft.rfft(k, n=power(length + taps - 1))
    calls: Calls = {
        "striate": lambda: striate.fft_conv1d(x, k, order="convolution"),
        "torch.fft": lambda: by_torch(x, k),
        "torch.fft.cached": lambda: by_torch(x, k, spectrum),
    }
    if taps <= 2048:
        padded, weight = F.pad(x, (taps - 1, 0)), k.flip(-1).unsqueeze(1).contiguous()
        calls["direct"] = lambda: striate.depthwise_conv1d(padded, weight)
    return calls


def backward(samples: int, channels: int, length: int) -> Calls:
    """Forward and backward passes with a kernel as long as the input."""
    x = torch.randn(samples, channels, length, requires_grad=True)
    k = (torch.randn(channels, length) / length).requires_grad_()
    g = torch.randn(samples, channels, length)
    return {
        "striate": lambda: torch.autograd.grad(striate.fft_conv1d(x, k, order="convolution"), (x, k), g),
        "torch.fft": lambda: torch.autograd.grad(by_torch(x, k), (x, k), g),
    }


def plane(samples: int, channels: int, size: int) -> Calls:
    """A circular convolution with a kernel as large as the plane."""
    x, k = torch.randn(samples, channels, size, size), torch.randn(channels, size, size)
    spectrum = torch.fft.rfft2(k)
    return {
        "striate": lambda: striate.fft_conv2d(x, k, order="convolution", padding="circular"),
        "torch.fft.cached": lambda: torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=(size, size)),
    }


def layer(kind: str) -> Calls:
    """Forward and backward passes of a layer, and of the same layer with torch.fft in place of striate."""
    from striate.nn import hyena, long_conv

    torch.manual_seed(0)
    made: nn.Module
    if kind == "hyena":
        made, x = striate.nn.HyenaOperator(128, 4096), torch.randn(2, 4096, 128, requires_grad=True)
    else:
        made, x = striate.nn.SGConv1d(128, 4096), torch.randn(2, 128, 4096, requires_grad=True)
    g = torch.randn(x.shape)

    def convolve(v: Tensor, k: Tensor, *, skip: Tensor, activation: str | None = None, **_: Any) -> Tensor:
        y = by_torch(v, k) + v * skip[:, None]
        return y if activation is None else getattr(F, activation)(y)

    def run(function: Callable[..., Tensor]) -> Any:
        hyena.fft_conv1d, long_conv.fft_conv1d = function, function
        try:
            return torch.autograd.grad(made(x), (x, *made.parameters()), g, allow_unused=True)
        finally:
            hyena.fft_conv1d, long_conv.fft_conv1d = striate.fft_conv1d, striate.fft_conv1d

    return {"striate": lambda: run(striate.fft_conv1d), "torch.fft": lambda: run(convolve)}


CASES: dict[str, Callable[[], Calls]] = {
    "K=L=1k 8x64": lambda: causal(8, 64, 1024, 1024),
    "K=L=4k 8x64": lambda: causal(8, 64, 4096, 4096),
    "K=L=16k 4x32": lambda: causal(4, 32, 16384, 16384),
    "K=L=64k 4x8": lambda: causal(4, 8, 65536, 65536),
    "K=L=256k 2x4": lambda: causal(2, 4, 262_144, 262_144),
    "K=L=1M 1x4": lambda: causal(1, 4, 1 << 20, 1 << 20),
    "K=L=1000 8x64": lambda: causal(8, 64, 1000, 1000),
    "K=L=5003 8x32": lambda: causal(8, 32, 5003, 5003),
    "K=4096 L=64k 4x16": lambda: causal(4, 16, 65536, 4096),
    **{
        f"K={taps} L=16k 4x32": lambda taps=taps: causal(4, 32, 16384, taps)
        for taps in (32, 64, 128, 192, 256, 512)
    },
    "train K=L=1k 8x64": lambda: backward(8, 64, 1024),
    "train K=L=16k 4x16": lambda: backward(4, 16, 16384),
    "circular 8x256x14x14": lambda: plane(8, 256, 14),
    "train SGConv1d 2x128x4096": lambda: layer("sgconv"),
    "train HyenaOperator 2x4096x128": lambda: layer("hyena"),
}


def peak(call: Callable[[], Any]) -> float:
    """Bytes that a call adds to the process's peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")

    def status(name: str) -> int:
        found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    before = status("VmRSS")
    kept = call()
    after = status("VmHWM")
    del kept
    return max(0, after - before)


def main() -> None:
    """Run the cases and write a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", nargs="?")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds per case and number of threads")
    parser.add_argument("--only", default="", help="cases whose name matches")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with Recorder(arguments.record) as recorder:
        recorder.write({"kind": "environment", "command": "python bench/fft.py", **environment()})
        for name, make in CASES.items():
            if not re.search(arguments.only, name):
                continue
            calls = make()
            memory = {who: peak(call) for who, call in calls.items()}
            for threads in (1, 2):
                torch.set_num_threads(threads)
                times = race({who: Local(call) for who, call in calls.items()}, arguments.budget)
                ours = times["striate"]
                ratios = {
                    who: timing.median / ours.median for who, timing in times.items() if who != "striate"
                }
                least = {who: timing.least / ours.least for who, timing in times.items() if who != "striate"}
                recorder.write(
                    {
                        "kind": "fft",
                        "label": name,
                        "threads": threads,
                        "times": {who: timing.record() for who, timing in times.items()},
                        "ratios": ratios,
                        "ratios_min": least,
                        "peak_bytes": memory,
                        "load": load_average(),
                    }
                )
                told = "  ".join(f"{who} {ratio:.2f}x ({least[who]:.2f}x)" for who, ratio in ratios.items())
                print(f"{name:32} {threads} thr  {ours.median * 1e3:8.3f} ms  {told}", flush=True)
            print(
                " " * 32 + "peak " + "  ".join(f"{who} {size / MIB:.1f} MiB" for who, size in memory.items())
            )
        recorder.write({"kind": "end", "seconds": time.perf_counter() - began, "load": load_average()})


if __name__ == "__main__":
    main()
