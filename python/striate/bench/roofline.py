"""What the machine can do: copy bandwidth by size, and multiply-adds per second by dtype, on the CPU and on a device.

All are torch's own routines (``copy_`` into memory that exists, ``clone``, ``mm``), the best that a user of torch can
see. Bandwidth counts bytes read plus bytes written. A rate is measured once in a process; ``striate roofline`` keeps
what it measured in a file (``store.py``), and later runs on the same machine with the same torch start from there.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch

from .._problem import DTYPE_WORDS
from . import store
from .environment import cache_sizes, last_cache
from .timing import OnDevice

REFERENCE_BYTES = 64 << 20
_SMALLEST = 1 << 16
_SECONDS = 0.05
_SIDE = {torch.float32: 1024, torch.float64: 1024, torch.bfloat16: 512, torch.float16: 512}
_DEVICE_SIDE, _DEVICE_BYTES = 8192, 1 << 30
DEVICE_PEAKS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class _Costs(Protocol):
    @property
    def macs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def problem(self) -> Any: ...


def _best(call: Any, work: float, device: str = "cpu") -> float:
    """Largest ``work`` per second over about ``_SECONDS``."""
    call()
    call()
    best, stop = float("inf"), time.perf_counter() + _SECONDS
    timed = OnDevice(call)
    while True:
        if device == "cuda":
            seconds = timed.sample(1, together=False)[0]
        else:
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
        best = min(best, seconds)
        if time.perf_counter() > stop:
            return work / best


def _threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _rate(name: str, threads: int, device: str, measure: Callable[[], float]) -> float:
    """What is known of a rate, measured if nothing is."""
    key = f"{device} {threads if device == 'cpu' else 0} {name}"
    known = store.rates()
    if key not in known:
        if device == "cpu":
            _threads(threads)
        known[key] = measure()
    return known[key]


def copy_bandwidth(threads: int, size: int = REFERENCE_BYTES, device: str = "cpu") -> float:
    """Bytes per second, read and written, of copying ``size`` bytes."""

    def measure() -> float:
        source = torch.ones(size, dtype=torch.uint8, device=device).view(torch.float32)
        target = torch.zeros_like(source)
        return _best(lambda: target.copy_(source), 2 * size, device)

    return _rate(f"copy {size}", threads, device, measure)


def clone_bandwidth(threads: int, size: int = REFERENCE_BYTES, device: str = "cpu") -> float:
    """Bytes per second, read and written, of copying ``size`` bytes into memory that is allocated for it.

    This is what an operator can hope for that returns a new tensor: beyond 32 MiB the C library takes every block
    from the system, which clears each page at its first touch.
    """

    def measure() -> float:
        source = torch.ones(size, dtype=torch.uint8, device=device).view(torch.float32)
        return _best(source.clone, 2 * size, device)

    return _rate(f"clone {size}", threads, device, measure)


def small_bandwidth(size: int) -> float:
    """Bytes per second, read and written, of copying so few bytes that the cost of a call has to be taken off."""

    def measure() -> float:
        source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
        calls = range(200)

        def seconds(length: int) -> float:
            best = float("inf")
            for _ in range(50):
                start = time.perf_counter()
                for _ in calls:
                    ctypes.memmove(target, source, length)
                best = min(best, time.perf_counter() - start)
            return best / len(calls)

        return 2 * size / max(1e-10, seconds(size) - seconds(1))

    return _rate(f"small {size}", 1, "cpu", measure)


def peak(threads: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """Floating-point operations per second of a square matrix product in ``dtype``."""

    def measure() -> float:
        n = _SIDE[dtype] if device == "cpu" else _DEVICE_SIDE
        a = torch.ones(n, n, dtype=dtype, device=device)
        b, out = torch.ones_like(a), torch.empty_like(a)
        return _best(lambda: torch.mm(a, b, out=out), 2 * n**3, device)

    return _rate(f"peak {DTYPE_WORDS[dtype]}", threads, device, measure)


def copy_size(moved: int) -> int:
    """The power of two at which copying moves about ``moved`` bytes, at most the reference size."""
    size = _SMALLEST
    while size * 2 < moved and size < REFERENCE_BYTES:
        size *= 2
    return size


def bound(costs: tuple[int, int], dtype: torch.dtype, threads: int, device: str = "cpu") -> dict[str, Any]:
    """Seconds that (multiply-adds, bytes) take at least: arithmetic at peak, or copying at its scale.

    Half types sum in f32, so their arithmetic is held against the f32 peak.
    """
    macs, moved = costs
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    size = copy_size(moved)
    flops, bandwidth = peak(threads, wide, device), copy_bandwidth(threads, size, device)
    compute, memory = 2 * macs / flops, moved / bandwidth
    return {
        "bound": "compute" if compute > memory else "memory",
        "seconds": max(compute, memory),
        "peak": flops,
        "bandwidth": bandwidth,
        "clone_bandwidth": clone_bandwidth(threads, size, device),
    }


def roof(work: _Costs, threads: int) -> dict[str, Any]:
    """The bound of a piece of work."""
    return bound((work.macs, work.bytes), work.problem.dtype, threads, work.problem.device)


def machine(settings: Iterable[int], devices: tuple[str, ...] = ("cpu",)) -> list[dict[str, Any]]:
    """The reference rates for each number of threads, and of the device."""
    rates = [_reference(threads, "cpu") for threads in settings]
    return rates + [_reference(0, device) for device in devices if device != "cpu"]


def _reference(threads: int, device: str) -> dict[str, Any]:
    size = REFERENCE_BYTES if device == "cpu" else _DEVICE_BYTES
    return {
        "device": device,
        "threads": threads,
        "copy": copy_bandwidth(threads, size, device),
        "clone": clone_bandwidth(threads, size, device),
        "copy_bytes": size,
        "peak_f32": peak(threads, torch.float32, device),
        "peak_f64": peak(threads, torch.float64, device),
    }


def levels(threads: int) -> list[dict[str, Any]]:
    """Copy bandwidth inside each cache of the CPU and in memory; source and target fill half of a cache."""
    found = []
    for level, size in cache_sizes().items():
        each = 1 << max(12, (size // 4).bit_length() - 1)
        if level == "L1":
            if threads == 1:
                found.append(
                    {"level": level, "size": size, "copy": small_bandwidth(each), "copy_bytes": each}
                )
            continue
        found.append(
            {"level": level, "size": size, "copy": copy_bandwidth(threads, each), "copy_bytes": each}
        )
    beyond = max(REFERENCE_BYTES, 1 << (2 * last_cache() - 1).bit_length())
    rate = copy_bandwidth(threads, beyond)
    return [*found, {"level": "memory", "size": None, "copy": rate, "copy_bytes": beyond}]


def full(settings: Iterable[int], devices: tuple[str, ...]) -> list[dict[str, Any]]:
    """Everything ``striate roofline`` shows: the reference rates, every cache and every dtype."""
    rates = machine(settings, devices)
    for rate in rates:
        threads, device = rate["threads"], rate["device"]
        if device == "cpu":
            rate["levels"] = levels(threads)
        for dtype in DEVICE_PEAKS:
            rate[f"peak_{DTYPE_WORDS[dtype]}"] = peak(threads, dtype, device)
    return rates
